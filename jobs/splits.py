"""Which interactions train, which choose the epoch, which judge; and the k-core filter before that."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.datasets import DAY_SECONDS
from schemas.data_config import Split
from schemas.tables import TEST, TRAIN, VALIDATION


def split(interactions: DataFrame, config: Split, made_at: int) -> DataFrame:
    """Add `split`. Needs the columns user_index, item_index, event, weight, time, session_id, device; rows must be
    unique.

    `time`: the last days before `made_at` are held out. `per_user`: the last interactions of each user are, ties in
    time broken by the other columns; a user who would have none left to train on keeps them all there. What weighs
    nothing is not counted, and goes with the one before it.
    """
    dates = boundaries(config, made_at)
    if dates is not None:
        return interactions.withColumn("split", _by_time(*dates))
    order = ["time", "item_index", "event", "session_id", "device"]
    last_first = Window.partitionBy("user_index").orderBy(*[F.col(name).desc_nulls_last() for name in order])
    later = last_first.rowsBetween(Window.unboundedPreceding, -1)
    counts = (F.col("weight") > 0).cast("int")
    held_out = config.test_per_user + config.validation_per_user
    rank = F.col("_rank") + F.when(F.col("_of") <= held_out, held_out).otherwise(0)
    named = (
        F.when(rank <= config.test_per_user, TEST).when(rank <= held_out, VALIDATION).otherwise(TRAIN).cast("tinyint")
    )
    return (
        interactions.withColumn("_rank", F.coalesce(F.sum(counts).over(later), F.lit(0)) + 1)
        .withColumn("_of", F.sum(counts).over(Window.partitionBy("user_index")))
        .withColumn("split", named)
        .drop("_rank", "_of")
    )


def boundaries(config: Split, made_at: int) -> tuple[int, int] | None:
    """(validation from, test from) in epoch seconds; None when the split is not by time."""
    if config.strategy != "time":
        return None
    test_from = made_at - config.test_days * DAY_SECONDS
    return test_from - config.validation_days * DAY_SECONDS, test_from


def core(
    interactions: DataFrame, min_user: int, min_item: int, keep: Callable[[DataFrame, str], DataFrame]
) -> DataFrame:
    """Leave out users and items with too few rows, until nobody has too few.

    Args:
        keep: writes a table down under a name and reads it back, so that a round does not repeat the ones before.
    """
    limits = [(column, least) for column, least in (("user_id", min_user), ("item_id", min_item)) if least > 1]
    done, rounds = not limits, 0
    while not done:
        done = True
        for column, least in limits:
            few = keep(
                interactions.groupBy(column).count().where(F.col("count") < least).select(column), f"few-{rounds}"
            )
            rounds += 1
            if not few.isEmpty():
                done = False
                interactions = keep(interactions.join(few, column, "left_anti"), f"core-{rounds}")
    return interactions


def _by_time(validation_from: int, test_from: int) -> Column:
    time = F.col("time")
    named = F.when(time >= test_from, TEST).when(time >= validation_from, VALIDATION).otherwise(TRAIN)
    return named.cast("tinyint")
