"""What users did last, gathered from a part of `embeddings`, where it stands beside the vector made from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from jobs.errors import DatasetDamagedError
from jobs.index import inverse
from prediction_store.user_tower import Histories

OFFSETS, ITEMS, WEIGHTS = "offsets.npy", "items.npy", "weights.npy"
"""The files of gathered histories, see `prediction_store.user_tower.Histories`."""
KINDS = {ITEMS: np.uint32, WEIGHTS: np.float32}


def gather(part: Path, users: int, order: np.ndarray, into: Path) -> Histories:
    """The histories of a part of `embeddings` by `user_index`, in dense indexes; read batch by batch, twice.

    Args:
        order: int[items], the item_index of each dense index.
        into: a folder, which is made. The histories are files in it, for they may be more than memory holds.

    Raises:
        DatasetDamagedError: a user has two histories, or none, or one with an item that there is not.
    """
    lengths, hint = np.full(users, -1, np.int64), f"remove {part.parent} and run again: shortlist embed"
    for index, items, _, counts in _batches(part):
        if (
            not 0 <= index.min() <= index.max() < users
            or (lengths[index] >= 0).any()
            or len(np.unique(index)) < len(index)
        ):
            raise DatasetDamagedError(f"{part}: users twice, or beyond {users}", hint=hint)
        if len(items) and not 0 <= items.min() <= items.max() < len(order):
            raise DatasetDamagedError(
                f"{part}: a history has items {items.min()} to {items.max()}; there are {len(order)}", hint=hint
            )
        lengths[index] = counts
    if (lengths < 0).any():
        raise DatasetDamagedError(f"{part}: {int((lengths < 0).sum())} of {users} users have no history", hint=hint)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    dense_of = inverse(order)
    into.mkdir()
    np.save(into / OFFSETS, offsets)
    all_items, all_weights = (_mapped(into / name, offsets[-1], kind) for name, kind in KINDS.items())
    for index, items, weights, counts in _batches(part):
        starts = offsets[index] - (np.cumsum(counts) - counts)
        places = np.arange(len(items)) + np.repeat(starts, counts)
        all_items[places] = dense_of[items]
        all_weights[places] = weights
    all_items.flush()
    all_weights.flush()
    return Histories(offsets, all_items, all_weights)


def _mapped(path: Path, rows: int, kind: type) -> np.memmap:
    return np.lib.format.open_memmap(path, "w+", kind, (int(rows),))


def _batches(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """(user_index, items and weights of these users end to end, number of them per user)."""
    columns = ["user_index", "history_items", "history_weights"]
    for batch in pa.dataset.dataset(folder, format="parquet").to_batches(columns=columns):
        if batch.num_rows:
            items, weights = batch.column("history_items"), batch.column("history_weights")
            counts = np.diff(items.offsets.to_numpy())
            yield (
                batch.column("user_index").to_numpy(),
                items.flatten().to_numpy(),
                weights.flatten().to_numpy(),
                counts,
            )
