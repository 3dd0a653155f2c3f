"""The best items of every user, in Spark: each task searches the item index for its share of the users.

The index is built once, in the dataset's folder. The tasks map it into memory, and all of a machine share one copy; so
with the users' vectors and what each has consumed (see `queries`). Spark only deals out the work. See `search` for why
the lists do not depend on how the users are divided among tasks.
"""

from __future__ import annotations

import functools
import math
import operator
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from jobs import approximate, calibration, candidate_files, carried, changed, clusters, datasets, index, vectors
from jobs.calibration import Queries
from jobs.changed import Unchanged
from jobs.datasets import Dataset, Draft
from jobs.errors import SourceError
from jobs.partitions import task_number, tasks_of
from jobs.progress import Report
from jobs.queries import open_queries, write_queries
from jobs.search import Method, Ragged, search
from schemas.config import Config, Retrieve, deciding
from schemas.tables import CANDIDATES, TEST, USER_EMBEDDINGS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SCRATCH = ".queries"
"""Folder in the dataset for what the tasks read of the users of each part; gone when all lists are found."""

SAMPLE_USERS = 512
"""Users on whom the search is calibrated; as many others measure it."""

HASH = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, Knuth's multiplier: numbers that follow each other are spread evenly."""

PARTS = (
    ("users", "users", pa.dataset.scalar(True)),
    ("evaluation", "evaluation_users", pa.dataset.field("split") < TEST),
)
"""Each part of the dataset, the part of `embeddings` it is made from, and the interactions that may be known."""


def run(config: Config, day: str, spark: SparkSession) -> Report:
    """Write `candidates`: the dense item order, the index, and the best items of users and of evaluation users.

    With `retrieve.changed_only` lists of an earlier version that need no search are carried over. The dataset is known
    by the same fingerprint: its lists are the same, or with an approximate method as good.

    Raises:
        BadVectorsError: an embedding is NaN or infinite.
        SourceError: the catalogue is empty.
    """
    started = time.monotonic()
    prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
    embeddings = datasets.open_dataset(config.paths.workspace, day, "embeddings")
    with datasets.step(
        config.paths.workspace, day, "candidates", inputs=[prepared, embeddings], settings=[deciding(config.retrieve)]
    ) as draft:
        if draft.is_complete:
            return Report(step="retrieve", day=day, skipped=True, rows=draft.rows)
        unchanged, details = _build_index(config, prepared, embeddings, draft)
        method = _calibrate(config.retrieve, prepared, embeddings, draft)
        ready = time.monotonic()
        for part, source, known in PARTS:
            left = None
            if unchanged is not None and part == carried.PART:
                left = carried.carry_over(spark, config.retrieve, unchanged, draft.path)
                details |= {"carried": int(np.count_nonzero(~left)), "searched": int(np.count_nonzero(left))}
            scratch = draft.path / SCRATCH / part
            scratch.mkdir(parents=True)
            draft.rows[part] = write_queries(
                scratch,
                embeddings.part(source),
                prepared.part("interactions") if config.retrieve.consumed == "drop" else None,
                known=known,
                dimensions=_open(draft.path).vectors.shape[1],
                wanted=left,
            )
        _search_all(spark, config.retrieve, draft, method)
        shutil.rmtree(draft.path / SCRATCH)
        draft.rows[carried.PART] += int(details.get("carried", 0))
        shutil.rmtree(draft.path / carried.SCRATCH, ignore_errors=True)
        said = draft.extra | details | {"seconds_before_search": round(ready - started, 1)}
        if details:
            draft.extra[datasets.CHANGED_ONLY] = details
    return Report(step="retrieve", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=said)


def _build_index(
    config: Config, prepared: Dataset, embeddings: Dataset, draft: Draft
) -> tuple[Unchanged | None, dict[str, str | int]]:
    """Write order.npy and the other files of the index; what is as it was, where lists are carried over, or why not."""
    items = prepared.arrow("items").count_rows()
    if items == 0:
        raise SourceError("there are no items to choose from", hint="check data.items and data.interactions")
    item_vectors = vectors.gather(embeddings.part("items"), "item", items)
    draft.rows["items"] = items
    details: dict[str, str | int] = {}
    unchanged = None
    if config.retrieve.changed_only:
        earlier, why = changed.find_earlier(config, embeddings)
        if earlier is None:
            details["nothing_carried"] = why
        else:
            scratch, dropped = draft.path / carried.SCRATCH, config.retrieve.consumed == "drop"
            scratch.mkdir()
            draft.also_read = earlier
            unchanged = changed.compare(earlier, prepared, embeddings, item_vectors, scratch, consumed=dropped)
    if unchanged is not None and unchanged.has_all_items:
        for path in unchanged.candidates.path.iterdir():
            if path.is_file() and path.name != datasets.MANIFEST:
                shutil.copyfile(path, draft.path / path.name)  # the same vectors give the same index
        return unchanged, details
    grouped = clusters.cluster(item_vectors, config.retrieve.lists or clusters.default_clusters(items))
    order = clusters.dense_order(grouped)
    index.build(draft.path, item_vectors, order, grouped.of_item[order])
    if config.retrieve.method in ("hnsw", "ivfpq"):
        approximate.build(_open(draft.path), config.retrieve.method)
    return unchanged, details


def _open(folder: Path) -> index.ItemIndex:
    return index.open_index(str(folder), index.token_of(folder))


