"""What a version knows of a user beside the list, by user row: the items consumed, and the segment.

Rules that hold for more than the stored list need both: an item that the list leaves out because it was bought must not
come back as a neighbour of something else, and a known user's list runs dry into the popular items of the own segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prediction_store import layout
from prediction_store.arrays import map_array, write_array
from prediction_store.errors import BuildError, DamagedVersionError


class Consumed(NamedTuple):
    """Items consumed by user row: row i has items[offsets[i]:offsets[i + 1]], ascending, each once."""

    offsets: npt.NDArray[np.int64]
    """int64[users + 1]"""
    items: npt.NDArray[np.uint32]
    """uint32: dense item indexes."""


class UserFacts:
    """The facts of every user of one version, mapped."""

    def __init__(self, consumed: Consumed, segments: npt.NDArray[np.int32], names: Sequence[str]) -> None:
        self._consumed = consumed
        self._segments = segments
        self._names = names

    def consumed(self, row: int) -> npt.NDArray[np.uint32]:
        """uint32[n]: what the user has consumed, ascending; mapped, read-only."""
        offsets = self._consumed.offsets
        return self._consumed.items[offsets[row] : offsets[row + 1]]

    def segment(self, row: int) -> str:
        """The user's segment; "" when it has no lists of its own."""
        return self._names[int(self._segments[row])]


def nothing_consumed(users: int) -> Consumed:
    """Nobody has consumed anything, or the policy is to keep what was consumed."""
    return Consumed(np.zeros(users + 1, np.int64), np.empty(0, np.uint32))


def write_user_facts(
    folder: Path, consumed: Consumed, segments: Sequence[str], names: Sequence[str], n_items: int
) -> None:
    """Write the facts of every user into the version's folder.

    Args:
        segments: one per user; one without lists of its own is stored as everybody's, "".
        names: the segments that have lists, in byte order; the first is "".

    Raises:
        BuildError: they do not fit the users or the catalogue.
    """
    offsets, items = consumed
    if len(offsets) != len(segments) + 1 or offsets[0] != 0 or offsets[-1] != len(items):
        raise BuildError(f"consumed items of {len(offsets) - 1} users and segments of {len(segments)}")
    if len(items) and int(items.max()) >= n_items:
        raise BuildError(f"consumed item {items.max()}; there are {n_items}")
    code_of = {name: code for code, name in enumerate(names)}
    codes = np.fromiter((code_of.get(segment, 0) for segment in segments), np.int32, len(segments))
    write_array(folder / layout.CONSUMED_OFFSETS, np.asarray(offsets, np.int64))
    write_array(folder / layout.CONSUMED_ITEMS, np.asarray(items, np.uint32))
    write_array(folder / layout.SEGMENTS, codes)


def open_user_facts(folder: Path, names: Sequence[str], n_users: int, n_items: int) -> UserFacts:
    """Map the facts of every user.

    Raises:
        DamagedVersionError: a file is not what it should be.
    """
    offsets = map_array(folder / layout.CONSUMED_OFFSETS, "<i8", (n_users + 1,))
    items = map_array(folder / layout.CONSUMED_ITEMS, "<u4", (None,))
    segments = map_array(folder / layout.SEGMENTS, "<i4", (n_users,))
    if offsets[0] != 0 or offsets[-1] != len(items) or bool((offsets[1:] < offsets[:-1]).any()):
        raise DamagedVersionError(f"{folder}: the offsets of the consumed items do not fit {len(items)} items")
    if len(items) and int(items.max()) >= n_items:
        raise DamagedVersionError(f"{folder}: consumed item {items.max()} of {n_items}")
    if n_users and not 0 <= int(segments.min()) <= int(segments.max()) < len(names):
        raise DamagedVersionError(f"{folder}: a user's segment is beyond the {len(names)} that have lists")
    return UserFacts(Consumed(offsets, items), segments, names)
