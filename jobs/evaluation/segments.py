"""Users by how much they had done, items by how popular they were, both before the test part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BANDS = ("head", "mid", "tail", "cold")
"""Of items, by popularity. Numbered in this order."""
COLD = BANDS.index("cold")
HEAD = BANDS.index("head")
TAIL = BANDS.index("tail")
HEAD_SHARE = TAIL_SHARE = 0.2
ACTIVITY_BANDS = 4


class Activity(NamedTuple):
    """Users with `low` to `high` interactions before the test part, both included."""

    name: str
    low: int
    high: int


def popularity_bands(known: np.ndarray) -> np.ndarray:
    """int8[items], the place in `BANDS` of each item, by its number of interactions before the test part.

    The most popular items that hold a fifth of all interactions are the head, the least popular that hold a fifth the
    tail; an item without any is cold. Items of equal popularity are in one band.

    Source: Abdollahpouri et al., "User-centered Evaluation of Popularity Bias in Recommender Systems", 2021.
    """
    counts, group = np.unique(known, return_inverse=True)  # ascending
    held = counts * np.bincount(group, minlength=len(counts))
    above = held.sum() - np.cumsum(held)  # interactions with items that are more popular
    band = np.full(len(counts), BANDS.index("mid"), dtype=np.int8)
    band[above < HEAD_SHARE * held.sum()] = HEAD
    # The head first: where a few items hold nearly everything, they are no tail.
    band[(above >= (1 - TAIL_SHARE) * held.sum()) & (above > 0)] = TAIL
    band[counts == 0] = COLD
    return band[group]


def activity_bands(known: np.ndarray) -> list[Activity]:
    """Cold users, and bands with about equally many of the others; `known` is int[judged users]."""
    bands = [Activity("cold", 0, 0)]
    some = known[known > 0]
    if not len(some):
        return bands
    at = np.arange(1, ACTIVITY_BANDS) / ACTIVITY_BANDS
    tops = np.unique([*np.quantile(some, at, method="lower"), some.max()]).astype(int).tolist()
    low = 1
    for top in tops:
        bands.append(Activity(f"{low} to {top}" if low < top else str(top), low, top))
        low = top + 1
    return bands
