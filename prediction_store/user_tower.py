"""What a version knows of the user tower: enough to make a user's vector anew from a longer history.

vector = [at length 1] base + matrix · (weighted mean of the vectors of the history's items)

The base is the user's own: all that the tower says without a history. A version may be without all of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prediction_store import durable, layout
from prediction_store.arrays import map_array, write_array
from prediction_store.errors import BuildError, DamagedVersionError
from schemas.user_tower import TowerFacts, decode_tower, encode_tower


class Histories(NamedTuple):
    """Interactions by user row, oldest first: row i has those from offsets[i] to offsets[i + 1]."""

    offsets: npt.NDArray[np.int64]
    """int64[users + 1]"""
    items: npt.NDArray[np.uint32]
    """uint32: dense item indexes."""
    weights: npt.NDArray[np.float32]
    """float32: event weights, all above 0."""


class Tower(NamedTuple):
    """The part of the user tower that all users share."""

    facts: TowerFacts
    matrix: npt.NDArray[np.float32]
    """float32[d, d]: what a pooled history is multiplied by, from the left."""
    stranger: npt.NDArray[np.float32]
    """float32[d]: the base of a user whom the model does not know."""
    recency: npt.NDArray[np.float32]
    """float32[buckets]: what the square root of an event's weight is multiplied by. Bucket b has the distances 2^b to
    2^(b+1) - 1 from the end, which is at distance 1; the last one all beyond. All above 0."""


class StoredTower(NamedTuple):
    """The tower and what it needs of every user."""

    tower: Tower
    bases: npt.NDArray[np.float32]
    """float32[users, d], by user row."""
    histories: Histories


def write_user_tower(folder: Path, stored: StoredTower, n_users: int, n_items: int, dimensions: int) -> None:
    """Write the tower into the version's folder.

    Raises:
        BuildError: its parts do not fit each other, the users or the catalogue.
    """
    for problem in _misfits(stored, n_users, n_items, dimensions):
        raise BuildError(problem)
    tower, bases, histories = stored
    durable.make_new_folder(folder / layout.TOWER)
    write_array(folder / layout.USER_BASES, bases)
    write_array(folder / layout.HISTORY_OFFSETS, histories.offsets)
    write_array(folder / layout.HISTORY_ITEMS, histories.items)
    write_array(folder / layout.HISTORY_WEIGHTS, histories.weights)
    write_array(folder / layout.TOWER_MATRIX, tower.matrix)
    write_array(folder / layout.TOWER_STRANGER, tower.stranger)
    write_array(folder / layout.TOWER_RECENCY, tower.recency)
    with durable.create(folder / layout.TOWER_FACTS) as opened:
        opened.write(encode_tower(tower.facts))


def open_user_tower(folder: Path, n_users: int, n_items: int, dimensions: int) -> StoredTower:
    """Map the tower and what it needs of every user.

    Raises:
        DamagedVersionError: a file is not what it should be.
        NewerFormatError: a later Shortlist has written it.
        FormatError: tower.json is not about a tower.
    """
    stored = StoredTower(
        Tower(
            decode_tower((folder / layout.TOWER_FACTS).read_bytes()),
            map_array(folder / layout.TOWER_MATRIX, "<f4", (dimensions, dimensions)),
            map_array(folder / layout.TOWER_STRANGER, "<f4", (dimensions,)),
            map_array(folder / layout.TOWER_RECENCY, "<f4", (None,)),
        ),
        map_array(folder / layout.USER_BASES, "<f4", (n_users, dimensions)),
        Histories(
            map_array(folder / layout.HISTORY_OFFSETS, "<i8", (n_users + 1,)),
            map_array(folder / layout.HISTORY_ITEMS, "<u4", (None,)),
            map_array(folder / layout.HISTORY_WEIGHTS, "<f4", (None,)),
        ),
    )
    for problem in _misfits(stored, n_users, n_items, dimensions):
        raise DamagedVersionError(f"{folder}: {problem}")
    return stored


def _misfits(stored: StoredTower, n_users: int, n_items: int, dimensions: int) -> Iterator[str]:
    """What does not fit; each may rest on those before it."""
    (_, matrix, stranger, recency), bases, (offsets, items, weights) = stored
    d = dimensions
    if (matrix.shape, stranger.shape, bases.shape) != ((d, d), (d,), (n_users, d)) or recency.ndim != 1:
        yield f"a tower {matrix.shape}, {stranger.shape}, bases {bases.shape}; {n_users} users have {d} numbers each"
    if any(array.dtype != np.float32 for array in (matrix, stranger, recency, bases, weights)):
        yield "the numbers of a tower are not float32"
    if recency.size == 0 or not bool((recency > 0).all()):
        yield "a tower's weights of recency are missing or not above 0"
    if offsets.dtype != np.int64 or items.dtype != np.uint32 or items.shape != weights.shape:
        yield f"histories of {items.shape} items, {items.dtype}, and {weights.shape} weights; offsets {offsets.dtype}"
    if offsets.shape != (n_users + 1,) or offsets[0] != 0 or offsets[-1] != len(items):
        yield f"the histories' offsets {offsets.shape} do not fit {n_users} users and {len(items)} items"
    if bool((offsets[1:] < offsets[:-1]).any()):
        yield "the offsets of the histories fall"
    if len(items) and int(items.max()) >= n_items:
        yield f"a history has item {items.max()} of {n_items}"
    if len(items) and not float(weights.min()) > 0:
        yield "an event of a history has no weight"
