"""The best items of every user, in Spark: each task searches the item index for its share of the users.

The index is built once, in the dataset's folder, and memory-mapped by the tasks: all of a machine share one copy. A
user's vector and consumed items travel as Arrow batches. See `search` for why the lists do not depend on how the users
are divided among tasks.
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

from jobs import approximate, calibration, clusters, datasets, index, vectors
from jobs.calibration import Queries
from jobs.datasets import Dataset, Draft
from jobs.errors import SourceError
from jobs.progress import Report
from jobs.search import Method, Ragged, search
from schemas.config import Config, Retrieve
from schemas.tables import CANDIDATES, TEST

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SAMPLE_USERS = 512
"""Users on whom the search is calibrated; as many others measure it."""

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
        _build_index(config.retrieve, prepared, embeddings, draft)
        served, judged = (spark.read.parquet(str(embeddings.part(part))) for part in ("users", "evaluation_users"))
        method = _calibrate(spark, config.retrieve, draft, served, prepared)
        ready = time.monotonic()
        for part, users, known in (("users", served, "true"), ("evaluation", judged, f"split < {TEST}")):
            # A number of our own: Spark would put a small table into one task, however long its search takes.
            tasks = int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
            queries = _with_consumed(
                spark, config.retrieve, users.repartition(tasks, "user_index"), prepared, known=known
            )
            draft.rows[part] = _search_all(config.retrieve, queries, draft.path, part, method)
    details = draft.extra | {"seconds_before_search": round(ready - started, 1)}
    return Report(step="retrieve", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=details)


def _build_index(config: Retrieve, prepared: Dataset, embeddings: Dataset, draft: Draft) -> None:
    """Write order.npy and the other files of the index."""
    catalogue = pa.dataset.dataset(prepared.part("items"), format="parquet").to_table(
        columns=["item_index", "interactions"]
    )
    items = len(catalogue)
    if items == 0:
        raise SourceError("there are no items to choose from", hint="check data.items and data.interactions")
    popularity = np.zeros(items, dtype=np.int64)
    popularity[catalogue["item_index"].to_numpy()] = catalogue["interactions"].to_numpy()
    item_vectors = vectors.gather(embeddings.part("items"), "item", items)
    grouped = clusters.cluster(item_vectors, config.lists or clusters.default_clusters(items))
    order = clusters.dense_order(grouped, popularity)
    index.build(draft.path, item_vectors, order, grouped.of_item[order])
    if config.method in ("hnsw", "ivfpq"):
        approximate.build(_open(draft.path), config.method)
    draft.rows["items"] = items


def _open(folder: Path) -> index.ItemIndex:
    return index.open_index(str(folder), index.token_of(folder))


def _with_consumed(
    spark: SparkSession, config: Retrieve, users: DataFrame, prepared: Dataset, *, known: str, few: bool = False
) -> DataFrame:
    """(user_index, vector, consumed): one row per user; `known` says which interactions may be looked at."""
    from pyspark.sql import functions as F

    if config.consumed == "keep":
        return users.withColumn("consumed", F.array().cast("array<int>"))
    pairs = spark.read.parquet(str(prepared.part("interactions"))).where(f"consumed and {known}")
    if few:
        pairs = pairs.join(F.broadcast(users.select("user_index")), "user_index", "left_semi")
    consumed = pairs.groupBy("user_index").agg(F.collect_list("item_index").alias("consumed"))
    return users.join(consumed, "user_index", "left")


def _calibrate(spark: SparkSession, config: Retrieve, draft: Draft, served: DataFrame, prepared: Dataset) -> Method:
    """How to search; what it finds is measured on users it was not calibrated on, and goes into the manifest."""
    from pyspark.sql import functions as F

    item_index = _open(draft.path)
    # The same users at every run, wherever they stand in the table.
    chosen = served.select("user_index").orderBy(F.xxhash64("user_index"), "user_index").limit(2 * SAMPLE_USERS)
    sample = served.join(F.broadcast(chosen), "user_index")
    table = _with_consumed(spark, config, sample, prepared, known="true", few=True).toArrow()
    is_good = ~_is_bad(table["vector"].combine_chunks(), item_index.vectors.shape[1])
    table = table.filter(pa.array(is_good)).sort_by("user_index").combine_chunks()
    first, second = (
        _queries(item_index, table.take(np.arange(start, len(table), 2))) for start in (0, 1 if len(table) > 1 else 0)
    )
    k = min(config.candidates, len(item_index.vectors))
    method, facts = calibration.choose(item_index, first, second, k, config)
    draft.extra |= facts
    return method


def _search_all(config: Retrieve, users: DataFrame, folder: Path, part: str, method: Method) -> int:
    """Write the part of the dataset in `folder` that holds these users' lists; the number of users.

    The tasks write the files themselves: a list of 1,000 passes through Spark number by number, which took longer than
    the search. A task that ran twice leaves two files, of which the one counts that Spark was told of.
    """
    (folder / part).mkdir()
    task = functools.partial(
        _search_partition,
        folder=str(folder),
        part=part,
        token=index.token_of(folder),
        k=config.candidates,
        method=method,
        batch_users=config.batch_users,
    )
    written = users.mapInArrow(task, "partition int, file string, users bigint, bad bigint, first int").collect()
    bad = sum(row["bad"] for row in written)
    if bad:
        raise vectors.bad_vectors(bad, "user", min(row["first"] for row in written if row["bad"]))
    if not written:  # Spark starts no task for no users at all
        pa.parquet.write_table(CANDIDATES.empty_table(), folder / part / "part-00000.parquet")
    for row in written:
        (folder / part / row["file"]).rename(folder / part / f"part-{row['partition']:05d}.parquet")
    for leftover in (folder / part).glob(f"{ATTEMPT}*"):
        leftover.unlink()
    return sum(row["users"] for row in written)


def _search_partition(
    batches: Iterable[pa.RecordBatch],
    *,
    folder: str,
    part: str,
    token: str,
    k: int,
    method: Method,
    batch_users: int,
) -> Iterator[pa.RecordBatch]:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    item_index = index.open_index(folder, token)
    path = Path(folder) / part / f"{ATTEMPT}{context.partitionId():05d}-{secrets.token_hex(8)}"
    users, bad = 0, np.empty(0, dtype=np.int32)
    # Lists of numbers near random: compressing them took longer than writing them.
    with pa.parquet.ParquetWriter(
        path, CANDIDATES, use_dictionary=False, compression="none", write_statistics=["user_index"]
    ) as file:
        for some in chunks(batches, batch_users):
            is_bad = _is_bad(some.column("vector"), item_index.vectors.shape[1])
            bad = np.append(bad, some.column("user_index").to_numpy()[is_bad])
            if len(bad):
                continue  # the job fails; what is left to do is to count them all
            file.write_batch(search_users(item_index, some, k, method))
            users += some.num_rows
    yield pa.RecordBatch.from_pydict(
        {
            "partition": pa.array([context.partitionId()], pa.int32()),
            "file": [path.name],
            "users": pa.array([users], pa.int64()),
            "bad": pa.array([len(bad)], pa.int64()),
            "first": pa.array([bad.min(initial=np.iinfo(np.int32).max)], pa.int32()),
        }
    )


def chunks(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows, `rows` at a time: what bounds the memory of a task, whatever the number of its users."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        left = batch
        while count + left.num_rows >= rows:
            held.append(left.slice(0, rows - count))
            left = left.slice(rows - count)
            yield pa.concat_batches(held)
            held, count = [], 0
        if left.num_rows:
            held.append(left)
            count += left.num_rows
    if held:
        yield pa.concat_batches(held)


def search_users(item_index: index.ItemIndex, users: pa.RecordBatch, k: int, method: Method) -> pa.RecordBatch:
    """Rows of CANDIDATES for rows of (user_index, vector, consumed)."""
    found = search(item_index, *_queries(item_index, users), k, method)
    columns = [
        users.column("user_index").cast(pa.int32()),
        pa.ListArray.from_arrays(found.offsets, found.items),
        pa.ListArray.from_arrays(found.offsets, found.scores),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CANDIDATES)


def _is_bad(column: pa.ListArray, dimensions: int) -> np.ndarray:
    """bool[n]: the vectors that are missing, of another length, or hold a number that is none or too large."""
    lengths = pa.compute.fill_null(pa.compute.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    is_bad = lengths != dimensions
    values = column.filter(pa.array(~is_bad)).flatten().to_numpy(zero_copy_only=False).reshape(-1, dimensions)
    with np.errstate(invalid="ignore"):
        is_bad[~is_bad] = ~(np.abs(values) <= vectors.LARGEST).all(axis=1)
    return is_bad


def _queries(item_index: index.ItemIndex, users: pa.RecordBatch | pa.Table) -> Queries:
    """The users' vectors, and the dense indexes of what they consumed."""
    found = vectors.matrix(users.column("vector"), item_index.vectors.shape[1])
    consumed = users.column("consumed")
    if isinstance(consumed, pa.ChunkedArray):
        consumed = consumed.combine_chunks()
    lengths = pa.compute.fill_null(pa.compute.list_value_length(consumed), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Queries(found, Ragged(offsets, item_index.dense_of[consumed.flatten().to_numpy()]))
