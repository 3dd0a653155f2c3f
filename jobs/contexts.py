"""How much more often than usual each item is met at an hour of the day, on a weekday, on a device.

The affinity of an item to a context is the base-2 logarithm of its lift: the context's share of the item's
interactions over its share of everybody's. Interactions count once each, whatever they weigh, if they weigh anything.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.dataset

from jobs.datasets import DAY_SECONDS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

HOURS, WEEKDAYS = 24, 7
MAX_DEVICES = 8
"""The devices most seen get a row each; the others count only as not being those."""
PRIOR = 20
"""Interactions added to every item's own, spread like everybody's, so that one view at night does not make an item of
the night."""

Context = tuple[str, str]


def write(interactions: DataFrame, dense_of: np.ndarray, folder: Path) -> list[Context]:
    """context.npy: float32[contexts, items] by dense index, from -1 to 1; what each row is about.

    The rows are the hours, in UTC, the weekdays from Monday on, and the devices that are seen most, most seen first
    (equally often: by name). 0 where nothing is known; an interaction without a device says nothing of devices.
    """
    known = interactions.where("weight > 0")
    devices = _most_seen(known)
    counts = _count(known, devices, dense_of, folder / ".contexts")
    kinds = {
        "hour": [str(hour) for hour in range(HOURS)],
        "weekday": [str(day) for day in range(WEEKDAYS)],
        "device": devices,
    }
    names = [(kind, value) for kind, values in kinds.items() for value in values]
    path = folder / "context.npy"
    affinities = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(names), len(dense_of)))
    first = 0
    for kind, values in kinds.items():
        # Behind the last device are all the others.
        of_kind = counts[first:] if kind == "device" else counts[first : first + len(values)]
        of_item = of_kind.sum(axis=0, dtype=np.int64)  # [items]
        for row in range(len(values)):
            affinities[first + row] = affinity(of_kind[row], of_item)
        first += len(values)
    affinities.flush()
    return names


def affinity(in_context: np.ndarray, of_item: np.ndarray) -> np.ndarray:
    """float32[items], from -1 to 1: how much more often than usual each item is met in a context.

    Args:
        in_context: each item's interactions in the context.
        of_item: each item's interactions in any context of the kind.
    """
    everybody, everybody_there = int(of_item.sum()), int(in_context.sum(dtype=np.int64))
    if everybody_there == 0:
        return np.zeros(len(of_item), np.float32)
    expected = (of_item + PRIOR) * (everybody_there / everybody)  # of an item that is like everybody's
    found = in_context + PRIOR * (everybody_there / everybody)
    lift = np.where(of_item > 0, found / expected, 1)
    return np.clip(np.log2(lift), -1, 1).astype(np.float32)


def _most_seen(interactions: DataFrame) -> list[str]:
    """The devices with the most interactions, most first; equally many: by name in byte order."""
    from pyspark.sql import functions as F

    seen = interactions.where("device != ''").groupBy("device").count()
    return [row["device"] for row in seen.orderBy(F.desc("count"), "device").limit(MAX_DEVICES).collect()]


def _count(interactions: DataFrame, devices: list[str], dense_of: np.ndarray, scratch: Path) -> np.ndarray:
    """int32[hours + weekdays + devices + 1, items]: interactions by context and dense index; last, on other devices."""
    from pyspark.sql import functions as F

    time, first_device = F.col("time"), HOURS + WEEKDAYS
    hour = F.floor(F.pmod(time, F.lit(DAY_SECONDS)) / 3600)
    # The first of January 1970 was a Thursday: three days after a Monday.
    weekday = F.floor(F.pmod(time + 3 * DAY_SECONDS, F.lit(WEEKDAYS * DAY_SECONDS)) / DAY_SECONDS)
    place = F.array_position(F.array(*map(F.lit, devices)).cast("array<string>"), F.col("device"))  # from 1; 0: none
    device = F.when(F.col("device") != "", F.when(place > 0, place - 1).otherwise(len(devices)))
    contexts = F.array(hour, weekday + HOURS, device + first_device)
    (
        interactions.select("item_index", F.explode(contexts).alias("context"))
        .where("context is not null")
        .groupBy("item_index", F.col("context").cast("int").alias("context"))
        .agg(F.count("*").alias("count"))
        .write.parquet(str(scratch))
    )
    counts = np.zeros((first_device + len(devices) + 1, len(dense_of)), np.int32)
    for batch in pyarrow.dataset.dataset(scratch, format="parquet").to_batches():
        item, context, count = (batch.column(name).to_numpy() for name in ("item_index", "context", "count"))
        counts[context, dense_of[item]] = count
    shutil.rmtree(scratch)
    return counts
