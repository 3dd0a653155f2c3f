"""Items met in one session against slow loops, and the same bytes whatever the files."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jobs import together
from schemas import tables
from schemas.config import Lists

START = 1_772_400_000
MINUTE = 60
Event = tuple[int, int, int, str | None]
"""user, item, time, session."""


def as_table(events: list[Event], weights: list[float] | None = None) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "user_index": user, "item_index": item, "event": "view", "weight": weight, "time": time,
                "session_id": session, "device": None, "consumed": False, "split": tables.TRAIN,
            }
            for (user, item, time, session), weight in zip(events, weights or [1.0] * len(events), strict=True)
        ],
        schema=tables.INTERACTIONS,
    )  # fmt: skip


@pytest.fixture
def met(tmp_path: Path) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """The two arrays of some interactions; the dense index is the item_index, unless it is said otherwise."""
    made = 0

    def make(
        events: list[Event], items: int, *, weights: list[float] | None = None, dense_of: Any = None,
        files: int = 3, **settings: Any,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        nonlocal made
        made += 1
        folder = tmp_path / str(made)
        folder.mkdir()
        rows = as_table(events, weights)
        paths = [str(tmp_path / f"{made}-{number}.parquet") for number in range(files)]
        for number, path in enumerate(paths):
            pa.parquet.write_table(rows.filter(pa.array(rows["user_index"].to_numpy() % files == number)), path)
        dense_of = np.arange(items, dtype=np.int32) if dense_of is None else dense_of
        together.write(paths, Lists(**{"neighbours": 4} | settings), dense_of, folder)
        assert sorted(path.name for path in folder.iterdir()) == ["together.npy", "together_scores.npy"]
        return np.load(folder / "together.npy"), np.load(folder / "together_scores.npy")

    return make


def slow_sessions(events: list[Event], gap_seconds: int) -> list[set[int]]:
    """The items of the last fifty interactions of each session, one event at a time."""
    grouped: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    last_seen: dict[int, int] = {}
    number: Counter[int] = Counter()
    for user, item, time, session in sorted(events, key=lambda event: event[2]):
        if session:
            grouped[user, session].append((time, item))
            continue
        if user in last_seen and time - last_seen[user] >= gap_seconds:
            number[user] += 1
        last_seen[user] = time
        grouped[user, number[user]].append((time, item))
    return [{item for _, item in sorted(rows, key=lambda row: (-row[0], row[1]))[:50]} for rows in grouped.values()]


def slow_together(events: list[Event], items: int, k: int, gap_seconds: int) -> list[list[tuple[int, float]]]:
    alone: Counter[int] = Counter()
    both: Counter[tuple[int, int]] = Counter()
    for session in slow_sessions(events, gap_seconds):
        alone.update(session)
        both.update(combinations(sorted(session), 2))
    found: list[list[tuple[int, float]]] = [[] for _ in range(items)]
    for (one, other), count in both.items():
        score = count / (math.sqrt(alone[one] * alone[other]) + 5)
        found[one].append((other, score))
        found[other].append((one, score))
    return [sorted(row, key=lambda pair: (-pair[1], pair[0]))[:k] for row in found]


def random_events(seed: int) -> list[Event]:
    """Twelve users, 30 items; many ties in time, pauses of any length, and of two sessions ids that users share."""
    dice = np.random.default_rng(seed)
    events = []
    for user in range(12):
        time = START
        for _ in range(int(dice.integers(5, 160))):
            time += int(dice.choice([0, 1, 30, 5 * MINUTE, 30 * MINUTE - 1, 30 * MINUTE, 300 * MINUTE], p=PAUSES))
            session = dice.choice([None, "", "one", "two"], p=[0.6, 0.2, 0.1, 0.1])
            events.append((user, int(30 * dice.random() ** 2), time, session))
    dice.shuffle(events)
    return [(user, item, time, session) for user, item, time, session in events]


PAUSES = [0.2, 0.2, 0.2, 0.28, 0.04, 0.04, 0.04]


def test_what_two_of_three_sessions_have_is_a_known_number(met: Callable[..., Any]) -> None:
    events: list[Event] = [
        (0, 0, START, "a"), (0, 1, START + 9, "a"),
        (1, 0, START, "b"), (1, 1, START, "b"), (1, 2, START, "b"), (1, 1, START, "b"),
        (2, 1, START, "c"),
    ]  # fmt: skip
    items, scores = met(events, 4)
    assert (items.dtype, scores.dtype) == (np.int32, np.float32)
    assert items.tolist() == [[1, 2, -1, -1], [0, 2, -1, -1], [0, 1, -1, -1], [-1] * 4]
    np.testing.assert_allclose(scores[0], [2 / (6**0.5 + 5), 1 / (2**0.5 + 5), 0, 0], rtol=1e-6)
    np.testing.assert_allclose(scores[2], [1 / (2**0.5 + 5), 1 / (3**0.5 + 5), 0, 0], rtol=1e-6)


def test_a_pause_ends_a_session_that_has_no_name_and_no_other(met: Callable[..., Any]) -> None:
    half_an_hour = 30 * MINUTE
    events: list[Event] = [
        (0, 0, START, None), (0, 1, START + half_an_hour - 1, None), (0, 2, START + 2 * half_an_hour - 1, ""),
        (1, 3, START, "s"), (1, 4, START + 9 * half_an_hour, "s"),
        (2, 3, START, "s"), (2, 5, START, "t"),
    ]  # fmt: skip
    items, _ = met(events, 6)
    assert items[:, 0].tolist() == [1, 0, -1, 4, 3, -1]
    assert (items[:, 1:] == -1).all()
    items, _ = met(events, 6, session_gap_minutes=30.5)
    assert items[:3, :2].tolist() == [[1, 2], [0, 2], [0, 1]]


def test_an_interaction_that_weighs_nothing_is_not_met(met: Callable[..., Any]) -> None:
    events: list[Event] = [(0, 0, START, "a"), (0, 1, START, "a"), (0, 2, START, "a")]
    items, _ = met(events, 3, weights=[1.0, 0.0, 1.0])
    assert items[:, 0].tolist() == [2, -1, 0]


def test_only_the_last_fifty_interactions_of_a_session_count(met: Callable[..., Any]) -> None:
    events: list[Event] = [(0, item, START + item, "long") for item in range(52)]
    items, _ = met(events, 52, neighbours=60)
    assert (items[:2] == -1).all()
    assert (items[2:] >= 0).sum(axis=1).tolist() == [49] * 50


def test_equal_scores_go_to_the_lower_item_index_whatever_the_dense_order(met: Callable[..., Any]) -> None:
    events: list[Event] = [(0, item, START, "a") for item in range(6)]
    dense_of = np.array([5, 3, 1, 0, 2, 4], np.int32)
    items, _ = met(events, 6, dense_of=dense_of)
    item_of = np.argsort(dense_of)
    assert [item_of[items[dense_of[item]]].tolist() for item in (0, 3)] == [[1, 2, 3, 4], [0, 1, 2, 4]]


def test_nobody_who_met_two_items_leaves_only_padding(met: Callable[..., Any]) -> None:
    items, scores = met([(0, 0, START, "a"), (1, 1, START, "a")], 3)
    assert (items == -1).all()
    assert (scores == 0).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_items_and_scores_are_those_of_a_loop_in_any_files(met: Callable[..., Any], seed: int) -> None:
    events = random_events(seed)
    expected = slow_together(events, 31, 4, 30 * MINUTE)
    arrays = [met(events[::turn], 31, files=files) for files, turn in ((1, 1), (5, -1), (20, 1))]
    for items, scores in arrays:
        for item, row in enumerate(expected):
            assert items[item].tolist() == [other for other, _ in row] + [-1] * (4 - len(row))
            assert scores[item, : len(row)].tolist() == np.float32([score for _, score in row]).tolist()
    assert arrays[0][1].tobytes() == arrays[1][1].tobytes()
    assert 0 < arrays[0][1].max() < 1
