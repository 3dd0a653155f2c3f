"""Our own lists of the users who are judged: as they would have been offered to them before the test part."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.dataset

from jobs import candidate_files, list_order, user_histories
from jobs.datasets import Dataset
from jobs.list_order import Order
from schemas.tables import TEST


def offered(
    prepared: Dataset, embeddings: Dataset, candidates: Dataset, scratch: Path, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(users int32[m], lists int32[m, width] of dense indexes, padded with -1), at most `size` users at a time.

    Args:
        scratch: folder in which a folder is made, and removed at the end.
    """
    order, users = np.load(candidates.part("order.npy")), prepared.rows["users"]
    folder, before = scratch / user_histories.FOLDER, pyarrow.dataset.field("split") < TEST
    user_histories.gather(embeddings.part("evaluation_users"), users, order, folder, of_all=False)
    known = list_order.write_known(prepared, order, folder, interactions=before)
    by = embeddings.extra("order", Order)
    for batch in candidate_files.read_all(candidates.part("evaluation"), size):
        items = list_order.put_in_order(batch, by, known).column("items")
        lengths = np.diff(items.offsets.to_numpy())
        lists = np.full((len(lengths), max(lengths, default=0)), -1, dtype=np.int64)
        lists[np.arange(lists.shape[1]) < lengths[:, None]] = items.flatten().to_numpy()
        yield batch.column("user_index").to_numpy(), lists
    shutil.rmtree(folder)
