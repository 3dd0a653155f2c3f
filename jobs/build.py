"""A sealed version in the store, from the day's datasets. One Spark task writes one shard; the rest is the driver's.

A task may run twice: retried, or speculatively beside another. Each attempt writes a file of its own and the first
complete one gets the shard's name. Any later one must hold the same bytes: the records are sorted by key, and nothing
in them depends on the clock or on the order in which they came.

On a cluster the tasks do not see the store, which is on a disk of the driver's machine: they leave the shards in the
workspace, and the driver takes them from there.
"""

from __future__ import annotations

import functools
import hashlib
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from jobs import cluster, datasets, vectors
from jobs.datasets import Dataset
from jobs.errors import DatasetDamagedError
from jobs.progress import Report
from prediction_store.columns import NewColumn
from prediction_store.ttl import expires_at
from prediction_store.user_facts import Consumed
from prediction_store.writer import (
    Categories,
    ShardReport,
    Texts,
    VersionDraft,
    attempt_at,
    commit_shard,
    copy_shard,
    find_by_inputs,
    write_shard,
)
from reranker.signals import default_weights
from schemas import config as settings
from schemas.config import Config
from schemas.manifest import MANIFEST_FORMAT, RECORD_FORMAT
from schemas.ranker import RankerWeights, encode_weights
from schemas.record import HEADER_BYTES, RankedItems, index_bits_for
from schemas.record_encoder import Common, Lists, encode_records

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

INPUTS = ("prepared", "embeddings", "candidates", "lists", "evaluation")
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


def run(config: Config, day: str, spark: SparkSession, now: float) -> Report:
    """Build the version of a day and seal it; write `version`, a dataset that only names it.

    Nothing is built when the store has a sealed version of the same inputs: that one is the version of the day.

    Args:
        now: the time of the build. It stands in the version's name and manifest; the contents do not depend on it.
    """
    started = time.monotonic()
    inputs = {name: datasets.open_dataset(config.paths.workspace, day, name) for name in INPUTS}
    weights = default_weights(str(inputs["embeddings"].extra("space_id")))
    digest = inputs_digest(config, inputs, weights)
    root = Path(config.paths.store)
    found = find_by_inputs(root, digest)
    if found is None:  # never built, or retired since
        shutil.rmtree(Path(config.paths.workspace) / day / "version", ignore_errors=True)
    with datasets.step(
        config.paths.workspace, day, "version", inputs=list(inputs.values()), outside={"digest": digest}
    ) as named:
        if found is not None:
            named.extra["version"] = found
            return Report(step="build", day=day, skipped=True, details={"version": found})
        with VersionDraft.begin(root, digest, now) as draft:
            _write_catalogue(draft, inputs, weights)
            _write_users(draft, config, inputs, spark, named.path)
            made_at = datasets.end_of(day)
            records = _write_shards(draft, config, inputs, spark, made_at=made_at, scratch=named.path)
            manifest = draft.seal(
                space_id=weights.space_id,
                made_at=made_at,
                expires_at=expires_at(made_at, config.store),
                shards=config.store.shards,
                inputs={name: dataset.fingerprint for name, dataset in inputs.items()},
                config_digest=config_digest(config),
            )
        named.extra["version"] = manifest.name
        named.rows["users"] = records
    seconds = time.monotonic() - started
    return Report(step="build", day=day, rows=named.rows, seconds=seconds, details={"version": manifest.name})


def inputs_digest(config: Config, inputs: Mapping[str, Dataset], weights: RankerWeights) -> str:
    """64 hexadecimal digits over all that the version's contents come from, the settings of this step among it."""
    parts = {name: dataset.fingerprint for name, dataset in inputs.items()}
    facts = [parts, config.store.shards, config.store.version_ttl_hours, MANIFEST_FORMAT, RECORD_FORMAT]
    facts += [datasets.REVISION["version"], encode_weights(weights).decode()]
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def config_digest(config: Config) -> str:
    """The digest of the settings that say what is computed, not of where and on how many cores."""
    return settings.digest(
        msgspec.structs.replace(
            settings.without_paths(config),
            retrieve=settings.deciding(config.retrieve),
            serve=settings.Serve(),
            spark=settings.Spark(),
        )
    )


def _write_catalogue(draft: VersionDraft, inputs: Mapping[str, Dataset], weights: RankerWeights) -> None:
    """Everything that is not per user, in dense order."""
    order = np.load(inputs["candidates"].part("order.npy"))
    items = pa.dataset.dataset(inputs["prepared"].part("items"), format="parquet").to_table().sort_by("item_index")
    item_vectors = vectors.gather(inputs["embeddings"].part("items"), "item", len(items))
    dense = items.take(order)
    draft.write_items(item_vectors[order], dense["item_id"].to_pylist(), _columns(dense))
    lists = pa.parquet.read_table(inputs["lists"].part("lists.parquet")).to_pylist()
    ranked: dict[str, dict[str, RankedItems]] = {"popular": {}, "trending": {}}
    for row in lists:
        ranked[row["kind"]][row["segment"]] = RankedItems(
            np.array(row["items"], dtype=np.uint32), np.array(row["scores"], dtype=np.float32)
        )
    draft.write_lists(ranked["popular"], ranked["trending"])
    draft.write_neighbours(
        np.load(inputs["lists"].part("neighbours.npy"), mmap_mode="r"),
        np.load(inputs["lists"].part("neighbour_scores.npy"), mmap_mode="r"),
    )
    draft.write_ranker(weights)
    draft.write_report(inputs["evaluation"].part("report.json").read_bytes())


