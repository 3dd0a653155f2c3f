"""The Spark job as a whole: `shortlist retrieve` on datasets of given vectors, timed, and the memory of its workers."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from jobs import datasets, retrieve
from schemas import tables
from schemas.config import Config, Paths, Retrieve

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = "2026-03-02"
FILES = 4
JUDGED = 100
"""Users with a list for evaluation too."""
CONSUMED = 10
"""Items that each user has consumed, none of which may be found."""


class Job(NamedTuple):
    """What a run took."""

    seconds: float  # all of it, from the embeddings to the synced dataset
    index_seconds: float  # of these, until the searches began: clusters, index, calibration
    worker_megabytes: float  # memory of its own of the largest Python worker; what is mapped is shared


def measure_job(spark: SparkSession, folder: Path, items: np.ndarray, users: np.ndarray, k: int) -> Job:
    """Run `retrieve` once for these vectors; the session is warm."""
    workspace = folder / "workspace"
    _write_inputs(workspace, items, users)
    config = Config(paths=Paths(workspace=str(workspace), store=str(folder / "store")), retrieve=Retrieve(candidates=k))
    try:
        with _watched_workers() as peak:
            report = retrieve.run(config, DAY, spark)
        assert report.rows["users"] == len(users)
        return Job(report.seconds, report.details["seconds_before_search"], peak[0] / 2**20)
    finally:
        shutil.rmtree(workspace)


def _write_inputs(workspace: Path, items: np.ndarray, users: np.ndarray) -> None:
    """The two datasets that the job reads, as `prepare` and `embed` would leave them."""
    rng = np.random.default_rng(4)
    with datasets.step(workspace, DAY, "prepared") as draft:
        pairs = len(users) * CONSUMED
        user = np.repeat(np.arange(len(users), dtype=np.int32), CONSUMED)
        item = (len(items) * rng.random(pairs) ** 3).astype(np.int32)
        texts = pa.array(["view"]).take(pa.array(np.zeros(pairs, dtype=np.int32)))
        none = pa.nulls(pairs, pa.string())
        columns = [user, item, texts, np.ones(pairs, dtype=np.float32), np.zeros(pairs, dtype=np.int64), none, none]
        columns += [np.ones(pairs, dtype=bool), np.zeros(pairs, dtype=np.int8)]
        _write(draft.path / "interactions", columns, tables.INTERACTIONS)
        catalogue = {"item_index": pa.array(np.arange(len(items), dtype=np.int32))}
        catalogue["interactions"] = pa.array(np.bincount(item, minlength=len(items)))
        (draft.path / "items").mkdir()
        pa.parquet.write_table(pa.table(catalogue), draft.path / "items" / "part-0.parquet")
    with datasets.step(workspace, DAY, "embeddings") as draft:
        _write(draft.path / "items", [np.arange(len(items), dtype=np.int32), _lists(items)], tables.ITEM_EMBEDDINGS)
        _write(draft.path / "users", [np.arange(len(users), dtype=np.int32), _lists(users)], tables.USER_EMBEDDINGS)
        few = users[:JUDGED]
        _write(
            draft.path / "evaluation_users", [np.arange(len(few), dtype=np.int32), _lists(few)], tables.USER_EMBEDDINGS
        )


def _lists(vectors: np.ndarray) -> pa.ListArray:
    offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1)))


def _write(folder: Path, columns: list, schema: pa.Schema) -> None:
    folder.mkdir()
    table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema)
    step = max(1, -(-len(table) // FILES))
    for number, start in enumerate(range(0, max(len(table), 1), step)):
        pa.parquet.write_table(table.slice(start, step), folder / f"part-{number}.parquet")


@contextmanager
def _watched_workers() -> Iterator[list[int]]:
    """The most bytes of anonymous memory that one of Spark's Python workers had, looked at twice a second."""
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max([peak[0], *_anonymous_bytes()])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _anonymous_bytes() -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"pyspark.daemon" in (process / "cmdline").read_bytes():
                status = (process / "status").read_text()
                yield int(status.split("RssAnon:")[1].split()[0]) * 1024
        except (OSError, IndexError):  # it has ended
            continue
