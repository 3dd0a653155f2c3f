"""The best items of every user, in Spark: each task searches the item index for its share of the users.

The index is built once, in the dataset's folder, and memory-mapped by the tasks; a user's vector and consumed items
travel as Arrow batches. See `index` for why the lists do not depend on how the users are divided among tasks.
"""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

from jobs import datasets, index, vectors
from jobs.datasets import Dataset, Draft
from jobs.errors import SourceError
from jobs.progress import Report
from schemas.config import Config, Retrieve
from schemas.tables import CANDIDATES, TEST

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SAMPLE_USERS = 256
"""Users on whom an inexact index is calibrated; as many others measure it."""

ATTEMPT = "attempt-"
"""Start of the name of a file that a task is writing, or has written and nobody asked for."""


def run(config: Config, day: str, spark: SparkSession) -> Report:
    """Write `candidates`: the dense item order, the index, and the best items of users and of evaluation users.

    Raises:
        BadVectorsError: an embedding is NaN or infinite.
        SourceError: the catalogue is empty.
    """
    started = time.monotonic()
    prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
    embeddings = datasets.open_dataset(config.paths.workspace, day, "embeddings")
    with datasets.step(
        config.paths.workspace, day, "candidates", inputs=[prepared, embeddings], settings=[config.retrieve]
    ) as draft:
        if draft.complete is not None:
            return Report(step="retrieve", day=day, skipped=True, rows=draft.complete.rows)
        dimensions = _build_index(config.retrieve, prepared, embeddings, draft)
        served = _with_consumed(spark, config.retrieve, embeddings.part("users"), prepared, "true")
        judged = _with_consumed(
            spark, config.retrieve, embeddings.part("evaluation_users"), prepared, f"split < {TEST}"
        )
        _refuse_bad_users(served.select("user_index", "vector"), judged.select("user_index", "vector"), dimensions)
        probes = _calibrate(config.retrieve, draft, served)
        for part, users in (("users", served), ("evaluation", judged)):
            draft.rows[part] = _search_all(config.retrieve, users, draft.path, part, probes)
    return Report(step="retrieve", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=draft.extra)


def _build_index(config: Retrieve, prepared: Dataset, embeddings: Dataset, draft: Draft) -> int:
    """Write order.npy and the other files of the index; returns the dimensions of the vectors."""
    catalogue = pa.dataset.dataset(prepared.part("items"), format="parquet").to_table(
        columns=["item_index", "interactions"]
    )
    items = len(catalogue)
    if items == 0:
        raise SourceError("there are no items to choose from", hint="check data.items and data.interactions")
    popularity = np.zeros(items, dtype=np.int64)
    popularity[catalogue["item_index"].to_numpy()] = catalogue["interactions"].to_numpy()
    item_vectors = vectors.gather(embeddings.part("items"), "item", items)
    clusters = index.cluster(item_vectors, config.lists or index.default_lists(items))
    order = index.dense_order(clusters, popularity)
    exact = items < config.exact_below
    index.build(draft.path, item_vectors, order, clusters, exact=exact)
    draft.rows["items"] = items
    draft.extra |= {"kind": "exact" if exact else "ivf", "nlist": len(clusters.centres)}
    return item_vectors.shape[1]


def _with_consumed(spark: SparkSession, config: Retrieve, users: Path, prepared: Dataset, known: str) -> DataFrame:
    """(user_index, vector, consumed): one row per user; `known` says which interactions may be looked at."""
    from pyspark.sql import functions as F

    # A number of our own: Spark would put a small table into one task, however long its search takes.
    tasks = int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
    queries = spark.read.parquet(str(users)).repartition(tasks, "user_index")
    if config.consumed == "keep":
        return queries.withColumn("consumed", F.array().cast("array<int>"))
    consumed = (
        spark.read.parquet(str(prepared.part("interactions")))
        .where(f"consumed and {known}")
        .groupBy("user_index")
        .agg(F.collect_set("item_index").alias("consumed"))
    )
    return queries.join(consumed, "user_index", "left")


def _refuse_bad_users(served: DataFrame, judged: DataFrame, dimensions: int) -> None:
    is_bad = (
        f"vector is null or size(vector) != {dimensions} "
        f"or exists(vector, x -> x is null or isnan(x) or abs(x) > {vectors.LARGEST})"
    )
    count, first = served.union(judged).where(is_bad).selectExpr("count(*)", "min(user_index)").first() or (0, 0)
    if count:
        raise vectors.bad_vectors(count, "user", first)


