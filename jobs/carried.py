"""Lists carried over from an earlier `candidates`: the same scores, bit for bit, under today's numbers.

A Spark task copies some of the files, some users at a time. A list is dropped, and its user searched for, when it
holds an item that is gone or has another vector, and when an item that is new or has another one is good enough for it.
Scores are exact (`vectors.on_grid`) and ties go to the lower id: so what is carried over is what a search would find.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from jobs import candidate_files, index
from jobs.changed import Unchanged
from jobs.errors import DatasetDamagedError
from jobs.partitions import task_number, tasks_of
from jobs.vectors import USER_VECTORS, on_grid
from schemas.config import Retrieve
from schemas.tables import CANDIDATES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PART = "users"
"""The part of `candidates` that is carried over; lists for evaluation are of those who have just been active."""

SCRATCH = ".carry"
"""Folder in the dataset for what the tasks read; gone when it is complete."""

USER_OF, DENSE_OF, FRESH = "user_of.npy", "dense_of.npy", "fresh.npy"
BLOCK_ITEMS = 256
"""Items scored at a time: bounds a task's memory, whatever the number of new ones."""


class Known(NamedTuple):
    """What a task needs to know."""

    user_of: np.ndarray  # int32[users then]: today's user_index, -1 for those whose list is not carried over
    dense_of: np.ndarray  # int32[items then]: today's dense index of each dense index of then, or -1
    fresh: np.ndarray  # float32[m, d], on the grid: the items that are new or have another vector
    user_vectors: np.ndarray  # float32[users, d]: today's
    k: int


def carry_over(spark: SparkSession, config: Retrieve, unchanged: Unchanged, folder: Path) -> np.ndarray:
    """Write the lists that are carried over into the part `users` of the dataset in `folder`, whose index is there.

    Requires: USER_VECTORS lies in the dataset's SCRATCH, which receives what else the tasks read.

    Returns:
        bool[users of today]: who is left to search for.
    """
    item_index, scratch = index.open_index(str(folder), index.token_of(folder)), folder / SCRATCH
    order = np.load(unchanged.candidates.part("order.npy"))
    dense = unchanged.item_of[order]
    np.save(scratch / DENSE_OF, np.where(dense >= 0, item_index.dense_of[dense], -1).astype(np.int32))
    np.save(scratch / USER_OF, unchanged.user_of)
    np.save(scratch / FRESH, item_index.vectors[item_index.dense_of[unchanged.fresh]])
    (folder / PART).mkdir()
    tasks = tasks_of(spark)
    # By turns: what was carried over comes first and what was searched for next, so every task gets of both. And a
    # task writes one file, so that their number does not grow from night to night.
    found = candidate_files.find(unchanged.candidates.part(PART))
    files = [(n % tasks, str(path)) for n, path in enumerate(found)]
    task = functools.partial(_carry_files, folder=str(folder), k=config.candidates, rows=config.batch_users)
    written = (
        spark.createDataFrame(files, "number int, file string")
        .repartitionById(min(tasks, len(files)), "number")
        .mapInArrow(task, "number int, attempt string, users bigint, dropped array<int>")
        .collect()
    )
    candidate_files.name_files(folder / PART, "carried", [(row["number"], row["attempt"]) for row in written])
    stays = unchanged.user_of[unchanged.user_of >= 0]
    is_left = np.ones(len(np.load(scratch / USER_VECTORS, mmap_mode="r")), dtype=bool)
    is_left[stays] = False
    for row in written:
        is_left[row["dropped"]] = True
    if sum(row["users"] for row in written) != np.count_nonzero(~is_left):
        raise DatasetDamagedError(
            f"{unchanged.candidates.path} does not hold one list of each user",
            hint="find all lists anew: --set retrieve.changed_only=false",
        )
    return is_left


def carry(lists: pa.RecordBatch, known: Known) -> tuple[pa.RecordBatch, np.ndarray]:
    """(the earlier lists that are carried over, int32: the unchanged users whose lists are not).

    Args:
        lists: rows of CANDIDATES, in the numbers of then.
    """
    user = known.user_of[lists.column("user_index").to_numpy()]
    lists = lists.filter(pa.array(user >= 0))
    user = user[user >= 0]
    lengths = pa.compute.list_value_length(lists.column("items")).to_numpy()
    items = known.dense_of[lists.column("items").flatten().to_numpy()]
    scores = lists.column("scores").flatten().to_numpy()
    ends = np.cumsum(lengths, dtype=np.int64)
    stays = np.ones(len(user), dtype=bool)
    stays[np.searchsorted(ends, np.flatnonzero(items < 0), side="right")] = False
    if len(known.fresh):
        lowest = np.full(len(user), -np.inf, dtype=np.float32)  # there is room for any item in a shorter list
        is_full = lengths == known.k
        lowest[is_full] = scores[ends[is_full] - 1]
        stays &= _best(known.user_vectors[user], known.fresh) < lowest
    if not stays.all():
        kept = np.repeat(stays, lengths)
        items, scores = items[kept], scores[kept]
    offsets = np.concatenate([[0], np.cumsum(lengths[stays])]).astype(np.int32)
    columns = [
        pa.array(user[stays], pa.int32()),
        pa.ListArray.from_arrays(offsets, items),
        pa.ListArray.from_arrays(offsets, scores),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CANDIDATES), user[~stays]


def _best(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """float32[n]: the highest exact score of any of these items for each user; `users` is float32[n, d]."""
    wide = on_grid(users).astype(np.float64)
    best = np.full(len(users), -np.inf, dtype=np.float32)
    for start in range(0, len(items), BLOCK_ITEMS):
        found = wide @ items[start : start + BLOCK_ITEMS].T.astype(np.float64)  # [n, block]
        np.maximum(best, found.max(axis=1).astype(np.float32), out=best)
    return best


def _carry_files(batches: Iterable[pa.RecordBatch], *, folder: str, k: int, rows: int) -> Iterator[pa.RecordBatch]:
    """A task's share of the earlier files, carried into one file: whose lists are in it, and who is left."""
    number = task_number()
    user_of, dense_of, fresh, user_vectors = (
        np.load(Path(folder) / SCRATCH / name, mmap_mode="r") for name in (USER_OF, DENSE_OF, FRESH, USER_VECTORS)
    )
    known = Known(user_of, dense_of, fresh, user_vectors, k)
    path = candidate_files.attempt_in(Path(folder) / PART, number)
    users, dropped = 0, [np.empty(0, dtype=np.int32)]
    sources = (source for batch in batches for source in batch.column("file").to_pylist())
    with candidate_files.open_writer(path) as written:
        for source in sources:
            for lists in candidate_files.read(source, rows):
                found, left = carry(lists, known)
                written.write_batch(found)
                users += found.num_rows
                dropped.append(left)
    yield pa.RecordBatch.from_pydict(
        {
            "number": pa.array([number], pa.int32()),
            "attempt": [path.name],
            "users": pa.array([users], pa.int64()),
            "dropped": pa.array([np.concatenate(dropped)], pa.list_(pa.int32())),
        }
    )
