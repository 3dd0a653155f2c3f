"""The users to search for, as files that every task maps into memory: vectors, and what each has consumed.

Through Spark a vector and a list of consumed items pass number by number, and are sorted and joined on the way: that
took a seventh of the search. The driver copies them in one pass over the embeddings and two over the interactions, and
keeps twelve bytes a user in memory, nothing for an interaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from jobs import vectors
from jobs.calibration import Queries
from jobs.search import Ragged

USERS, VECTORS, OFFSETS, ITEMS = "user_index.npy", "vectors.npy", "offsets.npy", "items.npy"


class Stored(NamedTuple):
    """Users in the order of the files of `embeddings`. All arrays are mapped."""

    users: np.ndarray  # int32[n], user_index
    vectors: np.ndarray  # float32[n, d]
    offsets: np.ndarray  # int64[n + 1]
    items: np.ndarray  # int32, item_index: user i has consumed items[offsets[i]:offsets[i + 1]]

    def take(self, start: int, stop: int, dense_of: np.ndarray) -> tuple[np.ndarray, Queries]:
        """(user_index int32[m], queries) of the users `start` to `stop`, their items by dense index."""
        offsets = self.offsets[start : stop + 1]
        items = dense_of[self.items[offsets[0] : offsets[-1]]]
        return self.users[start:stop], Queries(np.array(self.vectors[start:stop]), Ragged(offsets - offsets[0], items))


def write_queries(
    folder: Path,
    embedded: Path,
    interactions: Path | None,
    *,
    known: pyarrow.dataset.Expression,
    dimensions: int,
    wanted: np.ndarray | None = None,
) -> int:
    """Write the users of a part of `embeddings` into `folder`, which is there; their number.

    Args:
        interactions: None where consumed items may be found again.
        known: which interactions count.
        wanted: bool[users], the users to search for; None: all.

    Raises:
        BadVectorsError: vectors are missing, of another length, NaN or infinite.
    """
    source = pa.dataset.dataset(embedded, format="parquet")
    n = source.count_rows() if wanted is None else _count(source, wanted)
    users = np.lib.format.open_memmap(folder / USERS, "w+", np.int32, (n,))
    found = np.lib.format.open_memmap(folder / VECTORS, "w+", np.float32, (n, dimensions))
    at, bad = 0, np.empty(0, dtype=np.int32)
    for batch in source.to_batches(columns=["user_index", "vector"]):
        own, column = batch.column("user_index").to_numpy(), batch.column("vector")
        if wanted is not None:
            own, column = own[wanted[own]], column.filter(pa.array(wanted[own]))
        is_bad = vectors.bad_rows(column, dimensions)
        bad = np.append(bad, own[is_bad])
        if len(bad) == 0:  # else the job fails; what is left to do is to count them all
            users[at : at + len(own)] = own
            found[at : at + len(own)] = vectors.matrix(column, dimensions)
        at += len(own)
    if len(bad):
        raise vectors.bad_vectors(len(bad), "user", int(bad.min()))
    users.flush()
    found.flush()
    _write_consumed(folder, users, interactions, known)
    return n


def open_queries(folder: Path) -> Stored:
    """What `write_queries` has written."""
    return Stored(*(np.load(folder / name, mmap_mode="r") for name in (USERS, VECTORS, OFFSETS, ITEMS)))


def _count(source: pa.dataset.Dataset, wanted: np.ndarray) -> int:
    batches = source.to_batches(columns=["user_index"])
    return sum(int(np.count_nonzero(wanted[batch.column("user_index").to_numpy()])) for batch in batches)


def _write_consumed(
    folder: Path, users: np.ndarray, interactions: Path | None, known: pyarrow.dataset.Expression
) -> None:
    """Count the items of each user, then put each where it belongs."""
    place = np.full(int(users.max(initial=-1)) + 2, -1, dtype=np.int32)  # the last one stands for all beyond
    place[users] = np.arange(len(users), dtype=np.int32)

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows of `users`, ascending, and the items they consumed), some at a time."""
        if interactions is None:
            return
        source = pa.dataset.dataset(interactions, format="parquet")
        condition = pa.dataset.field("consumed") & known
        for batch in source.to_batches(columns=["user_index", "item_index"], filter=condition):
            row = place[np.minimum(batch.column("user_index").to_numpy(), len(place) - 1)]
            order = np.argsort(row, kind="stable")[np.count_nonzero(row < 0) :]
            yield row[order], batch.column("item_index").to_numpy()[order]

    offsets = np.zeros(len(users) + 1, dtype=np.int64)
    for rows, _ in pairs():
        row, counts = np.unique(rows, return_counts=True)
        offsets[row + 1] += counts
    np.cumsum(offsets, out=offsets)
    np.save(folder / OFFSETS, offsets)
    items = np.lib.format.open_memmap(folder / ITEMS, "w+", np.int32, (int(offsets[-1]),))
    free = offsets[:-1]  # where each user's next item goes
    for rows, item in pairs():
        row, starts, counts = np.unique(rows, return_index=True, return_counts=True)
        items[free[rows] + np.arange(len(rows)) - np.repeat(starts, counts)] = item
        free[row] += counts
    items.flush()
