"""The forms that a signal may have: what it looks at and how, and what follows from it for each candidate.

A signal says nothing of single candidates; it gives a form, which costs the same for ten and for ten thousand of them.
`values` is the definition. The compiled kernel computes the same of all signals in one go, from the fields of each.
A sum by weight is divided by the sum of the weights, at least by 1, so that an old session fades and does not shout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reranker.arrays import Float32, Indexes
from reranker.compiled import is_compiled, kernel

if TYPE_CHECKING:
    from reranker.signal_inputs import SignalInputs

TINY = 1e-9
SHORTEST = 1e-12
"""A vector of zeros has no direction: its products are zero and stay so."""
Column = npt.NDArray[Any]
"""float32 or float64[n_items], NaN where missing."""


class Placed(NamedTuple):
    """A number for each candidate."""

    numbers: Float32
    """float32[n], or longer."""

    def values(self, given: SignalInputs) -> Float32:
        return self.numbers[: given.pool.items.size]


class Before(NamedTuple):
    """1 for the first so many candidates, 0 for the others."""

    first: int

    def values(self, given: SignalInputs) -> Float32:
        return (np.arange(given.pool.items.size) < self.first).astype(np.float32)


class Share(NamedTuple):
    """Where a candidate's number lies between the lowest of the first so many, 0, and the highest, 1; from -1 to 1."""

    numbers: Float32
    """float32[n]"""
    listed: int
    """0: all of them."""

    def values(self, given: SignalInputs) -> Float32:
        listed = self.numbers[: self.listed] if self.listed else self.numbers
        lowest, highest = float(listed.min()), float(listed.max())
        if highest <= lowest:
            return np.zeros(self.numbers.shape, np.float32)
        shares: Float32 = (self.numbers - np.float32(lowest)) / np.float32(highest - lowest)
        return np.clip(shares, -1.0, 1.0)


class OfItem(NamedTuple):
    """The item's number in a column."""

    column: Column

    def values(self, given: SignalInputs) -> Float32:
        return self.column[given.pool.items].astype(np.float32)


class Halving(NamedTuple):
    """1 where the item's number is `now` or above; half of it with every step below."""

    column: Column
    now: float
    step: float

    def values(self, given: SignalInputs) -> Float32:
        steps = np.maximum(self.now - self.column[given.pool.items].astype(np.float64), 0.0) / self.step
        return (0.5**steps).astype(np.float32)


class NearNumber(NamedTuple):
    """1 where the item's number is the usual one of the visited items; half of it at twice or half that number.

    The usual one is the mean of logarithms by weight. 0 where the number is not above 0; such a visited one is no part.
    """

    column: Column
    visited: Indexes
    weights: Float32

    def values(self, given: SignalInputs) -> Float32:
        visited, numbers = self.column[self.visited], self.column[given.pool.items].astype(np.float64)
        is_known = visited > 0
        if not is_known.any():
            return np.zeros(numbers.shape, np.float32)
        usual = np.average(np.log2(visited[is_known]), weights=self.weights[is_known] + TINY)
        with np.errstate(divide="ignore", invalid="ignore"):
            octaves = np.abs(np.log2(numbers) - usual)
        found: Float32 = np.nan_to_num(0.5**octaves, nan=0.0).astype(np.float32)
        return found


class OfCode(NamedTuple):
    """The share of the visited items, by weight, that has the item's code; none for a missing one, -1."""

    codes: npt.NDArray[np.int32]
    """int32[n_items]"""
    visited: Indexes
    weights: Float32
    n_codes: int

    def values(self, given: SignalInputs) -> Float32:
        of_code = np.zeros(self.n_codes + 1, np.float32)
        np.add.at(of_code, self.codes[self.visited], self.weights)
        of_code[-1] = 0.0  # what the code of a missing value finds
        found: Float32 = of_code[self.codes[given.pool.items]] / strength_of(self.weights)
        return found


class Together(NamedTuple):
    """The sum, by weight, of the item's scores in lists."""

    near: npt.NDArray[np.int32]
    """int32[lists, k]: the items of each list, padded with -1."""
    scores: Float32
    """float32[lists, k]"""
    lists: Indexes
    """uint32[s]: which lists."""
    weights: Float32
    """float32[s]"""

    def values(self, given: SignalInputs) -> Float32:
        found, parts = self.near[self.lists], self.scores[self.lists] * self.weights[:, None]
        is_item = found >= 0
        items, parts = found[is_item].astype(np.uint32), parts[is_item]
        total: Float32 = np.zeros(given.pool.items.shape, np.float32)
        ascending, positions = given.places
        places = np.minimum(np.searchsorted(ascending, items), len(ascending) - 1)
        is_there = ascending[places] == items
        np.add.at(total, positions[places[is_there]], parts[is_there])
        total /= strength_of(self.weights)
        return total


class Toward(NamedTuple):
    """The product of the item's vector, at length 1, with a sum of vectors by weight."""

    vectors: Float32
    """float32[s, d]"""
    weights: Float32
    """float32[s]"""
    is_unit: bool
    """The sum is brought to length 1, so that the product is a cosine; else divided as sums are."""

    def values(self, given: SignalInputs) -> Float32:
        vector: Float32 = self.weights @ self.vectors
        if self.is_unit:
            vector /= np.float32(max(float(np.sqrt(vector @ vector)), SHORTEST))
        else:
            vector /= strength_of(self.weights)
        found: Float32 = (given.vectors @ vector) / given.lengths
        return found


class Nearest(NamedTuple):
    """The greatest of weight, 1 at most, times cosine to one of some vectors."""

    visited: Float32
    """float32[s, d], of length 1; at least one."""
    weights: Float32
    """float32[s], from 0 on."""

    def values(self, given: SignalInputs) -> Float32:
        cosines = (given.vectors @ self.visited.T) / given.lengths[:, None]
        found: Float32 = (cosines * np.minimum(self.weights, np.float32(1.0))).max(axis=1)
        return found


Form = Placed | Before | Share | OfItem | Halving | NearNumber | OfCode | Together | Toward | Nearest


def strength_of(weights: Float32) -> np.float32:
    """What a sum by these weights is divided by."""
    return np.float32(max(1.0, float(weights.sum())))


if is_compiled:
    kernel.know(Placed, Before, Share, OfItem, Halving, NearNumber, OfCode, Together, Toward, Nearest)
