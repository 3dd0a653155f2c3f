"""Arrivals: items that came after the version was made, at places of an answer that all others go around.

No list holds them and no signal knows them, for a version has neither their vectors nor their columns. What is known is
what the shop has announced, as live facts, and how many users have done something with them in the last hours. Those
most wanted now stand where their scores put them, which go by these counts and were learned beside the weights of the
signals (`jobs/arrival_score.py`); or at the positions that `serve.arrivals` keeps for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from reranker.announced import effects_on
from reranker.arrays import NO_NUMBERS, Float32
from reranker.caps import NO_CAPS, Caps
from reranker.reasons import rounded
from reranker.rules import Rules
from reranker.trending_now import Trending
from schemas.live_items import ItemFacts
from schemas.messages import AnsweredItem, RecommendRequest
from schemas.ranker import ArrivalScore
from schemas.rules import Order
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version

ARRIVALS = "arrivals"
"""The rung of such items."""
LEARNED = "learned"
"""`serve.arrivals`: their scores say where they stand."""
CONSIDERED = 50
"""Of those most wanted, where scores decide."""
WHY = "new since the lists were made, and what many want just now"


class Wanted(NamedTuple):
    """Arrivals that users want now, a row each."""

    items: Sequence[str] = ()
    facts: Sequence[ItemFacts] = ()
    ranks: Sequence[int] = ()
    """Their places, from 0, among all arrivals that are wanted now."""
    counts: Float32 = NO_NUMBERS
    """float32[n]: how many users, the earlier for less."""
    worth: Float32 = NO_NUMBERS
    """float32[n]: the counts as they score: what was shown in vain counts for less."""
    hours: Float32 = NO_NUMBERS
    """float32[n]: since the first user wanted them."""
    boosts: Sequence[tuple[str, Float32]] = ()
    """Names of rules, and float32[n]: what they add to the scores."""
    scores: Float32 = NO_NUMBERS
    """float32[n]: the counts where places are kept."""

    def rows(self, numbers: Sequence[int]) -> Wanted:
        """Some of them, in this order."""
        if numbers == range(len(self.items)):
            return self
        at = np.array(numbers, np.int64)
        return Wanted(
            [self.items[number] for number in numbers],
            [self.facts[number] for number in numbers],
            [self.ranks[number] for number in numbers],
            self.counts[at],
            self.worth[at],
            self.hours[at],
            [(name, added[at]) for name, added in self.boosts],
            self.scores[at],
        )

    def scored(self, scores: Float32) -> Wanted:
        """With these scores, highest first; of equal ones what stands first here."""
        return self._replace(scores=scores).rows(np.argsort(-scores, kind="stable").tolist())

    @property
    def added(self) -> Float32:
        """float32[n]: by all boosts."""
        return sum((added for _, added in self.boosts), np.zeros(len(self.items), np.float32))


class Arrivals(NamedTuple):
    """What has arrived and is shown, and where."""

    places: Sequence[int] = ()
    """From 1, ascending: one for each item."""
    shown: Wanted = Wanted()
    is_scored: bool = False
    """Their scores are what put them there."""

    def placed(self, best: Callable[[], Float32] | None) -> Arrivals:
        """As `Competing.placed`: they have their places."""
        return self

    def around(self, position: int) -> int:
        """Where what is to stand at a position of the answer stands among all others."""
        return position - bisect_left(self.places, position)

    def order_of(self, wanted: Order) -> Order:
        """The constraints on all others."""
        if not self.places or not wanted.explore_positions:
            return wanted
        positions = [self.around(position) for position in wanted.explore_positions]
        return msgspec.structs.replace(wanted, explore_positions=positions)

    def left(self, wanted: int) -> Sequence[int]:
        """The ranks of so many others, where nothing is missing."""
        if not self.places:
            return range(1, wanted + 1)
        return [rank for rank in range(1, wanted + len(self.places) + 1) if rank not in self.places]

    def among(self, others: list[AnsweredItem], *, explain: bool) -> list[AnsweredItem]:
        """The answer: the others in their order, and these at their places, or at the end of what is shorter."""
        found, shown = [*others], self.shown
        numbers = zip(shown.items, shown.scores.tolist(), shown.counts.tolist(), shown.ranks, strict=True)
        for row, (place, (item, score, count, rank)) in enumerate(zip(self.places, numbers, strict=True)):
            made = AnsweredItem(
                item=item,
                rank=place,
                score=round(score, 6),
                base_score=round(count, 6),
                base_rank=rank + 1,
                rung=ARRIVALS,
            )
            found.insert(place - 1, self._explained(made, row) if explain else made)
        ranked = enumerate(found, 1)
        return [item if item.rank == rank else msgspec.structs.replace(item, rank=rank) for rank, item in ranked]

    def _explained(self, made: AnsweredItem, row: int) -> AnsweredItem:
        parts: dict[str, float] = {}
        if self.is_scored:
            for name, added in self.shown.boosts:
                if added[row]:  # rules may share a name
                    parts[f"rule {name}"] = rounded(parts.get(f"rule {name}", 0.0) + float(added[row]))
            parts = {ARRIVALS: rounded(made.score - sum(parts.values())), **parts}
        title = self.shown.facts[row].title
        return msgspec.structs.replace(
            made, title="" if title is msgspec.UNSET else title, sources=[ARRIVALS], signals={}, contributions=parts,
            why=WHY,
        )  # fmt: skip


NONE = Arrivals()


class Competing(NamedTuple):
    """Arrivals that stand where their scores put them."""

    shown: Wanted
    """Highest scores first, see `by`."""
    others: Collection[int]
    """The positions that are not for them."""
    wanted: int
    """Length of the answer."""

    def by(self, score: ArrivalScore) -> Competing:
        """With their scores."""
        scores = scores_of(self.shown.worth, self.shown.hours, score) + self.shown.added
        return self._replace(shown=self.shown.scored(scores))

    def placed(self, best: Callable[[], Float32] | None) -> Arrivals:
        """Each before the first of the others that scores less.

        Args:
            best: float32[m], the scores of the best of all others, highest first, as many as are wanted; None: nobody
                had the time to score them, and there are no arrivals.
        """
        if best is None:
            return NONE
        places: list[int] = []
        for number, better in enumerate(np.searchsorted(-best(), -self.shown.scores, side="right").tolist()):
            place = max(better + number + 1, places[-1] + 1 if places else 1)
            while place in self.others:
                place += 1
            if place > self.wanted:
                break
            places.append(place)
        return Arrivals(places, self.shown.rows(range(len(places))), True)


def may_be_shown(serve: Serve, score: ArrivalScore | None) -> bool:
    """True when there are places for arrivals, or a score that puts them somewhere."""
    return bool(serve.kept_for_arrivals) or (serve.arrivals == LEARNED and score is not None)


def scores_of(counts: Float32, hours: Float32, score: ArrivalScore) -> Float32:
    """float32[n]: what arrivals score, by how many users want them and for how long some have."""
    found = score.base + score.of_count * np.log1p(counts) + score.of_age * np.log1p(hours)
    scores: Float32 = found.astype(np.float32)
    return scores


def arrivals_of(
    version: Version,
    request: RecommendRequest,
    rules: Rules,
    serve: Serve,
    *,
    trending: Trending | None,
    live: LiveView,
    ignored: Mapping[str, int],
    wanted: int,
    now: float,
    score: ArrivalScore | None,
    caps: Caps = NO_CAPS,
) -> Arrivals | Competing:
    """The arrivals of an answer of `wanted` items.

    What the request excludes, or the session has where that is not to be shown again, is none of them, nor what the
    rules leave out or cannot judge, nor what is one too many by the caps. What was shown in vain counts half as much
    for each time. A pin keeps its position.

    Args:
        ignored: times that items were shown without a click.
        rules: of the placement.
        score: where `serve.arrivals` is "learned", what was; None: nothing was, and there are no arrivals.
    """
    if trending is None or not trending.arrivals or not may_be_shown(serve, score):
        return NONE
    is_learned = serve.arrivals == LEARNED
    pinned = {rule.position for rule, _ in rules.rules if rule.action == "pin"}
    places = sorted({place for place in serve.kept_for_arrivals if place <= wanted} - pinned)
    most = CONSIDERED if is_learned else len(places)
    known = {*request.exclude, *_known(request, serve)}
    facts = ((rank, live.arrivals.get(item)) for rank, item in enumerate(trending.arrivals) if item not in known)
    is_there = ((rank, found) for rank, found in facts if found is not None and _is_there(found, now))
    is_narrowed = rules.rules or ignored or serve.order.caps
    found = _wanted(trending, dict(is_there if is_narrowed else islice(is_there, most)), ignored, now)
    if rules.rules and found.items:
        effects = effects_on(version, found.items, found.facts, rules)
        found = found._replace(boosts=effects.boosts)
        found = found if effects.is_allowed is None else found.rows(np.flatnonzero(effects.is_allowed).tolist())
    if ignored:
        found = found.rows(np.argsort(-found.worth, kind="stable").tolist())
    if not found.items:
        return NONE
    if score is None or not is_learned:
        shown = found.rows(caps.among(found.facts, most))
        return Arrivals(places[: len(shown.items)], shown)
    others = pinned.union(serve.order.explore_positions)
    competing = Competing(found.rows(range(min(most, len(found.items)))), others, wanted).by(score)
    return competing._replace(shown=competing.shown.rows(caps.among(competing.shown.facts, wanted)))


def _wanted(trending: Trending, there: Mapping[int, ItemFacts], ignored: Mapping[str, int], now: float) -> Wanted:
    """Those of some ranks, most wanted first."""
    ranks = [*there]
    items, counts = [trending.arrivals[rank] for rank in ranks], trending.arrived[ranks]
    hours = (np.maximum(now - trending.since[ranks], 0.0) / 3600.0).astype(np.float32)
    shares = np.array([0.5 ** ignored.get(item, 0) for item in items], np.float32)
    return Wanted(items, [*there.values()], ranks, counts, counts * shares, hours, scores=counts)


def _known(request: RecommendRequest, serve: Serve) -> set[str]:
    """The session's items that are not to be shown as if they were new: lowered is as good as hidden here."""
    bought = {event.item for event in request.session if event.event in serve.bought_events}
    seen = {event.item for event in request.session} - bought
    return (seen if serve.seen.policy != "allow" else set()) | (bought if serve.bought.policy != "allow" else set())


def _is_there(facts: ItemFacts, now: float) -> bool:
    return facts.available_until is msgspec.UNSET or facts.available_until > now
