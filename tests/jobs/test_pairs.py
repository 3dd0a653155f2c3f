"""Pairs that are together in many lists, against slow loops."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain, combinations

import numpy as np
import pytest

from jobs import pairs


def lists_of(rows: list[list[int]]) -> pairs.Lists:
    lengths = [len(row) for row in rows]
    return pairs.Lists(np.cumsum([0, *lengths]), np.array([*chain(*rows)], np.int32))


def random_lists(seed: int, things: int) -> list[list[int]]:
    """Of no to eight things, some of which are in many; the last thing is in none."""
    dice = np.random.default_rng(seed)
    return [[*{int((things - 1) * x**3) for x in dice.random(dice.integers(0, 9))}] for _ in range(400)]


def test_a_thing_is_turned_to_the_lists_that_it_is_in_ascending() -> None:
    found = pairs.turned(lists_of([[2, 0], [], [0], [2]]), 4, np.zeros(4, np.uint32))
    assert found.starts.tolist() == [0, 2, 2, 4, 4]
    assert found.values.tolist() == [0, 2, 0, 3]


@pytest.mark.parametrize("batch", [7, 40])
def test_the_best_of_each_thing_are_those_of_a_loop_whatever_the_batch(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(pairs, "BATCH", batch)
    things, k = 40, 5
    rows = random_lists(3, things)
    lists = lists_of(rows)
    turned = pairs.turned(lists, things, np.zeros(len(lists.values), np.uint32))
    alone = Counter(thing for row in rows for thing in row)
    both = Counter(pair for row in rows for pair in combinations(sorted(row), 2))
    scores: list[list[tuple[float, int]]] = [[] for _ in range(things)]
    for (one, other), count in both.items():
        score = count / (math.sqrt(alone[one] * alone[other]) + 2.5)
        scores[one].append((-score, other))
        scores[other].append((-score, one))
    parts = [*pairs.best(lists, turned, k, 2.5)]
    assert [part.first for part in parts] == [*range(0, things, batch)]
    counts = np.concatenate([part.counts for part in parts])
    others, found = (np.concatenate([part[place] for part in parts]) for place in (2, 3))
    for thing, wanted in enumerate(scores):
        expected = sorted(wanted)[:k]
        assert others[thing, : counts[thing]].tolist() == [other for _, other in expected]
        assert found[thing, : counts[thing]].tolist() == np.float32([-score for score, _ in expected]).tolist()
    assert counts[-1] == 0, "nobody met it"
    assert counts.max() == k, "some have met more"
    assert len({score for score, _ in chain(*scores)}) < len(both), "some are equal"
