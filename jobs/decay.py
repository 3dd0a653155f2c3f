"""How much an interaction still weighs at the end of the day, in whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jobs.datasets import DAY_SECONDS

if TYPE_CHECKING:
    from pyspark.sql import Column

UNITS = 1 << 30
"""Weights are summed as whole numbers of 2^-30: sums of those do not depend on the order of the additions."""


def decayed(half_life_days: float, end: int) -> Column:
    """The weight of an interaction at `end`, in units; it halves with every half life. Reads `weight` and `time`."""
    from pyspark.sql import functions as F

    age = F.greatest(F.lit(0), F.lit(end) - F.col("time")) / (half_life_days * DAY_SECONDS)
    # Not `round`, which makes a decimal number of each: three times as long for the whole sum.
    return F.rint(F.col("weight").cast("double") * F.pow(F.lit(0.5), age) * UNITS).cast("bigint")


def halved(weight: np.ndarray | float, age: np.ndarray, half_life_days: float) -> np.ndarray:
    """int64[n]: the same of interactions that are `age` seconds old; below 0 counts as 0."""
    halvings = np.maximum(0, age) / (half_life_days * DAY_SECONDS)
    return np.rint(weight * np.exp2(-halvings) * UNITS).astype(np.int64)
