"""The measures against slow, obvious versions of themselves, and at the values that everybody knows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prediction_store.measures import (
    EMPTY_SHARE,
    gini,
    overlap,
    population_stability,
    rank_biased_overlap,
    standardised,
)

LISTS = st.lists(st.integers(0, 30), max_size=20, unique=True)
PAIRS = st.tuples(LISTS, LISTS).filter(any)


def items(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


def slow_rank_biased_overlap(first: list[int], second: list[int], persistence: float) -> float:
    """The sum of equation 4, over 3,000 ranks, with the agreement that equation 32 assumes beyond what is known."""
    short, long = sorted((len(first), len(second)))

    def known(depth: int) -> int:
        return len(set(first[:depth]) & set(second[:depth]))

    def agreement(depth: int) -> float:
        depth = min(depth, long)
        unseen = known(short) * (depth - short) / short if depth > short > 0 else 0.0
        return (known(depth) + unseen) / depth

    return (1 - persistence) * sum(persistence ** (depth - 1) * agreement(depth) for depth in range(1, 3000))


@given(PAIRS)
def test_overlap_is_that_of_sets(pair: tuple[list[int], list[int]]) -> None:
    first, second = pair
    expected = len(set(first) & set(second)) / max(len(first), len(second))
    assert overlap(items(first), items(second)) == expected


@given(PAIRS, st.sampled_from([0.5, 0.9, 0.98]))
def test_rank_biased_overlap_is_its_endless_sum(pair: tuple[list[int], list[int]], persistence: float) -> None:
    first, second = (items(side) for side in pair)
    found = rank_biased_overlap(first, second, persistence)
    assert found == pytest.approx(slow_rank_biased_overlap(*pair, persistence), abs=1e-9)
    assert found == pytest.approx(rank_biased_overlap(second, first, persistence), abs=1e-12)


@given(LISTS.filter(bool))
def test_a_list_agrees_with_itself_and_not_with_another(values: list[int]) -> None:
    assert rank_biased_overlap(items(values), items(values)) == pytest.approx(1)
    assert rank_biased_overlap(items(values), items(values) + 1000) == 0
    assert rank_biased_overlap(items(values), items([])) == 0


def test_what_differs_at_the_top_counts_more_than_what_differs_at_the_end() -> None:
    whole = list(range(20))
    top, end = [1, 0, *whole[2:]], [*whole[:18], 19, 18]
    assert rank_biased_overlap(items(whole), items(top)) < rank_biased_overlap(items(whole), items(end)) < 1


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any))
def test_gini_is_the_mean_difference_between_two_items(counts: list[int]) -> None:
    differences = [abs(one - other) for one in counts for other in counts]
    expected = (sum(differences) / len(differences)) / (2 * sum(counts) / len(counts))
    assert gini(items([count for count in counts if count]), len(counts)) == pytest.approx(expected)


def test_gini_at_its_ends() -> None:
    assert gini(items([7] * 50), 50) == pytest.approx(0)
    assert gini(items([7]), 50) == pytest.approx(49 / 50)


def slow_stability(expected: list[float], found: list[float]) -> float:
    edges = [-math.inf, *np.quantile(expected, [k / 10 for k in range(1, 10)]), math.inf]
    total = 0.0
    for low, high in itertools.pairwise(edges):
        before, after = (
            max(sum(low <= number < high for number in side) / len(side), EMPTY_SHARE) for side in (expected, found)
        )
        total += (after - before) * math.log(after / before)
    return total


NUMBERS = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40)


@given(NUMBERS, NUMBERS)
def test_population_stability_is_that_of_loops(expected: list[float], found: list[float]) -> None:
    result = population_stability(np.array(expected), np.array(found))
    assert result == pytest.approx(slow_stability(expected, found), abs=1e-9)
    assert result >= -1e-12


def test_numbers_that_have_not_moved_are_stable_and_those_that_have_are_not() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(size=20_000)
    assert population_stability(before, rng.normal(size=20_000)) < 0.01
    assert population_stability(before, rng.normal(0.5, size=20_000)) == pytest.approx(0.25, abs=0.05)
    assert population_stability(before, before + 10) > 5


def test_what_is_standardised_has_lost_place_and_scale() -> None:
    before = np.random.default_rng(3).normal(size=5_000)
    assert population_stability(standardised(before), standardised(3 + 40 * before)) == pytest.approx(0, abs=1e-3)
    assert standardised(np.array([2.0, 2.0])).tolist() == [0, 0]
