"""Trials: random worlds, settings and requests, each held against all that must hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from promises.outcome import Outcome

from combinations.days import problems_of_a_day
from combinations.draws import draw_asked, draw_settings
from combinations.expected import Expected
from combinations.judge import problems_of
from combinations.odds import problems_of_the_odds
from combinations.serving import Answered, opened, serving, set_live_facts
from combinations.variants import EVERY
from combinations.worlds import draw_world
from reranker.answered import numbers

SETTINGS, REQUESTS = 4, 12
"""Of a world: so many settings, and of each so many requests."""
DRAWS = 1_000


def try_world(folder: Path, seed: int, outcome: Outcome) -> None:
    """All requests of one world, asked in all ways."""
    dice = random.Random(f"asked {seed}")
    world = draw_world(folder / f"world {seed}", seed)
    set_live_facts(world)
    with opened(world) as version:
        for number in range(SETTINGS):
            settings = draw_settings(world, dice)
            with serving(world, settings, version) as server:
                for place in range(REQUESTS):
                    expected = Expected(world, settings, draw_asked(world, settings, dice))
                    found = server.answer(expected.asked)
                    outcome.tried += 1
                    _count(expected, found, outcome)
                    where = f"world {seed}, settings {number}, request {place}"
                    outcome.violate_each(problems_of(expected, found, server.weights()), where)
                    for variant in EVERY:
                        own_dice = random.Random(expected.asked.request_id)
                        problems = variant(server, expected, found, own_dice)
                        outcome.violate_each(problems, f"{where}, {variant.__name__}")


def try_day(folder: Path, seed: int, outcome: Outcome) -> None:
    """One day of a server."""
    outcome.tried += 1
    outcome.violate_each(problems_of_a_day(folder, seed), f"day {seed}")


def try_odds(folder: Path, seed: int, outcome: Outcome) -> None:
    """One request with places left to chance, asked over and over."""
    outcome.tried += 1
    outcome.violate_each(problems_of_the_odds(folder, seed, DRAWS), f"odds {seed}")


TRIALS: Final[Mapping[str, Callable[[Path, int, Outcome], None]]] = {
    "world": try_world,
    "day": try_day,
    "odds": try_odds,
}


def _count(expected: Expected, found: Answered, outcome: Outcome) -> None:
    """What has been reached, so that nobody takes for tested what never came."""
    answer, order = found.answer, expected.settings.config.serve.order
    reached = {f"rung {item.rung}" for item in answer.items} | {f"reason {answer.reason}"}
    reached |= {f"known as {how}" for how in expected.known.values()}
    reached |= {f"action {rule.action}" for rule, _ in expected.rules}
    reached |= {f"holdout {expected.asked.holdout}"} if expected.asked.holdout else set()
    reached |= {"topped up"} if answer.topped_up_from else set()
    reached |= {"stale"} if answer.stale else set()
    reached |= {"capped"} if order.caps else set()
    reached |= {"diverse"} if order.diversity else set()
    reached |= {"left to chance"} if (numbers(found.record.shown.propensities) < 1.0).any() else set()
    reached |= {"discounted or boosted"} if any(numbers(found.record.shown.added)) else set()
    for name in reached:
        outcome.count(name)
