"""The contestants: our search, FAISS's flat index, implicit's and Spark's. Two threads each, in the same run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import faiss
import numpy as np
import threadpoolctl

from jobs import calibration, clusters, index
from jobs.calibration import Queries
from jobs.search import Found, Method, Ragged, search
from schemas.config import Retrieve

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

THREADS = 2
BATCH = Retrieve().batch_users
SAMPLE = 512
"""Users calibrated on, as many as `retrieve` takes."""


class Ours(NamedTuple):
    """An index that is ready to search, and how it is searched."""

    index: index.ItemIndex
    order: np.ndarray  # int32[n]: the item of each dense index
    method: Method
    facts: dict[str, object]
    build_seconds: float
    calibrate_seconds: float


def prepare(folder: Path, items: np.ndarray, users: np.ndarray, k: int) -> Ours:
    """Build and calibrate on the first users."""
    folder.mkdir(parents=True)
    started = time.perf_counter()
    found = clusters.cluster(items, clusters.default_clusters(len(items)))
    order = clusters.dense_order(found)
    index.build(folder, items, order, found.of_item[order])
    built = time.perf_counter()
    opened = index.open_index(str(folder), index.token_of(folder))
    halves = [Queries(half, nothing(len(half))) for half in (users[:SAMPLE], users[SAMPLE : 2 * SAMPLE])]
    with one_blas_thread():
        method, facts = calibration.choose(opened, *halves, k, Retrieve())
    return Ours(opened, order, method, facts, built - started, time.perf_counter() - built)


def nothing(queries: int) -> Ragged:
    """Exclude nothing."""
    return Ragged(np.zeros(queries + 1, dtype=np.int64), np.empty(0, dtype=np.int32))


def find_ours(ours: Ours, users: np.ndarray, k: int) -> list[Found]:
    """Batches of users by turns on two threads, as two tasks would."""
    size = min(BATCH, -(-len(users) // THREADS))
    parts = [users[start : start + size] for start in range(0, len(users), size)]
    with one_blas_thread(), ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda part: search(ours.index, part, nothing(len(part)), k, ours.method), parts))


def flat_index(items: np.ndarray) -> faiss.IndexFlatIP:
    """FAISS's exact index."""
    faiss.omp_set_num_threads(THREADS)
    flat = faiss.IndexFlatIP(items.shape[1])
    flat.add(items)
    return flat


def recall(ours: Ours, users: np.ndarray, best: np.ndarray, k: int) -> float:
    """Share of int64[m, k], the items that the flat index found for these users, that our search finds."""
    found = [row for part in find_ours(ours, users, k) for row in np.split(part.items, part.offsets[1:-1])]
    shares = [np.isin(row, ours.order[items]).mean() for row, items in zip(best, found, strict=True)]
    return float(np.mean(shares))


def find_implicit(items: np.ndarray, users: np.ndarray, k: int) -> None:
    """implicit's top-k, as its models' recommend calls it."""
    from implicit.cpu.topk import topk

    with threadpoolctl.threadpool_limits(1, "blas"):
        topk(items, users, k, num_threads=THREADS)


def spark_als(spark: SparkSession, items: np.ndarray, users: np.ndarray, k: int) -> Callable[[], int]:
    """What asks Spark's own ALSModel, with these factors, for the best k of each of these users."""
    import pyarrow as pa
    from pyspark.ml.recommendation import ALSModel

    def frame(vectors: np.ndarray) -> object:
        numbers = pa.array(np.arange(len(vectors), dtype=np.int32))
        flat = pa.array(vectors.reshape(-1))
        offsets = pa.array(np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32))
        made = spark.createDataFrame(pa.table({"id": numbers, "features": pa.ListArray.from_arrays(offsets, flat)}))
        made = made.selectExpr("cast(id as int) id", "cast(features as array<float>) features").cache()
        made.count()
        return made._jdf

    user_factors, item_factors = frame(users), frame(items)
    java = spark.sparkContext._jvm.org.apache.spark.ml.recommendation.ALSModel  # type: ignore[union-attr]
    made = java("als", items.shape[1], user_factors, item_factors).setUserCol("user").setItemCol("item")
    model = ALSModel(made)
    subset = spark.range(len(users)).selectExpr("cast(id as int) user")

    def find() -> int:
        rows = model.recommendForUserSubset(subset, k).selectExpr("sum(size(recommendations)) n").first()
        return int(rows["n"])  # type: ignore[index]

    return find


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's matrix products on the thread that calls them; FAISS brings a BLAS of its own, which is left alone."""
    libraries = threadpoolctl.ThreadpoolController().lib_controllers
    ours = [library for library in libraries if "numpy" in library.filepath]
    before = [library.get_num_threads() for library in ours]
    for library in ours:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in zip(ours, before, strict=True):
            library.set_num_threads(threads)
