"""Our own lists of the users who are judged: as they would have been offered to them before the test part."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jobs import candidate_files, known, vectors
from jobs.datasets import Dataset
from jobs.list_order import Order, Vectors, put_in_order
from schemas.config import Retrieve
from schemas.tables import TEST


def offered(
    config: Retrieve, prepared: Dataset, embeddings: Dataset, candidates: Dataset, *, scratch: Path, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(users int32[m], lists int32[m, width] of dense indexes, padded with -1), at most `size` users at a time.

    Args:
        scratch: folder in which a folder is made, and removed at the end.
    """
    if not embeddings.rows["evaluation_users"]:
        return
    folder, by = scratch / known.FOLDER, embeddings.extra("order", Order)
    order, drops = np.load(candidates.part("order.npy")), config.consumed == "drop"
    of_users = known.write_known(prepared, order, folder, before=TEST, drop_consumed=drops)
    part, users = embeddings.part("evaluation_users"), prepared.rows["users"]
    made_of = Vectors(
        vectors.gather(part, "user", users, file=folder / vectors.USER_VECTORS, is_whole=False),
        np.load(candidates.part("vectors.npy"), mmap_mode="r"),
    )
    for batch in candidate_files.read_all(candidates.part("evaluation"), size):
        items = put_in_order(batch, by, of_users, made_of, config.candidates).column("items")
        lengths = np.diff(items.offsets.to_numpy())
        lists = np.full((len(lengths), max(lengths, default=0)), -1, dtype=np.int64)
        lists[np.arange(lists.shape[1]) < lengths[:, None]] = items.flatten().to_numpy()
        yield batch.column("user_index").to_numpy(), lists
    shutil.rmtree(folder)
