"""Every combination of what an answer can be asked for: a sample of what `make combinations` tries."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from promises.outcome import Outcome
from promises.tiny_store import memory_folder

from combinations.draws import draw_asked, draw_settings
from combinations.expected import Expected
from combinations.judge import problems_of
from combinations.serving import Answered, Serving, opened, serving, set_live_facts
from combinations.trials import TRIALS
from combinations.worlds import draw_world
from reranker.answered import numbers

REACHED = {
    *("rung " + name for name in ("personal", "stored_order", "session", "segment", "popular", "arrivals")),
    *("reason " + name for name in ("None", "deadline", "holdout", "list_ran_dry", "unknown_user", "expired_record")),
    *("action " + name for name in ("include", "exclude", "boost", "pin")),
    *("known as " + name for name in ("bought", "seen", "seen_before")),
    *("reason damaged_record", "topped up", "stale", "capped", "diverse", "left to chance", "discounted or boosted"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with memory_folder() as place:
        yield place


def test_whatever_is_asked_in_whatever_circumstances_what_must_hold_does(folder: Path) -> None:
    outcome = Outcome()
    for seed in range(16):
        TRIALS["world"](folder, seed, outcome)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 16 * 48
    assert outcome.counts.keys() >= REACHED, REACHED - outcome.counts.keys()


def test_what_a_server_answers_in_a_day_is_what_its_log_has_and_makes_again(folder: Path) -> None:
    outcome = Outcome()
    for seed in range(8):
        TRIALS["day"](folder, seed, outcome)
    assert outcome.violations == 0, "\n".join(outcome.shown)


def test_places_left_to_chance_are_filled_as_often_as_the_log_says(folder: Path) -> None:
    outcome = Outcome()
    for seed in range(4):
        TRIALS["odds"](folder, seed, outcome)
    assert outcome.violations == 0, "\n".join(outcome.shown)


@pytest.fixture(scope="module")
def some(folder: Path) -> Iterator[tuple[Serving, list[tuple[Expected, Answered]]]]:
    """Answers that are right, of ranked lists without places left to chance."""
    dice = random.Random(3)
    world = draw_world(folder / "judged", 5)
    set_live_facts(world)
    with opened(world) as version:
        settings = draw_settings(world, dice)
        order = msgspec.structs.replace(settings.config.serve.order, diversity=0.0, explore_positions=[], caps={})
        serve = msgspec.structs.replace(settings.config.serve, order=order, rules=[])
        settings = type(settings)(msgspec.structs.replace(settings.config, serve=serve), [])
        with serving(world, settings, version) as server:
            found = []
            for _ in range(60):
                expected = Expected(world, settings, draw_asked(world, settings, dice))
                answered = server.answer(expected.asked)
                if len({item.score for item in answered.answer.items}) > 3:
                    found.append((expected, answered))
            yield server, found


def _reordered(found: Answered, order: Callable[[list[int]], list[int]]) -> Answered:
    """The items in another order, in the answer and in the log."""
    places = order([*range(len(found.answer.items))])
    items = [msgspec.structs.replace(found.answer.items[place], rank=at) for at, place in enumerate(places, 1)]
    shown = found.record.shown
    columns: dict[str, Any] = {
        name: [getattr(shown, name)[place] for place in places] for name in ("items", "rungs", "base_ranks")
    }
    for name in ("scores", "base_scores", "propensities", "values", "added"):
        stored = getattr(shown, name)
        columns[name] = numbers(stored).reshape(len(shown.items), -1)[places].tobytes() if stored else b""
    record = msgspec.structs.replace(found.record, shown=msgspec.structs.replace(shown, **columns))
    return Answered(msgspec.structs.replace(found.answer, items=items), record)


def _renamed(found: Answered, item: str) -> Answered:
    first, *rest = found.answer.items
    answer = msgspec.structs.replace(found.answer, items=[msgspec.structs.replace(first, item=item), *rest])
    shown = msgspec.structs.replace(found.record.shown, items=[item, *found.record.shown.items[1:]])
    return Answered(answer, msgspec.structs.replace(found.record, shown=shown))


def _told(**changed: Any) -> Callable[[Answered], Answered]:
    return lambda found: found._replace(answer=msgspec.structs.replace(found.answer, **changed))


def _first(**changed: Any) -> Callable[[Answered], Answered]:
    def spoil(found: Answered) -> Answered:
        first, *rest = found.answer.items
        items = [msgspec.structs.replace(first, **changed), *rest]
        return found._replace(answer=msgspec.structs.replace(found.answer, items=items))

    return spoil


SPOILT: dict[str, Callable[[Answered], Answered]] = {
    "an item twice": lambda found: _reordered(found, lambda places: [*places[:-1], 0]),
    "another order": lambda found: _reordered(found, lambda places: places[::-1]),
    "one item less": lambda found: _reordered(found, lambda places: places[:-1]),
    "an item that no version has": lambda found: _renamed(found, "no such item"),
    "another item at the top than in the log": _first(item="i00 or another"),
    "a rank left out": _first(rank=0),
    "another score": _first(score=7.5),
    "another rung": _told(rung="segment of nobody"),
    "another reason": _told(reason="weather"),
    "another age": _told(age_seconds=7),
    "stale or not": lambda found: _told(stale=not found.answer.stale)(found),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_the_judge_finds_what_is_wrong(spoilt: str, some: tuple[Serving, list[tuple[Expected, Answered]]]) -> None:
    server, answered = some
    assert len(answered) > 10
    found_out = 0
    for expected, found in answered:
        assert [*problems_of(expected, found, server.weights())] == []
        found_out += any(problems_of(expected, SPOILT[spoilt](found), server.weights()))
    # Of some pools it is not known all that they must hold, so that one item less is no mistake there.
    assert found_out > len(answered) * (0.5 if spoilt == "one item less" else 0.99)
