"""The forms that a signal may have: what it looks at and how, and what follows from it for each candidate.

A signal says nothing of single candidates; it gives a form, which knows a version and no request: what a request brings
(pool, session, user) is given to all forms alike, so that a form serves many. `values` is the definition. The compiled
kernel computes the same of all signals in one go, from the fields of each form and what the request gives; all but
`Computed`, which brings a function of its own.
A sum by weight is divided by the sum of the weights, at least by 1, so that an old session counts less and less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reranker.arrays import Float32, Indexes, of_length_1
from reranker.compiled import is_compiled, kernel

if TYPE_CHECKING:
    from reranker.signal_inputs import SignalInputs

TINY = 1e-9
Column = npt.NDArray[Any]
"""float32 or float64[n_items], NaN where missing."""
SESSION, MEAN, LATEST, USER = range(4)
"""What a candidate's vector may lie `Toward`."""


class Placed(NamedTuple):
    """A number for each place; what is further down has the last one."""

    numbers: Float32
    """float32[m], at least one."""

    def values(self, given: SignalInputs) -> Float32:
        return self.numbers[np.minimum(np.arange(given.pool.items.size), self.numbers.size - 1)]


class Before(NamedTuple):
    """1 for the candidates of the list, 0 for those added for the session."""

    def values(self, given: SignalInputs) -> Float32:
        return (np.arange(given.pool.items.size) < given.pool.listed).astype(np.float32)


class Share(NamedTuple):
    """Where a base score lies between the lowest of the list, 0, and the highest, 1; from -1 to 1.

    Where nothing is listed, of all candidates.
    """

    def values(self, given: SignalInputs) -> Float32:
        scores = given.pool.base_scores
        listed = scores[: given.pool.listed] if given.pool.listed else scores
        lowest, highest = float(listed.min()), float(listed.max())
        if highest <= lowest:
            return np.zeros(scores.shape, np.float32)
        shares: Float32 = (scores - np.float32(lowest)) / np.float32(highest - lowest)
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

    def values(self, given: SignalInputs) -> Float32:
        session = given.session
        visited, numbers = self.column[session.items], self.column[given.pool.items].astype(np.float64)
        is_known = visited > 0
        if not is_known.any():
            return np.zeros(numbers.shape, np.float32)
        usual = np.average(np.log2(visited[is_known]), weights=session.weights[is_known] + TINY)
        with np.errstate(divide="ignore", invalid="ignore"):
            octaves = np.abs(np.log2(numbers) - usual)
        found: Float32 = np.nan_to_num(0.5**octaves, nan=0.0).astype(np.float32)
        return found


class OfCode(NamedTuple):
    """The share of the visited items, by weight, that has the item's code; none for a missing one, -1."""

    codes: npt.NDArray[np.int32]
    """int32[n_items]"""
    n_codes: int

    def values(self, given: SignalInputs) -> Float32:
        of_code = np.zeros(self.n_codes + 1, np.float32)
        np.add.at(of_code, self.codes[given.session.items], given.session.weights)
        of_code[-1] = 0.0  # what the code of a missing value finds
        found: Float32 = of_code[self.codes[given.pool.items]] / strength_of(given.session.weights)
        return found


class Together(NamedTuple):
    """The sum, by weight, of the item's scores in the lists of the latest visited items."""

    near: npt.NDArray[np.int32]
    """int32[n_items, k]: the list of each item, padded with -1."""
    scores: Float32
    """float32[n_items, k]"""
    latest: int
    """So many of the visited items count, at least one."""

    def values(self, given: SignalInputs) -> Float32:
        visited, weights = given.session.items[: self.latest], given.session.weights[: self.latest]
        found, parts = self.near[visited], self.scores[visited] * weights[:, None]
        is_item = found >= 0
        items, parts = found[is_item].astype(np.uint32), parts[is_item]
        total: Float32 = np.zeros(given.pool.items.shape, np.float32)
        positions, is_there = given.positions_of(items)
        np.add.at(total, positions[is_there], parts[is_there])
        total /= strength_of(weights)
        return total


class Missed(NamedTuple):
    """What being shown in vain comes to, of the items that were."""

    def values(self, given: SignalInputs) -> Float32:
        return _at_places(given, *given.missed)


class Met(NamedTuple):
    """Half of the way to 1, for each time that the item is in the user's history."""

    def values(self, given: SignalInputs) -> Float32:
        items, times = np.unique(given.history, return_counts=True)
        return _at_places(given, items, (1.0 - 0.5**times).astype(np.float32))


class Toward(NamedTuple):
    """The product of the item's vector, at length 1, with one that the session makes.

    SESSION: the sum by weight of the visited items' directions, divided as sums are; MEAN: that sum at length 1;
    LATEST: the direction of the item visited last; USER: that of the user's refreshed vector, or zeros without one.
    """

    to: int

    def values(self, given: SignalInputs) -> Float32:
        vector = self._vector(given)
        found: Float32 = (given.vectors @ vector) / given.lengths
        return found

    def _vector(self, given: SignalInputs) -> Float32:
        if self.to == USER:
            user = given.user_vector()
            return np.zeros(given.version.dimensions, np.float32) if user is None else of_length_1(user)
        if self.to == LATEST:
            latest: Float32 = given.visited[0]
            return latest
        total: Float32 = given.session.weights @ given.visited
        if self.to == MEAN:
            return of_length_1(total)
        total /= strength_of(given.session.weights)
        return total


class Nearest(NamedTuple):
    """The greatest of weight, 1 at most, times cosine to one of the visited items."""

    def values(self, given: SignalInputs) -> Float32:
        found: Float32 = (given.cosines * np.minimum(given.session.weights, np.float32(1.0))).max(axis=1)
        return found


class Computed(NamedTuple):
    """What a function makes of the request, in NumPy: for a signal that fits no other form.

    The kernel does not know it, so an answer takes as much longer as the function does.
    """

    numbers: Callable[[SignalInputs], Float32]
    """float32[n]; not asked where there is no candidate, nor, of a signal `of_session`, where nothing was visited."""

    def values(self, given: SignalInputs) -> Float32:
        return self.numbers(given)


Compiled = Placed | Before | Share | OfItem | Halving | NearNumber | OfCode | Together | Missed | Met | Toward | Nearest
"""What the kernel knows."""
Form = Compiled | Computed
NEED_SESSION = (NearNumber, OfCode, Together, Toward, Nearest)
"""These say nothing of any candidate where nothing was visited."""


def _at_places(given: SignalInputs, items: Indexes, numbers: Float32) -> Float32:
    """float32[n]: the number of each candidate that is among the items, which are distinct; 0 of the others."""
    found: Float32 = np.zeros(given.pool.items.shape, np.float32)
    positions, is_there = given.positions_of(items)
    found[positions[is_there]] = numbers[is_there]
    return found


def strength_of(weights: Float32) -> np.float32:
    """What a sum by these weights is divided by."""
    return np.float32(max(1.0, float(weights.sum())))


def values_of(form: Form | None, given: SignalInputs) -> Float32:
    """float32[n]: of each candidate. What cannot be said (a NaN in a column or vector) counts as 0."""
    has_nothing = given.pool.items.size == 0 or (given.session.is_empty and isinstance(form, NEED_SESSION))
    if form is None or has_nothing:
        return np.zeros(given.pool.items.shape, np.float32)
    found = form.values(given)
    return found if np.isfinite(found).all() else np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


if is_compiled:
    kernel.know(Placed, Before, Share, OfItem, Halving, NearNumber, OfCode, Together, Missed, Met, Toward, Nearest)
