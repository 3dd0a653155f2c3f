"""Loops over numpy's arrays, in C order; those named `out` belong to the caller and are written.

Raise TypeError for another type or number of dimensions, ValueError for sizes that do not fit each other, IndexError
for an item beyond the catalogue. Nothing is written then that counts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.arrays import Float32, Indexes, Mask, Positions
from reranker.forms import Form

Forms = Sequence[Form | None]
"""A list."""

SOURCES: str
"""The digest of the sources that the kernel was compiled from, see `digest.of_sources`."""

def know(*classes: type) -> None:
    """The classes of the forms, in the order of the kernel's kinds."""

def score(
    out: Float32, asked: tuple[Any, ...], allowed: Mask, weights: list[float], forms: Forms, best: Positions
) -> int:
    """Add the forms by their weights to float32[n]; how many of int64[k] are filled with the best allowed, see `top`.

    `asked` is of `SignalInputs.arrays`. k > 0: what is not among the best may be -inf.
    """

def values(out: Float32, asked: tuple[Any, ...], positions: Positions, forms: Forms) -> None:
    """float32[forms, m]: the values at these positions of the pool; 0 of no form."""

def refresh(
    out: Float32,
    matrix: Float32,
    base: Float32,
    vectors: Float32,
    items: Indexes,
    weights: Float32,
    of_session: Indexes,
    their_weights: Float32,
    recency: Float32,
    is_unit: bool,
) -> None:
    """float32[d]: the user's vector, see `UserTower.refreshed`."""

def top(out: Positions, scores: Float32, allowed: Mask) -> int:
    """The best allowed positions, by score and then position; how many there are."""

def neighbours(
    out_items: Indexes,
    out_scores: Float32,
    near: npt.NDArray[np.int32],
    near_scores: Float32,
    visited: Indexes,
    weights: Float32,
) -> int:
    """The neighbours of the visited items, by summed score and then index; how many there are."""

def gather(
    out_items: Indexes,
    out_scores: Float32,
    listed: Indexes,
    their_scores: Float32,
    near: npt.NDArray[np.int32],
    near_scores: Float32,
    visited: Indexes,
    weights: Float32,
    vectors: Float32,
    user: Float32,
    fresh: Indexes,
    of_fresh: Float32,
    moved: Float32,
    most_near: int,
    most_fresh: int,
) -> int:
    """The pool of `sources.personal`; how many candidates there are."""

def eligible(out: Mask, items: Indexes, shown: Mask, hidden: Indexes) -> None:
    """bool[n]: which items are shown and not among the hidden ones, uint32[m] in any order."""