def _calibrate(config: Retrieve, prepared: Dataset, embeddings: Dataset, draft: Draft) -> Method:
    """How to search; what it finds is measured on users it was not calibrated on, and goes into the manifest."""
    item_index = _open(draft.path)
    sample = _sample(embeddings.part("users"), 2 * SAMPLE_USERS)
    sample = sample.filter(pa.array(~vectors.bad_rows(sample.column("vector"), item_index.vectors.shape[1])))
    rows = np.arange(len(sample))
    halves = (rows[::2], rows[1::2] if len(rows) > 1 else rows)
    first, second = (_sampled(config, item_index, prepared, sample.take(pa.array(half))) for half in halves)
    k = min(config.candidates, len(item_index.vectors))
    method, facts = calibration.choose(item_index, first, second, k, config)
    draft.extra |= facts
    return method


def _sample(users: Path, rows: int) -> pa.RecordBatch:
    """(user_index, vector) of the users of lowest hash, in that order: the same wherever they stand in the table."""
    lowest = pa.RecordBatch.from_pylist([], schema=USER_EMBEDDINGS)
    for batch in pa.dataset.dataset(users, format="parquet").to_batches(columns=USER_EMBEDDINGS.names):
        both = pa.concat_batches([lowest, batch.cast(USER_EMBEDDINGS)])
        hashes = both.column("user_index").to_numpy().astype(np.uint64) * HASH
        lowest = both.take(pa.array(np.argsort(hashes, kind="stable")[:rows]))
    return lowest


def _sampled(config: Retrieve, item_index: index.ItemIndex, prepared: Dataset, users: pa.RecordBatch) -> Queries:
    """The vectors of a few users, and what they consumed."""
    found = vectors.matrix(users.column("vector"), item_index.vectors.shape[1])
    if config.consumed == "keep":
        return Queries(found, Ragged(np.zeros(len(found) + 1, dtype=np.int64), np.empty(0, dtype=np.int32)))
    own = users.column("user_index")
    pairs = prepared.arrow("interactions").to_table(
        columns=["user_index", "item_index"],
        filter=pa.dataset.field("consumed") & pa.dataset.field("user_index").isin(own),
    )
    row = pa.compute.index_in(pairs["user_index"], value_set=own).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(found)))]).astype(np.int64)
    items = pairs["item_index"].to_numpy()[np.argsort(row, kind="stable")]
    return Queries(found, Ragged(offsets, item_index.dense_of[items]))


def _search_all(spark: SparkSession, config: Retrieve, draft: Draft, method: Method) -> None:
    """Write the parts of the dataset: the lists of the users in SCRATCH.

    The tasks write the files themselves, see `candidate_files`. All parts are one job of Spark's: one more takes half a
    second however little there is to do.
    """
    folder = draft.path
    # A number of our own: Spark would put a small table into one task, however long its search takes.
    tasks = tasks_of(spark)
    work: list[tuple[int, str, int, int]] = []
    for part, _, _ in PARTS:
        (folder / part).mkdir(exist_ok=True)
        users = draft.rows[part]
        size = min(config.batch_users, max(1, math.ceil(users / tasks)))
        work += [(n % tasks, part, at, min(at + size, users)) for n, at in enumerate(range(0, users, size))]
        if users == 0:
            with candidate_files.open_writer(folder / part / f"part-00000{candidate_files.SUFFIX}"):
                pass
    task = functools.partial(
        _search_partition, folder=str(folder), token=index.token_of(folder), k=config.candidates, method=method
    )
    written = []
    if work:
        dealt = spark.createDataFrame(work, "task int, part string, start bigint, stop bigint")
        dealt = dealt.repartitionById(tasks, "task")
        written = dealt.mapInArrow(task, "part string, partition int, file string").collect()
    for part, _, _ in PARTS:
        own = [(row["partition"], row["file"]) for row in written if row["part"] == part]
        candidate_files.name_files(folder / part, "part", own)


def _search_partition(
    batches: Iterable[pa.RecordBatch], *, folder: str, token: str, k: int, method: Method
) -> Iterator[pa.RecordBatch]:
    """A task's share: one file for each part that it has users of."""
    item_index, number = index.open_index(folder, token), task_number()
    pieces = sorted((row for batch in batches for row in batch.to_pylist()), key=operator.itemgetter("start"))
    for part in sorted({piece["part"] for piece in pieces}):
        queries = open_queries(Path(folder) / SCRATCH / part)
        path = candidate_files.attempt_in(Path(folder) / part, number)
        own = (piece for piece in pieces if piece["part"] == part)
        with candidate_files.open_writer(path) as file:
            for piece in own:
                users, some = queries.take(piece["start"], piece["stop"], item_index.dense_of)
                file.write_batch(search_users(item_index, users, some, k, method))
        yield pa.RecordBatch.from_pydict(
            {"part": [part], "partition": pa.array([number], pa.int32()), "file": [path.name]}
        )


def search_users(
    item_index: index.ItemIndex, users: np.ndarray, queries: Queries, k: int, method: Method
) -> pa.RecordBatch:
    """Rows of CANDIDATES for the users, int32[m] user_index, and their queries."""
    found = search(item_index, *queries, k, method)
    columns = [
        pa.array(users, pa.int32()),
        pa.ListArray.from_arrays(found.offsets, found.items),
        pa.ListArray.from_arrays(found.offsets, found.scores),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CANDIDATES)
