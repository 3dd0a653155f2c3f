"""Places left to chance: over many requests an item stands there as often as the log says that it would."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from combinations.draws import Settings, draw_asked, draw_settings
from combinations.serving import opened, serving, set_live_facts
from combinations.worlds import draw_world
from reranker.answered import numbers

SIGMAS: Final = 5.0


def problems_of_the_odds(folder: Path, seed: int, draws: int) -> Iterator[str]:
    """One request, asked so many times."""
    dice = random.Random(f"odds {seed}")
    world = draw_world(folder / f"odds {seed}", seed)
    set_live_facts(world)
    settings = draw_settings(world, dice)
    order = settings.config.serve.order
    kept = settings.config.serve.kept_for_arrivals
    places = order.explore_positions or [place for place in (2, 3, 7) if place not in kept]
    order = msgspec.structs.replace(order, explore_positions=places, explore_among=dice.choice([2, 5, 50]))
    serve = msgspec.structs.replace(settings.config.serve, order=order)
    settings = Settings(msgspec.structs.replace(settings.config, serve=serve), settings.meant)
    asked = replace(draw_asked(world, settings, dice), since=-1, holdout="")
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    told: dict[int, Counter[float]] = defaultdict(Counter)
    with opened(world) as version, serving(world, settings, version) as server:
        for number in range(draws):
            answer, record = server.answer(replace(asked, request_id=f"{seed} {number}"))
            odds = numbers(record.shown.propensities).tolist()
            for item, odd in zip(answer.items, odds, strict=True):
                counts[item.rank][item.item] += 1
                told[item.rank][odd] += 1
    for place, standing in counts.items():
        if any(odd < 1.0 for odd in told[place]):
            yield from (f"odds {seed}, at {place}: {what}" for what in _unlike(standing, told[place], draws))
    first = min((place for place in told if told[place].keys() != {1.0}), default=len(counts) + 1)
    for place in range(1, first):
        if len(counts[place]) > 1:
            yield f"odds {seed}: {counts[place]} stand at {place}, and nothing is left to chance before {first}"


def _unlike(counts: Counter[str], told: Counter[float], draws: int) -> Iterator[str]:
    if len(told) > 1:
        yield f"odds of {told} for one place"
        return
    (odd,) = told
    if abs(len(counts) * odd - 1.0) > 1e-4:
        yield f"{len(counts)} items stand there, each with a chance of {odd}"
    for item, count in counts.items():
        if abs(count - draws * odd) > SIGMAS * math.sqrt(draws * odd * (1.0 - odd)) + 1.0:
            yield f"{item} stands there {count} times of {draws}, and is said to with a chance of {odd}"
