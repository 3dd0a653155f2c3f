"""How far a mean over users might be off: intervals by resampling the users."""

from __future__ import annotations

import math

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 20_261_126
BLOCK = 2048
GRID = 2.0**24
"""Values are rounded to multiples of 1 / GRID, so that float64 adds them without rounding: the intervals depend neither
on the order of the users nor on the BLAS and its threads."""


def _poisson_table() -> np.ndarray:
    """uint8[65536]: how often a user is drawn, for each value of 16 random bits. Poisson with mean 1, to 1 / 65536."""
    chances = np.cumsum([math.exp(-1) / math.factorial(count) for count in range(12)])
    return np.searchsorted(chances, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.uint8)


DRAWN = _poisson_table()


def intervals(values: np.ndarray) -> np.ndarray:
    """float64[columns, 2]: for each column's mean over users the interval that holds it with the chance CONFIDENCE.

    The percentile interval of the bootstrap. Each resample draws each user a number of times that is Poisson with mean
    1, the same for all columns; so the interval of a column of differences is a paired one. Users are passed over once,
    a block at a time, whatever their number.

    Args:
        values: float64[users, columns], in an order that does not change from run to run; NaN where a user does not
            count. A column without anybody has the interval NaN.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3; the Poisson draws: Chamandy et
    al., "Estimating Uncertainty for Massive Data Streams", 2012.
    """
    random = np.random.default_rng(SEED)
    users, columns = values.shape
    sums, counts = np.zeros((RESAMPLES, columns)), np.zeros((RESAMPLES, columns))
    for start in range(0, users, BLOCK):
        block = values[start : start + BLOCK]
        drawn = DRAWN[random.integers(0, 1 << 16, (RESAMPLES, len(block)), dtype=np.uint16)].astype(np.float64)
        sums += drawn @ np.rint(np.nan_to_num(block) * GRID)
        counts += drawn @ (~np.isnan(block)).astype(np.float64)
    found = np.full((columns, 2), np.nan)
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    for column in range(columns):
        is_drawn = counts[:, column] > 0  # nobody of a very small segment may be
        if is_drawn.any():
            found[column] = np.quantile(sums[is_drawn, column] / counts[is_drawn, column] / GRID, tails)
    return found
