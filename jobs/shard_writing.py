"""The shards of a version, written by Spark. One task writes one shard.

A task may run twice: retried, or speculatively beside another. Each attempt writes a file of its own and the first
complete one gets the shard's name. Any later one must hold the same bytes: the records are sorted by key, and nothing
in them depends on the clock or on the order in which they came.

On a cluster the tasks do not see the store, which is on a disk of the driver's machine: they leave the shards in the
workspace, and the driver takes them from there.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from jobs import candidate_files, cluster
from jobs.datasets import Dataset
from jobs.errors import DatasetDamagedError
from jobs.known import open_known
from jobs.list_order import Order, Vectors, put_in_order
from jobs.partitions import task_number
from jobs.temporary import temporary_folder
from jobs.vectors import USER_VECTORS
from prediction_store.writer import ShardReport, VersionDraft, attempt_at, commit_shard, copy_shard, write_shard
from schemas.config import Config
from schemas.record import HEADER_BYTES, index_bits_for
from schemas.record_encoder import Common, Lists, encode_records
from schemas.tables import CANDIDATES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Reader = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]

PAGE_BYTES = 4096
BATCH_USERS = 2048


class ShardPlan(NamedTuple):
    """What every attempt at a shard has to agree on."""

    paths: tuple[str, ...]  # final path of each shard
    made_at: int
    seed: int
    index_bits: int
    expected_bytes: int
    is_shared: bool = False  # the paths lie on a disk that several machines share, where LMDB must not write


class Given(NamedTuple):
    """What lists are put in order by, see `list_order.put_in_order`."""

    order: Order
    known: Path
    user_vectors: Path
    item_vectors: Path
    k: int


def write_shards(
    draft: VersionDraft,
    config: Config,
    inputs: Mapping[str, Dataset],
    spark: SparkSession,
    *,
    made_at: int,
    known: Path,
    scratch: Path,
) -> int:
    """Write the records of all users into the shards, each list in its order; the number of records.

    Args:
        known: folder of what the lists are put in order by, see `known.open_known`.
        scratch: folder for what is on its way; USER_VECTORS is there. Tasks must find both, wherever these run.
    """
    from pyspark.sql import functions as F

    shards = config.store.shards
    items, users = (inputs["prepared"].rows[name] for name in ("items", "users"))
    paths = [draft.shard_path(number) for number in range(shards)]
    shared = scratch / "shards" if cluster.runs_on_cluster(spark) else None
    plan = ShardPlan(
        paths=tuple(str(shared / path.name if shared else path) for path in paths),
        made_at=made_at,
        seed=draft.seed,
        index_bits=draft.index_bits,
        expected_bytes=record_bytes(config.retrieve.candidates, items) * math.ceil(users / shards),
        is_shared=shared is not None,
    )
    if shared:
        shared.mkdir()
    draft.check_room(plan.expected_bytes * shards)
    ids = inputs["prepared"].read(spark, "users").selectExpr("user_index", "cast(user_id as binary) as key")
    order = inputs["embeddings"].extra("order", Order)
    given = Given(
        order,
        known,
        scratch / USER_VECTORS,
        inputs["candidates"].part("vectors.npy"),
        config.retrieve.candidates,
    )
    read = functools.partial(_read_files, given=given)
    records = (
        _candidates(spark, inputs["candidates"].part("users"), read)
        .join(ids, "user_index")
        .withColumn("shard", (F.crc32("key") % shards).cast("int"))
        .repartitionById(shards, "shard")
        .sortWithinPartitions("key")
    )
    written = records.mapInArrow(functools.partial(_write_partition, plan=plan), "shard int, users bigint").collect()
    for shard in set(range(shards)) - {row["shard"] for row in written}:  # Spark may start no task for no users
        write_attempt([], shard, plan)
    total = sum(row["users"] for row in written)
    if total != users:
        raise DatasetDamagedError(
            f"{total} of {users} users have candidates",
            hint=f"remove {inputs['candidates'].path} and run again: shortlist retrieve",
        )
    if shared:
        for path in paths:
            copy_shard(shared / path.name, path)
        shutil.rmtree(shared)
    return total


def _candidates(spark: SparkSession, folder: Path, read: Reader) -> DataFrame:
    """(user_index, items, scores) of a part of `candidates`, each list as the bytes of its numbers.

    The tasks read the files themselves: through Spark every single number of a list would become a Java object's field.
    """
    files = [(number, str(path)) for number, path in enumerate(candidate_files.find(folder))]
    return (
        spark.createDataFrame(files, "number int, file string")
        .repartitionById(len(files), "number")
        .mapInArrow(read, "user_index int, items binary, scores binary")
    )


def _read_files(batches: Iterable[pa.RecordBatch], *, given: Given) -> Iterator[pa.RecordBatch]:
    known = open_known(given.known)
    vectors = Vectors(*(np.load(path, mmap_mode="r") for path in (given.user_vectors, given.item_vectors)))
    for batch in batches:
        for file in batch.column("file").to_pylist():
            for found in candidate_files.read(file, BATCH_USERS):
                rows = put_in_order(found, given.order, known, vectors, given.k)
                yield pa.RecordBatch.from_arrays(
                    [rows.column("user_index"), _as_bytes(rows.column("items")), _as_bytes(rows.column("scores"))],
                    names=CANDIDATES.names,
                )


def _as_bytes(lists: pa.ListArray) -> pa.BinaryArray:
    """Each list of 4-byte numbers as its bytes."""
    ends = lists.offsets.to_numpy()
    offsets = ((ends - ends[0]) * 4).astype(np.int32)
    values = np.ascontiguousarray(lists.flatten().to_numpy())
    return pa.BinaryArray.from_buffers(pa.binary(), len(lists), [None, pa.py_buffer(offsets), pa.py_buffer(values)])


def _write_partition(batches: Iterable[pa.RecordBatch], *, plan: ShardPlan) -> Iterator[pa.RecordBatch]:
    shard = task_number()
    report = write_attempt(batches, shard, plan)
    yield pa.RecordBatch.from_pydict(
        {"shard": pa.array([shard], pa.int32()), "users": pa.array([report.users], pa.int64())}
    )


def write_attempt(batches: Iterable[pa.RecordBatch], shard: int, plan: ShardPlan) -> ShardReport:
    """One attempt at a shard, from rows (user_index, key, items, scores, shard) sorted by key.

    Raises:
        ShardConflictError: an earlier attempt has written other bytes.
    """
    final = Path(plan.paths[shard])
    attempt = attempt_at(final)
    records = _records(batches, shard, plan)
    if plan.is_shared:
        with temporary_folder() as folder:
            report = write_shard(folder / final.name, records, expected_bytes=plan.expected_bytes)
            copy_shard(report.path, attempt)
    else:
        report = write_shard(attempt, records, expected_bytes=plan.expected_bytes)
    commit_shard(attempt, final)
    return report


def _records(batches: Iterable[pa.RecordBatch], shard: int, plan: ShardPlan) -> Iterator[tuple[bytes, memoryview]]:
    common = Common(plan.made_at, plan.seed, plan.index_bits)
    for batch in batches:
        assert (batch.column("shard").to_numpy() == shard).all()
        keys = batch.column("key").to_pylist()
        items, offsets = _numbers(batch.column("items"), np.dtype(np.int32))
        scores, score_offsets = _numbers(batch.column("scores"), np.dtype(np.float32))
        assert np.array_equal(offsets, score_offsets)
        lists = Lists(keys, batch.column("user_index").to_numpy(), items, scores, offsets)
        yield from zip(keys, encode_records(lists, common), strict=True)


def _numbers(column: pa.BinaryArray, kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The numbers in all values of a column one after the other, and where each value's begin: `_as_bytes` undone."""
    _, offsets, values = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    numbers = np.frombuffer(values or b"", kind)[ends[0] // kind.itemsize : ends[-1] // kind.itemsize]
    return numbers, (ends - ends[0]) // kind.itemsize


def record_bytes(candidates: int, items: int) -> int:
    """About what one user takes in a shard: whole pages for the record, and its place in the tree."""
    word_bytes = 4 if index_bits_for(items) < 32 else 8
    return math.ceil((HEADER_BYTES + word_bytes * min(candidates, items) + 16) / PAGE_BYTES) * PAGE_BYTES + 128
