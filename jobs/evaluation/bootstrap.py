"""How far a mean over users might be off: intervals by resampling the users."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

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


class Means(NamedTuple):
    """Of the columns of one question; NaN where no user counts."""

    means: np.ndarray
    """float64[columns]"""
    ends: np.ndarray
    """float64[columns, 2]: the interval that holds the mean with the chance CONFIDENCE."""


ValuesOf = Callable[[slice], np.ndarray]
"""float64[users, columns] for a slice of the users of a question; NaN where a user does not count."""


class Bootstrap:
    """Means over users with their intervals: any number of questions, answered in one pass over the users.

    The percentile interval of the bootstrap. Each resample draws each user a number of times that is Poisson with mean
    1, the same for all questions; so the interval of a column of differences is a paired one.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3; the Poisson draws: Chamandy et
    al., "Estimating Uncertainty for Massive Data Streams", 2012.
    """

    def __init__(self, users: np.ndarray) -> None:
        """`users` is int[n], ascending: everybody whom a question may be about."""
        self._users = users
        self._questions: list[_Question] = []

    def ask(self, users: np.ndarray, values_of: ValuesOf) -> None:
        """Ask for the means of some columns; `users` is int[n], ascending, some of the users or all."""
        columns = values_of(slice(0, 0)).shape[1]
        self._questions.append(_Question(np.searchsorted(self._users, users), columns, values_of))

    def answers(self) -> list[Means]:
        """The answers, in the order in which they were asked for. Requires: one was."""
        ends = np.cumsum([question.columns for question in self._questions])
        columns = int(ends[-1])
        random = np.random.default_rng(SEED)
        total, count = np.zeros(columns), np.zeros(columns)
        sums, counts = np.zeros((RESAMPLES, columns)), np.zeros((RESAMPLES, columns))
        for start in range(0, len(self._users), BLOCK):
            size = min(BLOCK, len(self._users) - start)
            values = np.concatenate([question.block(start, size) for question in self._questions], axis=1)
            is_counted = ~np.isnan(values)
            values = np.nan_to_num(values)
            total += values.sum(axis=0)
            count += is_counted.sum(axis=0)
            drawn = DRAWN[random.integers(0, 1 << 16, (RESAMPLES, size), dtype=np.uint16)].astype(np.float64)
            # All questions at once: BLAS makes little of a matrix of a few columns.
            sums += drawn @ np.rint(values * GRID)
            counts += drawn @ is_counted.astype(np.float64)
        means = np.divide(total, count, out=np.full(columns, np.nan), where=count > 0)
        found = Means(means, _ends(sums, counts))
        return [Means(*parts) for parts in zip(*(np.split(part, ends[:-1]) for part in found), strict=True)]


class _Question(NamedTuple):
    places: np.ndarray
    """int[users]: where each of its users stands among all."""
    columns: int
    values_of: ValuesOf

    def block(self, start: int, size: int) -> np.ndarray:
        """float64[size, columns]: the values of some of all users, NaN for those whom it is not about."""
        own = slice(*np.searchsorted(self.places, [start, start + size]))
        values = np.full((size, self.columns), np.nan)
        values[self.places[own] - start] = self.values_of(own)
        return values


def _ends(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64[columns, 2], from the sums over the users of each resample: float64[RESAMPLES, columns]."""
    ends = np.full((sums.shape[1], 2), np.nan)
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    for column in range(sums.shape[1]):
        is_drawn = counts[:, column] > 0  # nobody of a very small segment may be
        if is_drawn.any():
            ends[column] = np.quantile(sums[is_drawn, column] / counts[is_drawn, column] / GRID, tails)
    return ends