def _columns(items: pa.Table) -> dict[str, NewColumn]:
    """The columns of a version; what a rule or a signal reads of an item."""
    interactions = items["interactions"].to_numpy()
    return {
        "title": Texts(items["title"].to_pylist()),
        "category": Categories(items["category"].to_pylist()),
        "brand": Categories(items["brand"].to_pylist()),
        "price": items["price"].to_numpy().astype(np.float32),  # null becomes NaN
        "released": items["released"].cast(pa.float64()).to_numpy(),
        "in_stock": items["in_stock"].to_numpy(),
        "popularity": (interactions / max(1, interactions.max())).astype(np.float32),
    }


def _write_users(
    draft: VersionDraft, config: Config, inputs: Mapping[str, Dataset], spark: SparkSession, scratch: Path
) -> None:
    """The user vectors, through a file: they may be more than memory holds. Then segments and consumed items."""
    path = scratch / "user_vectors.npy"
    users = inputs["prepared"].rows["users"]
    mapped = vectors.gather(
        inputs["embeddings"].part("users"),
        "user",
        users,
        lambda shape: np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape),
    )
    draft.write_user_vectors(mapped)
    path.unlink()
    segments = pa.dataset.dataset(inputs["prepared"].part("users"), format="parquet").to_table(
        columns=["user_index", "segment"]
    )
    consumed = _consumed(inputs, spark, users) if config.retrieve.consumed == "drop" else None
    draft.write_user_facts(consumed, segments.sort_by("user_index")["segment"].to_pylist())


def _consumed(inputs: Mapping[str, Dataset], spark: SparkSession, users: int) -> Consumed:
    """What each user has consumed, in dense indexes: eight bytes a pair, and only the distinct pairs, on the driver."""
    order = np.load(inputs["candidates"].part("order.npy"))
    numbers = pa.table({"item_index": pa.array(order, pa.int32()), "dense": np.arange(len(order), dtype=np.int32)})
    pairs = (
        spark.read.parquet(str(inputs["prepared"].part("interactions")))
        .where("consumed")
        .select("user_index", "item_index")
        .distinct()
        .join(spark.createDataFrame(numbers), "item_index")
        .select("user_index", "dense")
        .toArrow()
        .sort_by([("user_index", "ascending"), ("dense", "ascending")])
    )
    counts = np.bincount(pairs["user_index"].to_numpy(), minlength=users)
    return Consumed(np.concatenate([[0], np.cumsum(counts)]), pairs["dense"].to_numpy().astype(np.uint32))


def _write_shards(
    draft: VersionDraft,
    config: Config,
    inputs: Mapping[str, Dataset],
    spark: SparkSession,
    *,
    made_at: int,
    scratch: Path,
) -> int:
    """Write the records of all users into the shards; the number of records."""
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
        expected_bytes=_record_bytes(config.retrieve.candidates, items) * math.ceil(users / shards),
        is_shared=shared is not None,
    )
    if shared:
        shared.mkdir()
    draft.check_room(plan.expected_bytes * shards)
    ids = spark.read.parquet(str(inputs["prepared"].part("users"))).selectExpr(
        "user_index", "cast(user_id as binary) as key"
    )
    records = (
        _candidates(spark, inputs["candidates"].part("users"))
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
            f"{total} of {users} users have candidates", hint="make them again: shortlist retrieve"
        )
    if shared:
        for path in paths:
            copy_shard(shared / path.name, path)
        shutil.rmtree(shared)
    return total


def _candidates(spark: SparkSession, folder: Path) -> DataFrame:
    """(user_index, items, scores) of a part of `candidates`, each list as the bytes of its numbers.

    The tasks read the files themselves: through Spark every single number of a list would become a Java object's field.
    """
    files = [(number, str(path)) for number, path in enumerate(sorted(folder.glob("*.parquet")))]
    return (
        spark.createDataFrame(files, "number int, file string")
        .repartitionById(len(files), "number")
        .mapInArrow(_read_files, "user_index int, items binary, scores binary")
    )


def _read_files(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for file in batch.column("file").to_pylist():
            with pa.parquet.ParquetFile(file) as opened:
                for rows in opened.iter_batches(BATCH_USERS, columns=["user_index", "items", "scores"]):
                    yield pa.RecordBatch.from_arrays(
                        [rows.column("user_index"), _as_bytes(rows.column("items")), _as_bytes(rows.column("scores"))],
                        names=["user_index", "items", "scores"],
                    )


def _as_bytes(lists: pa.ListArray) -> pa.BinaryArray:
    """Each list of 4-byte numbers as its bytes."""
    ends = lists.offsets.to_numpy()
    offsets = ((ends - ends[0]) * 4).astype(np.int32)
    values = np.ascontiguousarray(lists.flatten().to_numpy())
    return pa.BinaryArray.from_buffers(pa.binary(), len(lists), [None, pa.py_buffer(offsets), pa.py_buffer(values)])


def _write_partition(batches: Iterable[pa.RecordBatch], *, plan: ShardPlan) -> Iterator[pa.RecordBatch]:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    report = write_attempt(batches, context.partitionId(), plan)
    yield pa.RecordBatch.from_pydict(
        {"shard": pa.array([context.partitionId()], pa.int32()), "users": pa.array([report.users], pa.int64())}
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
        with TemporaryDirectory(prefix="shortlist-") as folder:
            report = write_shard(Path(folder) / final.name, records, expected_bytes=plan.expected_bytes)
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


def _record_bytes(candidates: int, items: int) -> int:
    """About what one user takes in a shard: whole pages for the record, and its place in the tree."""
    word_bytes = 4 if index_bits_for(items) < 32 else 8
    return math.ceil((HEADER_BYTES + word_bytes * min(candidates, items) + 16) / PAGE_BYTES) * PAGE_BYTES + 128