def _calibrate(config: Retrieve, draft: Draft, served: DataFrame) -> int:
    """How many lists to probe; the recall of an inexact index, measured on users it was not calibrated on."""
    from pyspark.sql import functions as F

    item_index = index.open_index(str(draft.path), index.token_of(draft.path))
    if item_index.ivf is None:
        draft.extra |= {"nprobe": 0, "recall_on_sample": 1.0}
        return 0
    # The same users at every run, wherever they stand in the table.
    table = served.orderBy(F.xxhash64("user_index"), "user_index").limit(2 * SAMPLE_USERS).toArrow()
    half = (len(table) + 1) // 2
    first, second = (_queries(item_index, part) for part in (table.slice(0, half), table.slice(half)))
    k = min(config.candidates, len(item_index.vectors))
    probes = config.probes or index.calibrate(item_index, *first, k, config.min_recall)
    recall = index.measure_recall(item_index, *(second if len(table) > half else first), k, probes=probes)
    draft.extra |= {"nprobe": probes, "recall_on_sample": round(recall, 4)}
    return probes


def _search_all(config: Retrieve, users: DataFrame, folder: Path, part: str, probes: int) -> int:
    """Write the part of the dataset in `folder` that holds these users' lists; the number of users.

    The tasks write the files themselves: a list of 1,000 passes through Spark number by number, which took longer than
    the search. A task that ran twice leaves two files, of which the one counts that Spark was told of.
    """
    (folder / part).mkdir()
    search = functools.partial(
        _search_partition,
        folder=str(folder),
        part=part,
        token=index.token_of(folder),
        k=config.candidates,
        probes=probes,
        batch_users=config.batch_users,
    )
    written = users.mapInArrow(search, "partition int, file string, users bigint").collect()
    if not written:  # Spark starts no task for no users at all
        pa.parquet.write_table(CANDIDATES.empty_table(), folder / part / "part-00000.parquet")
    for row in written:
        (folder / part / row["file"]).rename(folder / part / f"part-{row['partition']:05d}.parquet")
    for leftover in (folder / part).glob(f"{ATTEMPT}*"):
        leftover.unlink()
    return sum(row["users"] for row in written)


def _search_partition(
    batches: Iterable[pa.RecordBatch], *, folder: str, part: str, token: str, k: int, probes: int, batch_users: int
) -> Iterator[pa.RecordBatch]:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    item_index = index.open_index(folder, token)
    path = Path(folder) / part / f"{ATTEMPT}{context.partitionId():05d}-{secrets.token_hex(8)}"
    users = 0
    with pa.parquet.ParquetWriter(path, CANDIDATES, use_dictionary=False) as file:
        for found in search_batches(item_index, batches, k=k, probes=probes, batch_users=batch_users):
            file.write_batch(found)
            users += found.num_rows
    yield pa.RecordBatch.from_pydict(
        {
            "partition": pa.array([context.partitionId()], pa.int32()),
            "file": [path.name],
            "users": pa.array([users], pa.int64()),
        }
    )


def search_batches(
    item_index: index.ItemIndex, batches: Iterable[pa.RecordBatch], *, k: int, probes: int, batch_users: int
) -> Iterator[pa.RecordBatch]:
    """Rows of CANDIDATES for rows of (user_index, vector, consumed), at most `batch_users` at a time.

    That bounds the memory of a task, whatever the number of its users.
    """
    for batch in batches:
        for start in range(0, batch.num_rows, batch_users):
            users = batch.slice(start, batch_users)
            queries, excluded = _queries(item_index, users)
            found = index.search(item_index, queries, excluded, k, probes=probes)
            columns = [
                users.column("user_index").cast(pa.int32()),
                pa.ListArray.from_arrays(found.offsets, found.items),
                pa.ListArray.from_arrays(found.offsets, found.scores),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=CANDIDATES)


def _queries(item_index: index.ItemIndex, users: pa.RecordBatch | pa.Table) -> tuple[np.ndarray, index.Ragged]:
    """The users' vectors, and the dense indexes of what they consumed."""
    queries = vectors.matrix(users.column("vector"), item_index.vectors.shape[1])
    consumed = users.column("consumed")
    if isinstance(consumed, pa.ChunkedArray):
        consumed = consumed.combine_chunks()
    lengths = pa.compute.fill_null(pa.compute.list_value_length(consumed), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return queries, index.Ragged(offsets, item_index.dense_of[consumed.flatten().to_numpy()])
