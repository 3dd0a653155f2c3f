"""The items most often met in one session with each item: sessions by Spark, then counted in whole numbers.

A pair scores its sessions divided by the geometric mean of the sessions of either item: the cosine of two columns of a
table of sessions and items. Each score is computed once, from three whole numbers, so it is the same whatever the
partitioning.

Only the sessions come from Spark: pairs are many times as many, and to shuffle them took longer than all other steps of
a night together.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.dataset

from jobs import padded, pairs
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
    _sessions(interactions, config.session_gap_minutes * 60).write.parquet(str(scratch / "sessions"))
    sessions = _mapped(scratch)
    numbers = np.memmap(scratch / "numbers", np.uint32, "w+", shape=max(1, len(sessions.values)))
    sessions_of = pairs.turned(sessions, len(dense_of), numbers)
    paths = folder / "together.npy", folder / "together_scores.npy"
    found = pairs.best(sessions, sessions_of, config.neighbours, SHRINKAGE)
    padded.save(paths, (len(dense_of), config.neighbours), _places(found, dense_of))
    shutil.rmtree(scratch)


def _sessions(interactions: DataFrame, gap_seconds: float) -> DataFrame:
    """(items): the distinct items of the last interactions of each session.

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
        .agg(F.collect_set("item_index").alias("items"))
        .select("items")
    )


def _mapped(scratch: Path) -> pairs.Lists:
    """The sessions, their items in a mapped file: of these there may be as many as interactions."""
    lengths = [np.zeros(1, np.int64)]
    with (scratch / "items").open("wb") as items:
        for batch in pyarrow.dataset.dataset(scratch / "sessions", format="parquet").to_batches():
            lengths.append(np.diff(batch.column("items").offsets.to_numpy()).astype(np.int64))
            batch.column("items").flatten().to_numpy().astype(np.int32, copy=False).tofile(items)
    starts = np.cumsum(np.concatenate(lengths))
    if not starts[-1]:
        return pairs.Lists(starts, np.empty(0, np.int32))
    return pairs.Lists(starts, np.memmap(scratch / "items", np.int32, "r"))


def _places(found: Iterator[pairs.Best], dense_of: np.ndarray) -> Iterator[padded.Places]:
    for part in found:
        rows, columns = np.nonzero(np.arange(part.others.shape[1]) < part.counts[:, None])
        item, other = dense_of[part.first + rows], dense_of[part.others[rows, columns]]
        yield padded.Places(item, columns, other, part.scores[rows, columns])
