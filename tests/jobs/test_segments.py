"""Who is in which segment."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluation.segments import BANDS, activity_bands, popularity_bands


def slow_bands(known: list[int]) -> list[str]:
    """By going down the items, the popular ones first, all of one popularity together."""
    total, found = sum(known), {}
    for count in sorted(set(known), reverse=True):
        above = sum(other for other in known if other > count)
        found[count] = "head" if above < 0.2 * total else "mid" if above < 0.8 * total else "tail"
    return ["cold" if count == 0 else found[count] for count in known]


@pytest.mark.parametrize("seed", range(5))
def test_the_bands_are_those_of_a_walk_down_the_items(seed: int) -> None:
    known = (np.random.default_rng(seed).pareto(1.0, 200) * 5).astype(np.int64)
    bands = [BANDS[band] for band in popularity_bands(known)]
    assert bands == slow_bands(known.tolist())
    assert set(bands) == set(BANDS)


@pytest.mark.parametrize(
    ("known", "bands"),
    [
        ([10, 30, 40, 20], ["tail", "mid", "head", "mid"]),
        ([5, 5, 5], ["head", "head", "head"]),
        ([0, 0], ["cold", "cold"]),
        ([95, 5, 0], ["head", "tail", "cold"]),
        ([], []),
    ],
)
def test_known_items_are_in_known_bands(known: list[int], bands: list[str]) -> None:
    assert [BANDS[band] for band in popularity_bands(np.array(known, dtype=np.int64))] == bands


def test_users_are_in_bands_of_about_equal_size_and_the_cold_ones_apart() -> None:
    known = np.concatenate([np.zeros(7, int), np.arange(1, 101)])
    bands = activity_bands(known)
    assert [(band.low, band.high) for band in bands] == [(0, 0), (1, 25), (26, 50), (51, 75), (76, 100)]
    assert [band.name for band in bands[:2]] == ["cold", "1 to 25"]


def test_users_who_are_all_alike_are_in_one_band() -> None:
    assert [(band.name, band.low, band.high) for band in activity_bands(np.array([3, 3, 3]))] == [
        ("cold", 0, 0),
        ("1 to 3", 1, 3),
    ]
    assert len(activity_bands(np.array([0, 0]))) == 1
