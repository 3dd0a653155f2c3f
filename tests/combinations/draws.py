"""What is asked, and by which settings: drawn at random, so that everything that shapes an answer meets all else."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from combinations.conditions import Meant, draw_condition
from combinations.worlds import DAY, KINDS, MADE_AT, SEGMENTS, STRANGERS, World
from reranker.holdouts import holdout_of
from reranker.serving_log.records import TrendingRecord
from reranker.trending_now import trending_of
from schemas.config import Config
from schemas.messages import Context, RecommendRequest, SessionEvent

PLACEMENTS: Final = ("home", "basket")
POLICIES: Final = ("hide", "hide", "discount", "allow")


@dataclass(frozen=True)
class Settings:
    """A configuration, and what the conditions of its rules mean."""

    config: Config
    meant: list[Meant]
    """Of each rule."""


@dataclass(frozen=True)
class Asked:
    """A request in all its circumstances, as `Reranker.answer_on` is asked."""

    request: RecommendRequest
    ignored: dict[str, int]
    now: float
    since: int
    """The rung from which on there is no time; -1: there is."""
    holdout: str
    trending: TrendingRecord | None
    request_id: str


def draw_settings(world: World, dice: random.Random) -> Settings:
    """Settings of a server; half of the features are off each time, so that all pairs of on and off come."""
    is_on = lambda share=0.5: dice.random() < share  # noqa: E731 short, and used in every line below
    meant = [draw_condition(dice) for _ in range(dice.choice([0, 0, 1, 2, 4]))]
    serve: dict[str, Any] = {"default_k": dice.choice([1, 5, 20]), "max_k": dice.choice([40, 300])}
    serve["rules"] = [_rule(dice, place, one) for place, one in enumerate(meant)]
    kept = dice.sample(range(1, 9), dice.choice([1, 3])) if is_on(0.4) else []
    serve["arrivals"] = "learned" if not kept and is_on() else kept
    free = [place for place in range(1, 20) if place not in kept]
    order: dict[str, Any] = {}
    if is_on():
        order["caps"] = {name: dice.choice([1, 2, 5]) for name in dice.sample(["brand", "category", "price"], 2)}
    if is_on(0.3):
        order["diversity"] = dice.choice([0.1, 0.5, 1.0])
    if is_on(0.4):
        order["explore_positions"] = dice.sample(free[: dice.choice([4, 12])], dice.choice([1, 2, 3]))
        order["explore_among"] = dice.choice([1, 2, 5, 50])
    serve["order"] = order
    for name in ("neighbour_candidates", "fresh_candidates", "trending_now_candidates"):
        serve[name] = dice.choice([0, 3, 200])
    for name in ("seen", "seen_before", "bought"):
        serve[name] = {"policy": dice.choice(POLICIES), "discount": dice.choice([0.0, 0.3, 2.0])}
    if is_on(0.3):  # as they are by default
        serve |= {"seen": {}, "bought": {}, "seen_before": {"policy": "allow"}}
    if is_on(0.3):
        serve["bought_events"] = dice.sample(KINDS, 2)
    if is_on(0.3):
        serve["session_event_weights"] = {kind: dice.choice([0.0, 0.5, 3.0]) for kind in dice.sample(KINDS, 2)}
    if is_on(0.3):
        share = dice.choice([0.3, 0.5])
        serve["holdouts"] = {"stored_order": share, "popular": share}
    store = {"expired": dice.choice(["serve_stale", "fallback"]), "record_ttl_hours": dice.choice([36.0, 100.0])}
    config = msgspec.convert({"serve": serve, "store": store, "paths": {"store": str(world.root)}}, Config)
    return Settings(config, meant)


def draw_asked(world: World, settings: Settings, dice: random.Random) -> Asked:
    """A request."""
    user = dice.choice([*world.users, *world.users, *STRANGERS])
    now = MADE_AT + dice.choice([0.5, 3.3, 30.0, 60.0, 200.0]) * 3600.0
    moment = now + dice.choice([-5 * DAY, -1800.0, 1800.0]) if dice.random() < 0.2 else None
    items = [*world.ids, *world.arrivals, "unknown"]
    session = [_event(dice, items, now) for _ in range(dice.choice([0, 0, 1, 3, 12, 70]))]
    request = RecommendRequest(
        user=user,
        k=dice.choice([None, 1, 2, 5, 12, 40, settings.config.serve.max_k]),
        session=session,
        context=Context(
            device=dice.choice([None, "phone", "tv"]),
            time=moment,
            segment=dice.choice([None, None, *SEGMENTS, "unknown"]),
        ),
        exclude=[dice.choice(items) for _ in range(dice.choice([0, 0, 2, 10]))],
        placement=dice.choice(PLACEMENTS),
        explain=dice.random() < 0.5,
    )
    ignored = {item: dice.randint(1, 4) for item in items if dice.random() < 0.2} if dice.random() < 0.3 else {}
    holdout = holdout_of(user, settings.config.serve.holdouts)
    since = dice.choice([-1, -1, -1, 0, 1, 2])
    trending = _trending(world, dice, now) if dice.random() < (0.8 if world.arrivals else 0.5) else None
    return Asked(request, ignored, now, since, holdout, trending, f"{dice.getrandbits(128):032x}")


def _rule(dice: random.Random, place: int, meant: Meant) -> dict[str, Any]:
    action = dice.choice(["include", "exclude", "boost", "boost", "pin", "pin"])
    rule: dict[str, Any] = {"name": dice.choice(("rule", f"rule {place}")), "where": meant.text, "action": action}
    rule["placements"] = dice.sample(PLACEMENTS, dice.choice([0, 0, 1]))
    if action == "boost":
        rule["weight"] = dice.choice([-1.0, 0.25, 3.0, 100.0])
    if action == "pin":
        rule["position"] = dice.choice([1, 2, 3, 5, 15])
    return rule


def _event(dice: random.Random, items: list[str], now: float) -> SessionEvent:
    time = dice.choice([None, now - dice.uniform(0, 7200), now - dice.uniform(0, 7200), now + 60.0, now - 3 * DAY])
    return SessionEvent(item=dice.choice(items), event=dice.choice(KINDS), time=time)


def _trending(world: World, dice: random.Random, now: float) -> TrendingRecord | None:
    """What is trending, as the log would have it."""
    counts = np.array([dice.choice([0.0, 0.0, 0.01, 2.5, 7.0]) for _ in world.items])
    there = [item for item in world.arrivals if dice.random() < 0.8]
    arrived = np.array([dice.choice([0.5, 1.5, 9.0]) for _ in there])
    since = np.array([now - 3600.0 * dice.choice([-1.0, 0.2, 5.0, 30.0]) for _ in there])
    found = trending_of("1234567890abcdef", counts, arrived, there, since)
    if found is None:
        return None
    items = [world.items[place].id for place in found.items.tolist()]
    shares, of_arrivals = found.counts[found.items].tobytes(), (found.arrived.tobytes(), found.since.tobytes())
    return TrendingRecord(found.number, now, items, shares, [*found.arrivals], *of_arrivals)
