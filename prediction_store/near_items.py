"""Ranked items of every item, in two arrays: the nearest in embedding space, and those met together in sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from prediction_store import layout
from prediction_store.arrays import map_array, write_array
from prediction_store.errors import BuildError, DamagedVersionError
from schemas.record import RankedItems

NEIGHBOURS: Final = (layout.NEIGHBOURS, layout.NEIGHBOUR_SCORES)
TOGETHER: Final = layout.OF_TOGETHER
"""The two files of each kind: items and scores."""
_ROWS: Final = 1 << 13
"""Looked at at a time: what is mapped may be larger than memory."""


class NearItems(NamedTuple):
    """The ranked items of every item of one version, mapped, read-only."""

    items: npt.NDArray[np.int32]
    """int32[n_items, k], best first, -1 at the end as padding."""
    scores: npt.NDArray[np.float32]
    """float32[n_items, k]"""

    def of(self, index: int) -> RankedItems:
        """Those of one item, best first, without the padding. The scores are mapped, read-only."""
        items = self.items[index]
        kept = int(np.count_nonzero(items >= 0))  # padding is at the end
        return RankedItems(items[:kept].astype(np.uint32), self.scores[index, :kept])


def write_near_items(
    folder: Path, files: tuple[str, str], items: npt.NDArray[np.int32], scores: npt.NDArray[np.float32], n_items: int
) -> None:
    """Write the arrays of one kind, `NEIGHBOURS` or `TOGETHER`, into the version's folder.

    Args:
        items: int32[n_items, k], best first, -1 at the end as padding; scores: float32[n_items, k].

    Raises:
        BuildError: they do not fit each other or the catalogue.
    """
    for problem in _misfits(items, scores, n_items):
        raise BuildError(f"{files[0]}: {problem}")
    write_array(folder / files[0], items)
    write_array(folder / files[1], scores)


def open_near_items(folder: Path, files: tuple[str, str], n_items: int) -> NearItems:
    """Map the arrays of one kind; every number is looked at.

    Raises:
        DamagedVersionError: a file is not what it should be.
    """
    items = map_array(folder / files[0], "<i4", (n_items, None))
    scores = map_array(folder / files[1], "<f4", items.shape)
    for problem in _misfits(items, scores, n_items):
        raise DamagedVersionError(f"{folder / files[0]}: {problem}")
    return NearItems(items, scores)


def _misfits(items: npt.NDArray[np.int32], scores: npt.NDArray[np.float32], n_items: int) -> Iterator[str]:
    """What does not fit; each may rest on those before it."""
    if items.dtype != np.int32 or scores.dtype != np.float32 or items.shape != scores.shape or items.ndim != 2:
        yield f"neighbours {items.shape} of {items.dtype}, scores {scores.shape} of {scores.dtype}"
    if len(items) != n_items:
        yield f"neighbours of {len(items)} items; there are {n_items}"
    for start in range(0, len(items) if items.size else 0, _ROWS):
        some, of_some = items[start : start + _ROWS], scores[start : start + _ROWS]
        lowest, highest = int(some.min()), int(some.max())
        if not -1 <= lowest <= highest < n_items:
            yield f"a neighbour is beyond the catalogue: from item {lowest} up to item {highest} of {n_items}"
        is_item = some >= 0
        if lowest < 0 and bool((is_item[:, 1:] > is_item[:, :-1]).any()):
            yield "a neighbour comes after the padding"
        if not np.isfinite((of_some.min(), of_some.max())).all():  # a NaN is both
            yield "the score of a neighbour is not finite"
