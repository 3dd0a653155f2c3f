"""The items most often met in one session with each item. Counted in Spark, in whole numbers, for every item at once.

A pair scores its sessions divided by the geometric mean of the sessions of either item: the cosine of two columns of a
table of sessions and items. Each score is computed once, from three whole numbers, so it is the same whatever the
partitioning.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.dataset

from jobs import padded
from schemas.config import Lists

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SESSION_EVENTS = 50
"""Last interactions of a session that count. Pairs grow with the square: this bounds a session's at 1,225, so that
robots, and tables whose times say nothing, do not decide how long it takes."""
SHRINKAGE = 5.0
"""Sessions that the geometric mean is raised by: two items met once, and together, score 1/6, not 1."""


def write(interactions: DataFrame, config: Lists, dense_of: np.ndarray, folder: Path) -> None:
    """together.npy and together_scores.npy: the best `lists.neighbours` of each item, by dense index.

    Interactions of weight 0 say nothing here, as everywhere.
    """
    scratch = folder / ".together"
    met = _sessions(interactions, config.session_gap_minutes * 60).persist()
    try:
        _best(met, config.neighbours).write.parquet(str(scratch))
    finally:
        met.unpersist()
    paths = folder / "together.npy", folder / "together_scores.npy"
    padded.save(paths, (len(dense_of), config.neighbours), _places(scratch, dense_of))
    shutil.rmtree(scratch)


def _sessions(interactions: DataFrame, gap_seconds: float) -> DataFrame:
    """(items): the distinct items of the last interactions of each session, ascending by item_index.

    A session is what one user did under one `session_id`; what has none belongs to one session as long as less than
    `gap_seconds` passes from each of the user's interactions without one to the next.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    by_time = Window.partitionBy("user_index", "session_id").orderBy("time")
    last = Window.partitionBy("user_index", "session_id", "number").orderBy(F.desc("time"), "item_index")
    pause = F.col("time") - F.lag("time").over(by_time)
    starts = F.coalesce(F.col("session_id").isNull() & (pause >= gap_seconds), F.lit(False))
    return (
        interactions.where("weight > 0")
        .select("user_index", "item_index", "time", F.expr("nullif(session_id, '')").alias("session_id"))
        .withColumn("starts", starts.cast("int"))
        .withColumn("number", F.sum("starts").over(by_time))
        .withColumn("place", F.row_number().over(last))
        .where(F.col("place") <= SESSION_EVENTS)
        .groupBy("user_index", "session_id", "number")
        .agg(F.array_sort(F.collect_set("item_index")).alias("items"))
        .select("items")
    )


def _best(met: DataFrame, length: int) -> DataFrame:
    """(item, place, other, score): the first `length` items of each, from place 1; ties by item_index.

    Args:
        met: as `_sessions` gives it. It is read more than once.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    items = met.select(F.explode("items").alias("item"))
    alone = F.broadcast(items.groupBy("item").agg(F.count("*").alias("sessions")))  # one row an item; pairs are many
    pairs = (
        met.select("items", F.posexplode("items").alias("at", "item"))
        .select("item", F.explode(F.expr("slice(items, at + 2, size(items))")).alias("other"))
        .groupBy("item", "other")
        .agg(F.count("*").alias("both"))
    )
    # Each pair was counted once, the lower item first; it is in the lists of both.
    turned = F.struct(F.col("other").alias("item"), F.col("item").alias("other"))
    mean = F.sqrt(F.col("sessions").cast("double") * F.col("other_sessions").cast("double"))
    ordered = Window.partitionBy("item").orderBy(F.desc("score"), "other")
    return (
        pairs.select("both", F.inline(F.array(F.struct("item", "other"), turned)))
        .join(alone, "item")
        .join(alone.withColumnsRenamed({"item": "other", "sessions": "other_sessions"}), "other")
        .select("item", "other", (F.col("both").cast("double") / (mean + SHRINKAGE)).alias("score"))
        .withColumn("place", F.row_number().over(ordered))
        .where(F.col("place") <= length)
        .select("item", "place", "other", F.col("score").cast("float").alias("score"))
    )


def _places(found: Path, dense_of: np.ndarray) -> Iterator[padded.Places]:
    for batch in pyarrow.dataset.dataset(found, format="parquet").to_batches():
        item, place, other, score = (batch.column(name).to_numpy() for name in ("item", "place", "other", "score"))
        yield padded.Places(dense_of[item], place - 1, dense_of[other], score)
