"""Which share of the weight of an item's interactions is recent: near 1 for a new or rising item."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.decay import UNITS, decayed
from schemas.config import Lists

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PRIOR = 10.0
"""Old weight added to every item, in interactions of weight 1 at the end of the day, so that a few views do not stand
out. An item of ten views, all of today, comes to a half."""


def write(interactions: DataFrame, config: Lists, end: int, dense_of: np.ndarray, folder: Path) -> None:
    """trend.npy: float32[items] by dense index, from 0 to 1; 0 where there was no interaction."""
    from pyspark.sql import functions as F

    half_lives = {"popular": config.popular_half_life_days, "recent": config.trending_half_life_days}
    sums = (
        interactions.groupBy("item_index")
        .agg(*(F.sum(decayed(half_life, end)).alias(name) for name, half_life in half_lives.items()))
        .toArrow()
    )
    popular, recent = (sums[name].to_numpy() / UNITS for name in half_lives)
    trend = np.zeros(len(dense_of), np.float32)
    # The half lives are settings: were the recent one the longer one, the share could be above 1.
    trend[dense_of[sums["item_index"].to_numpy()]] = np.minimum(recent / (popular + PRIOR), 1)
    np.save(folder / "trend.npy", trend)
