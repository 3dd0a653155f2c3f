"""What makes a user's vector anew without torch: from the towers into `embeddings`, and from there into a version.

`embeddings/tower/` has what all users share; `embeddings/users` has each user's base and the history that was pooled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch

from jobs.errors import DatasetDamagedError
from jobs.towers import TwoTowers, UserTensors
from prediction_store.user_tower import Histories, Tower
from schemas.user_tower import TowerFacts

PART = "tower"

Allocate = Callable[[str, tuple[int, ...], type], np.ndarray]
"""Makes an array of a name, a shape and a type."""


def save_tower(folder: Path, towers: TwoTowers) -> None:
    """Write what all users share into `folder`, which is made."""
    user = towers.user
    columns = torch.zeros((1, len(user.columns)), dtype=torch.int64)
    with torch.no_grad():
        parts = {
            "matrix": user.history.weight,
            "stranger": user.base(UserTensors(torch.zeros(1, dtype=torch.int64), columns))[0],
            "recency": user.of_recency(),
        }
    folder.mkdir()
    for name, tensor in parts.items():
        np.save(folder / f"{name}.npy", tensor.detach().to(torch.float32).numpy())


def load_tower(folder: Path, *, is_unit: bool, history_length: int, event_weights: Mapping[str, float]) -> Tower:
    """What `save_tower` has written, with what it does not know."""
    facts = TowerFacts(is_unit=is_unit, history_length=history_length, event_weights=dict(event_weights))
    return Tower(facts, *(np.load(folder / f"{name}.npy") for name in ("matrix", "stranger", "recency")))


def gather_histories(folder: Path, users: int, order: np.ndarray, allocate: Allocate) -> Histories:
    """The histories of a part of `embeddings` by `user_index`, in dense indexes; read batch by batch, twice.

    Args:
        order: int[items], the item_index of each dense index.
        allocate: makes the arrays of all items and weights, which may be more than memory holds.

    Raises:
        DatasetDamagedError: not each user has exactly one history, or one has an item that there is not.
    """
    lengths, hint = np.full(users, -1, np.int64), f"remove {folder.parent} and run again: shortlist embed"
    for index, items, _, counts in _batches(folder):
        if (
            not 0 <= index.min() <= index.max() < users
            or (lengths[index] >= 0).any()
            or len(np.unique(index)) < len(index)
        ):
            raise DatasetDamagedError(f"{folder}: users twice, or beyond {users}", hint=hint)
        if len(items) and not 0 <= items.min() <= items.max() < len(order):
            raise DatasetDamagedError(
                f"{folder}: a history has items {items.min()} to {items.max()}; there are {len(order)}", hint=hint
            )
        lengths[index] = counts
    if (lengths < 0).any():
        raise DatasetDamagedError(f"{folder}: {int((lengths < 0).sum())} of {users} users have no history", hint=hint)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    dense = np.empty(len(order), np.uint32)
    dense[order] = np.arange(len(order), dtype=np.uint32)
    total = (int(offsets[-1]),)
    found = Histories(offsets, allocate("items", total, np.uint32), allocate("weights", total, np.float32))
    for index, items, weights, counts in _batches(folder):
        starts = offsets[index] - (np.cumsum(counts) - counts)
        places = np.arange(len(items)) + np.repeat(starts, counts)
        found.items[places] = dense[items]
        found.weights[places] = weights
    return found


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
