"""Our own lists of the users who are judged: as they would have been offered to them before the test part."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jobs import candidate_files, known
from jobs.datasets import Dataset
from jobs.list_order import Order, put_in_order
from schemas.tables import TEST


def offered(
    prepared: Dataset, embeddings: Dataset, candidates: Dataset, scratch: Path, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(users int32[m], lists int32[m, width] of dense indexes, padded with -1), at most `size` users at a time.

    Args:
        scratch: folder in which a folder is made, and removed at the end.
    """
    folder, by = scratch / known.FOLDER, embeddings.extra("order", Order)
    of_users = known.write_known(prepared, np.load(candidates.part("order.npy")), folder, before=TEST)
    for batch in candidate_files.read_all(candidates.part("evaluation"), size):
        items = put_in_order(batch, by, of_users).column("items")
        lengths = np.diff(items.offsets.to_numpy())
        lists = np.full((len(lengths), max(lengths, default=0)), -1, dtype=np.int64)
        lists[np.arange(lists.shape[1]) < lengths[:, None]] = items.flatten().to_numpy()
        yield batch.column("user_index").to_numpy(), lists
    shutil.rmtree(folder)
