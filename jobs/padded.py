"""Ranked items of every item, as two arrays with as many columns for each: what is missing is padding at the end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Places(NamedTuple):
    """Some cells of the two arrays, in any order."""

    row: np.ndarray
    """Dense index of the item whose list it is."""
    column: np.ndarray
    """Rank in that list, from 0."""
    items: np.ndarray
    """Dense index of the item at that rank."""
    scores: np.ndarray


def save(paths: tuple[Path, Path], shape: tuple[int, int], parts: Iterable[Places]) -> None:
    """Write int32 items and float32 scores, both of that shape, through mapped files.

    -1 and 0 fill the end of a row that has fewer items.
    """
    items = np.lib.format.open_memmap(paths[0], mode="w+", dtype=np.int32, shape=shape)
    scores = np.lib.format.open_memmap(paths[1], mode="w+", dtype=np.float32, shape=shape)
    items[:] = -1
    for part in parts:
        items[part.row, part.column] = part.items
        scores[part.row, part.column] = part.scores
    items.flush()
    scores.flush()
