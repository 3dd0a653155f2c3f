"""Each measure against a slow obvious loop."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from jobs import metrics

ITEMS = 30


def random_case(seed: int) -> tuple[list[list[int]], list[set[int]]]:
    """Lists of different lengths, and for each the wanted items, at least one."""
    rng = np.random.default_rng(seed)
    lists = [list(map(int, rng.permutation(ITEMS)[: rng.integers(0, 12)])) for _ in range(25)]
    wanted = [set(map(int, rng.permutation(ITEMS)[: rng.integers(1, 9)])) for _ in range(25)]
    return lists, wanted


def as_arrays(lists: list[list[int]], wanted: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(relevant, number wanted) as the measures take them."""
    padded = np.full((len(lists), max(map(len, lists))), -1)
    for row, items in enumerate(lists):
        padded[row, : len(items)] = items
    user = np.repeat(np.arange(len(wanted)), [len(items) for items in wanted])
    item = np.array([item for items in wanted for item in items])
    return metrics.mark_relevant(padded, user, item, ITEMS), np.array([len(items) for items in wanted])


@pytest.mark.parametrize("cells", [1, 4 * (ITEMS + 1), 1 << 24])
def test_a_place_is_relevant_if_its_item_is_wanted(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_CELLS", cells)
    lists, wanted = random_case(2)
    pairs = [(row, item) for row, items in enumerate(wanted) for item in items]
    user, item = np.random.default_rng(0).permutation(pairs).T
    padded = np.full((len(lists), 12), -1)
    for row, items in enumerate(lists):
        padded[row, : len(items)] = items
    found = metrics.mark_relevant(padded, user, item, ITEMS)
    assert found.tolist() == [[place in wanted[row] for place in items] for row, items in enumerate(padded.tolist())]


@pytest.mark.parametrize("k", [1, 3, 10, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_recall_is_that_of_a_loop(k: int, seed: int) -> None:
    lists, wanted = random_case(seed)
    expected = [len(set(items[:k]) & want) / min(k, len(want)) for items, want in zip(lists, wanted, strict=True)]
    np.testing.assert_allclose(metrics.recall_at(k, *as_arrays(lists, wanted)), expected, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_ndcg_is_that_of_a_loop(k: int, seed: int) -> None:
    lists, wanted = random_case(seed)
    expected = []
    for items, want in zip(lists, wanted, strict=True):
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(items[:k]) if item in want)
        expected.append(gain / sum(1 / math.log2(place + 2) for place in range(min(k, len(want)))))
    np.testing.assert_allclose(metrics.ndcg_at(k, *as_arrays(lists, wanted)), expected, rtol=1e-12)


@pytest.mark.parametrize("measure", [metrics.recall_at, metrics.ndcg_at])
def test_wanted_items_first_is_a_perfect_score(measure: Callable[..., np.ndarray]) -> None:
    relevant, wanted = as_arrays([[4, 7, 1], [3, 0, 2], [9, 8, 7]], [{4, 7}, {3}, set(range(10))])
    np.testing.assert_allclose(measure(3, relevant, wanted), 1.0)


def test_the_end_of_a_short_list_is_no_item() -> None:
    # Row 1 ends where -1 would be read as the last item of row 0.
    relevant = metrics.mark_relevant(np.array([[1, 2], [3, -1]]), np.array([0]), np.array([ITEMS - 1]), ITEMS)
    assert not relevant.any()


def test_coverage_is_the_share_of_items_that_are_in_a_list() -> None:
    shown = metrics.count_shown(np.array([[0, 1, 2], [1, -1, -1], [-1, 3, 4]]), k=2, items=10)
    assert shown.tolist() == [1, 2, 0, 1, 0, 0, 0, 0, 0, 0]
    assert metrics.coverage(shown) == pytest.approx(0.3)


@pytest.mark.parametrize("k", [1, 3, 10, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_reciprocal_rank_is_that_of_a_loop(k: int, seed: int) -> None:
    lists, wanted = random_case(seed)
    expected = [
        next((1 / place for place, item in enumerate(items[:k], 1) if item in want), 0.0)
        for items, want in zip(lists, wanted, strict=True)
    ]
    relevant, _ = as_arrays(lists, wanted)
    np.testing.assert_allclose(metrics.reciprocal_rank_at(k, relevant), expected, rtol=1e-12)


def test_lists_without_a_place_have_no_first_place() -> None:
    assert metrics.reciprocal_rank_at(20, np.zeros((2, 0), dtype=bool)).tolist() == [0.0, 0.0]
