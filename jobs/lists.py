"""What is known of items for everybody: popular and trending ones, what is near or met together, trend and contexts."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from jobs import approximate, calibration, contexts, datasets, index, padded, together, trend, vectors
from jobs.datasets import Dataset, Draft
from jobs.decay import UNITS, decayed
from jobs.partitions import tasks_of
from jobs.progress import Report
from jobs.search import Method, Ragged, search
from schemas.config import Config, Lists, Retrieve, deciding
from schemas.tables import LISTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BATCH_ITEMS = 2048
SAMPLE_ITEMS = 256


def run(config: Config, day: str, spark: SparkSession) -> Report:
    """Write `lists`, all in dense indexes: lists.parquet; of each item neighbours, together, trend and context.

    Everything that happened up to the end of the day counts, held out or not: these lists are served, not judged.
    """
    started = time.monotonic()
    prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
    candidates = datasets.open_dataset(config.paths.workspace, day, "candidates")
    with datasets.step(
        config.paths.workspace,
        day,
        "lists",
        inputs=[prepared, candidates],
        settings=[config.lists, deciding(config.retrieve)],
    ) as draft:
        if draft.is_complete:
            return Report(step="lists", day=day, skipped=True, rows=draft.rows)
        dense_of = index.inverse(np.load(candidates.part("order.npy")))
        interactions, end = prepared.read(spark, "interactions"), datasets.known_until(prepared)
        ranked = _ranked(config.lists, interactions, prepared.read(spark, "users"), end).toArrow()
        lists = _as_lists(ranked, dense_of)
        pa.parquet.write_table(lists, draft.path / "lists.parquet")
        draft.rows |= {"lists": len(lists), "neighbours": len(dense_of)}
        _write_neighbours(spark, config.lists, config.retrieve, candidates, draft)
        together.write(sorted(prepared.arrow("interactions").files), config.lists, dense_of, draft.path)
        trend.write(interactions, config.lists, end, dense_of, draft.path)
        draft.extra["contexts"] = contexts.write(interactions, dense_of, draft.path)
    return Report(step="lists", day=day, rows=draft.rows, seconds=time.monotonic() - started)


def _ranked(config: Lists, interactions: DataFrame, users: DataFrame, end: int) -> DataFrame:
    """(kind, segment, place, item_index, units): the first `length` items of each list, ties by item_index."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    segments = users.select("user_index", "segment")
    large = segments.where("segment != ''").groupBy("segment").count().where(F.col("count") >= config.min_segment_users)
    members = segments.join(large.select("segment"), "segment")
    half_lives = {"popular": config.popular_half_life_days, "trending": config.trending_half_life_days}
    by_segment = (
        interactions.join(members, "user_index", "left")
        .groupBy("segment", "item_index")
        .agg(*(F.sum(decayed(half_life, end)).alias(kind) for kind, half_life in half_lives.items()))
    )
    # The users of no (large enough) segment are in the null segment here; everybody is the sum of all.
    overall = by_segment.groupBy("item_index").agg(*(F.sum(kind).alias(kind) for kind in half_lives))
    sums = by_segment.where("segment is not null").unionByName(overall.withColumn("segment", F.lit("")))
    ordered = Window.partitionBy("kind", "segment").orderBy(F.desc("units"), "item_index")
    return (
        sums.unpivot(["segment", "item_index"], list(half_lives), "kind", "units")
        .where("units > 0")
        .withColumn("place", F.row_number().over(ordered))
        .where(F.col("place") <= config.length)
    )


def _as_lists(ranked: pa.Table, dense_of: np.ndarray) -> pa.Table:
    """One row per list, sorted by kind and segment. The two lists of everybody are there even when nobody came yet."""
    ranked = ranked.sort_by([("kind", "ascending"), ("segment", "ascending"), ("place", "ascending")])
    items = dense_of[ranked["item_index"].to_numpy()]
    scores = (ranked["units"].to_numpy() / UNITS).astype(np.float32)
    starts = np.flatnonzero(ranked["place"].to_numpy() == 1)
    names = [(ranked["kind"][int(i)].as_py(), ranked["segment"][int(i)].as_py()) for i in starts]
    slices = dict(zip(names, np.split(np.arange(len(ranked)), starts[1:]), strict=True)) if names else {}
    nothing = np.empty(0, dtype=np.int64)
    rows = sorted(({("popular", ""): nothing, ("trending", ""): nothing} | slices).items())
    return pa.Table.from_pylist(
        [
            {"kind": kind, "segment": segment, "items": items[places], "scores": scores[places]}
            for (kind, segment), places in rows
        ],
        schema=LISTS,
    )


def _write_neighbours(
    spark: SparkSession, config: Lists, retrieve: Retrieve, candidates: Dataset, draft: Draft
) -> None:
    """neighbours.npy and neighbour_scores.npy: the items of largest cosine to each item, itself left out."""
    folder = draft.path / ".index"
    folder.mkdir()
    dense = np.load(candidates.part("vectors.npy"), mmap_mode="r")
    items = len(dense)
    same_lists = index.list_of(np.load(candidates.part("starts.npy")))
    index.build(folder, vectors.unit(dense), np.arange(items, dtype=np.int32), same_lists)
    token = index.token_of(folder)
    item_index = index.open_index(str(folder), token)
    if retrieve.method in ("hnsw", "ivfpq"):
        approximate.build(item_index, retrieve.method)
    method, draft.extra["search"] = calibration.choose(item_index, *_samples(item_index), config.neighbours, retrieve)
    find = functools.partial(_search_batches, folder=str(folder), token=token, k=config.neighbours, method=method)
    tasks = tasks_of(spark)
    found = spark.range(0, items, 1, tasks).mapInArrow(find, "item int, items array<int>, scores array<float>")
    found.write.parquet(str(folder / "neighbours"))
    paths = draft.path / "neighbours.npy", draft.path / "neighbour_scores.npy"
    padded.save(paths, (items, config.neighbours), _places(folder / "neighbours"))
    shutil.rmtree(folder)


def _samples(item_index: index.ItemIndex) -> tuple[calibration.Queries, calibration.Queries]:
    """Items to calibrate on, and others to measure with."""
    sample = np.unique(np.linspace(0, len(item_index.vectors) - 1, 2 * SAMPLE_ITEMS).astype(np.int32))
    halves = (sample[::2], sample[1::2] if len(sample) > 1 else sample)
    first, second = (calibration.Queries(item_index.vectors[half], _itself(half)) for half in halves)
    return first, second


def _search_batches(
    batches: Iterable[pa.RecordBatch], *, folder: str, token: str, k: int, method: Method
) -> Iterator[pa.RecordBatch]:
    item_index = index.open_index(folder, token)
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ITEMS):
            items = batch.column("id").slice(start, BATCH_ITEMS).to_numpy().astype(np.int32)
            found = search(item_index, item_index.vectors[items], _itself(items), k, method)
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(items),
                    pa.ListArray.from_arrays(found.offsets, found.items),
                    pa.ListArray.from_arrays(found.offsets, found.scores),
                ],
                names=["item", "items", "scores"],
            )


def _itself(items: np.ndarray) -> Ragged:
    return Ragged(np.arange(len(items) + 1, dtype=np.int64), items)


def _places(found: Path) -> Iterator[padded.Places]:
    for batch in pa.dataset.dataset(found, format="parquet").to_batches():
        lengths = np.diff(batch.column("items").offsets.to_numpy())
        row = np.repeat(batch.column("item").to_numpy(), lengths)
        column = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield padded.Places(
            row, column, batch.column("items").flatten().to_numpy(), batch.column("scores").flatten().to_numpy()
        )
