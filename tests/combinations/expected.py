"""What must be true of an answer, told once more and slowly: in plain Python, from the promises of docs/serving.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from combinations.conditions import Row
from combinations.draws import Asked, Settings
from combinations.worlds import MADE_AT, SAID, User, World
from reranker.sources import MAX_NEIGHBOURHOODS
from schemas.messages import SessionEvent
from schemas.ranker import ArrivalScore
from schemas.rules import Rule

CAPPED = ("brand", "category")


class Rung(NamedTuple):
    """A rung that is open."""

    name: str
    surely: set[int]
    """Items that its pool has."""
    perhaps: set[int]
    """Items that it may have: these and no others."""
    is_hasty: bool


@dataclass(frozen=True)
class Expected:
    """One request, in one world, by some settings."""

    world: World
    settings: Settings
    asked: Asked

    @cached_property
    def moment(self) -> float:
        time = self.asked.request.context.time
        return self.asked.now if time is None else time

    @cached_property
    def user(self) -> User | None:
        """Whom the version knows; a record that cannot be read leads to nobody."""
        found = self.world.users.get(self.asked.request.user)
        return None if found is None or found.is_damaged else found

    @cached_property
    def stored(self) -> tuple[list[int] | None, str | None, bool]:
        """(the user's list, or why there is none to use; whether what is served is stale)."""
        store, now = self.settings.config.store, self.asked.now
        found = self.world.users.get(self.asked.request.user)
        is_over = now >= self.world.expires_at
        if found is None:
            return None, "unknown_user", is_over
        if found.is_damaged:
            return None, "damaged_record", is_over
        is_expired = is_over or now - found.made_at >= store.record_ttl_hours * 3600
        if is_expired and store.expired == "fallback":
            return None, "expired_record", is_over
        return found.listed, None, is_expired

    def weight(self, event: SessionEvent) -> float:
        """What events of this type weigh in the session."""
        usual = 0.0 if self.world.is_silent(event.event) else 1.0
        return self.settings.config.serve.session_event_weights.get(event.event, usual)

    @cached_property
    def visited(self) -> set[int]:
        """Items of the session that weigh something."""
        events = self.asked.request.session
        return {self.world.index[e.item] for e in events if e.item in self.world.index and self.weight(e) > 0}

    @cached_property
    def known(self) -> dict[int, str]:
        """How the user knows items: bought, or else seen, or else seen_before."""
        found = dict.fromkeys(self.user.history, "seen_before") if self.user else {}
        bought = {*self.user.consumed} if self.user else set()
        for event in self.asked.request.session:
            place = self.world.index.get(event.item)
            if place is not None:
                found[place] = "seen"
                if event.event in self.settings.config.serve.bought_events:
                    bought.add(place)
        return found | dict.fromkeys(bought, "bought")

    def discount(self, place: int) -> dict[str, float]:
        """What is taken from an item's score, by the name that explains it; the latest event of its way counts."""
        how = self.known.get(place)
        if how is None or getattr(self.settings.config.serve, how).policy != "discount":
            return {}
        repeat, bought = getattr(self.settings.config.serve, how), self.settings.config.serve.bought_events
        in_version = self.user is not None and (how == "seen_before" or place in self.user.consumed)
        ages = [self.moment - MADE_AT] if in_version and how != "seen" else []
        for event in self.asked.request.session:
            if event.item == self.world.items[place].id and (how == "bought") == (event.event in bought):
                ages.append(0.0 if event.time is None else self.moment - event.time)
        halvings = max(0.0, min(ages)) / (repeat.half_life_hours * 3600.0)
        return {f"discount {how.replace('_', ' ')}": repeat.discount * 0.5**halvings}

    def may_be_shown(self, place: int) -> bool:
        """In stock, not hidden, available, not excluded, not known where that hides, and by the rules."""
        item, how = self.world.items[place], self.known.get(place)
        if how is not None and getattr(self.settings.config.serve, how).policy == "hide":
            return False
        facts = self.world.live.get(item.id, {})
        is_there = facts.get("in_stock", item.in_stock) and not facts.get("hidden", False)
        is_there = is_there and facts.get("available_until", float("inf")) > self.asked.now
        return is_there and item.id not in self.asked.request.exclude and self._agree(self.row(place))

    def arrival_may_be_shown(self, item: str) -> bool:
        """The same of what the version lacks."""
        facts, request = self.world.live.get(item, {}), self.asked.request
        is_there = facts.get("in_stock") is True and not facts.get("hidden", False)
        is_there = is_there and facts.get("available_until", float("inf")) > self.asked.now
        row = self.announced(item)
        return is_there and item not in request.exclude and self._agree(row, judged={*row})

    def announced(self, item: str) -> Row:
        """What is known of an item that the version lacks, and nothing else."""
        facts = self.world.live.get(item, {})
        said = {name: facts[name] for name in SAID if name in facts}
        return {"id": item, "in_stock": True, **said}

    def boosts_of_arrival(self, item: str) -> dict[str, float]:
        """By the names that explain them."""
        row, found = self.announced(item), dict[str, float]()
        for rule, meant in self.rules:
            if rule.action == "boost" and meant.columns <= {*row} and meant.holds(row):
                found[f"rule {rule.name}"] = found.get(f"rule {rule.name}", 0.0) + rule.weight
        return found

    @cached_property
    def arrivals(self) -> dict[str, tuple[float, float]]:
        """Those that may be shown, whether the user has seen them or not, most wanted first: how many want each, by
        what was shown in vain, and for how many hours."""
        trending, found = self.asked.trending, dict[str, tuple[float, float]]()
        if trending is None:
            return found
        numbers = zip(np.frombuffer(trending.arrived, "<f4"), np.frombuffer(trending.since, "<f8"), strict=True)
        for item, (count, since) in zip(trending.arrivals, numbers, strict=True):
            if self.arrival_may_be_shown(item):
                worth = float(count) * 0.5 ** self.asked.ignored.get(item, 0)
                found[item] = worth, max(0.0, self.asked.now - since) / 3600.0
        return dict(sorted(found.items(), key=lambda pair: -pair[1][0]))

    def arrival_scores(self, score: ArrivalScore) -> dict[str, float]:
        """Of the same."""
        found = {}
        for item, (worth, hours) in self.arrivals.items():
            found[item] = score.base + score.of_count * math.log1p(worth) + score.of_age * math.log1p(hours)
            found[item] += sum(self.boosts_of_arrival(item).values())
        return found

    def arrivals_by(self, scores: dict[str, float]) -> list[str]:
        """Those that this user may be shown, highest scores first, as far as caps let each after those before it."""
        session, serve = self.asked.request.session, self.settings.config.serve
        bought = {event.item for event in session if event.event in serve.bought_events}
        policies = {event.item: (serve.bought if event.item in bought else serve.seen).policy for event in session}
        seen, found = Counter[tuple[str, Any]](), []
        for item in sorted(scores, key=lambda item: -scores[item]):
            values = [(name, said) for name, said in self.announced(item).items() if name in self.caps]
            if policies.get(item, "allow") == "allow" and all(seen[value] < self.caps[value[0]] for value in values):
                found.append(item)
                seen.update(values)
        return found

    @cached_property
    def caps(self) -> dict[str, int]:
        """Those on columns of categories."""
        return {name: most for name, most in self.settings.config.serve.order.caps.items() if name in CAPPED}

    def row(self, place: int) -> Row:
        item, facts = self.world.items[place], self.world.live.get(self.world.items[place].id, {})
        found: dict[str, Any] = {name: getattr(item, name) for name in self.world.columns}
        found["title"] = item.title or None
        told = [name for name in ("title", "category", "brand") if name in found and found[name] is None]
        return found | {name: facts[name] for name in ("in_stock", "price", *told) if name in facts}

    @cached_property
    def rules(self) -> list[tuple[Rule, Any]]:
        """Those of the placement that the version has the columns for, with what they mean."""
        pairs = zip(self.settings.config.serve.rules, self.settings.meant, strict=True)
        placement, columns = self.asked.request.placement, self.world.columns
        return [
            (rule, meant)
            for rule, meant in pairs
            if meant.columns <= columns and (not rule.placements or placement in rule.placements)
        ]

    def _agree(self, row: Row, judged: Set[str] | None = None) -> bool:
        """`judged`: the columns without which a rule leaves it out; None: none."""
        rules = [(rule.action, meant, judged is None or meant.columns <= judged) for rule, meant in self.rules]
        included = [is_judged and meant.holds(row) for action, meant, is_judged in rules if action == "include"]
        excluded = [not is_judged or meant.holds(row) for action, meant, is_judged in rules if action == "exclude"]
        return not any(excluded) and (any(included) or not included)

    def pins(self) -> Iterator[tuple[int, Any]]:
        """Positions, ascending, and what is meant to stand there."""
        pins = [(rule.position, meant) for rule, meant in self.rules if rule.action == "pin"]
        yield from sorted(pins, key=lambda pin: pin[0])

    @cached_property
    def segment(self) -> str | None:
        asked = self.asked.request.context.segment
        if asked is not None or self.user is None:
            return asked
        return self.user.segment if self.user.segment in self.world.popular else ""

    @cached_property
    def rungs(self) -> list[Rung]:
        """The rungs that are open, in their order."""
        listed = None if self.asked.holdout == "popular" else self.stored[0]
        since, serve = 0 if self.asked.holdout else self.asked.since, self.settings.config.serve
        hasty = (0 <= since <= number for number in range(9))
        found = []
        if listed is not None:
            if next(hasty):
                found.append(Rung("stored_order", {*listed}, {*listed}, True))
            else:
                surely = {*listed} | self._wanted_now()
                if len(self._near()) <= self._most_near(serve.neighbour_candidates):
                    surely |= self._near()
                found.append(Rung("personal", surely, {*listed} | self._added(with_near=True), False))
        if self.visited and not next(hasty):
            near, most = self._near(), self._most_near(max(serve.neighbour_candidates, serve.max_k))
            surely = (near if len(near) <= most else set()) | self._wanted_now()
            found.append(Rung("session", surely, near | self._added(with_near=False), False))
        if self.segment and self.segment in self.world.popular:
            popular = {*self.world.popular[self.segment]}
            found.append(Rung("segment", popular, popular, next(hasty)))
        popular = {*self.world.popular[""]}
        return [*found, Rung("popular", popular, popular, next(hasty))]

    def _near(self) -> set[int]:
        return {near for place in self.visited for near in self.world.near[place]}

    def _most_near(self, wanted: int) -> int:
        """How many neighbours surely join; of a long session not all items are asked."""
        return wanted if len(self.visited) <= MAX_NEIGHBOURHOODS else -1

    def _wanted_now(self) -> set[int]:
        trending, most = self.asked.trending, self.settings.config.serve.trending_now_candidates
        return set() if trending is None else {self.world.index[item] for item in trending.items[:most]}

    def _added(self, *, with_near: bool) -> set[int]:
        """What may join a list beside its own items."""
        serve, found = self.settings.config.serve, self._wanted_now()
        if self.visited and with_near and serve.neighbour_candidates:
            found |= self._near()
        if self.visited and serve.fresh_candidates and self.world.has_tower:
            found |= {place for place in self.world.trending[""] if self.world.items[place].in_stock}
            found |= {place for place, item in enumerate(self.world.items) if (item.released or 9e99) <= MADE_AT}
        return found

    @cached_property
    def age_seconds(self) -> int:
        listed, _, _ = self.stored
        found = self.world.users.get(self.asked.request.user)
        made_at = MADE_AT if listed is None or found is None else found.made_at
        return max(0, int(self.asked.now - made_at))
