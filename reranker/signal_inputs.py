"""What the signals of one request look at: the candidates, the session, the circumstances, and what these share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from reranker.arrays import Float32, Indexes, Positions
from reranker.compiled import is_compiled, kernel
from reranker.forms import SHORTEST, Column, Form, OfCode, OfItem, Together
from reranker.pool import Pool
from reranker.session import Session
from reranker.user_tower import UserNow

if TYPE_CHECKING:
    from prediction_store.reader import CategoryColumn, Version

T = TypeVar("T")
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
HOUR_SECONDS = 3_600
MONDAY = 3
"""Days from a Monday to the first of January 1970, a Thursday."""


class Circumstances(NamedTuple):
    """What is known of a request beside its session."""

    now: float
    """UTC epoch seconds, from which events and items age."""
    device: str = ""
    shown: Mapping[int, int] = MappingProxyType({})
    """Dense item index to the times that the user was shown the item lately and did not click it."""
    user: UserNow | None = None
    """Of the session; None: there is no vector to ask for."""

    @property
    def hour_number(self) -> int:
        """Hours since the epoch."""
        return int(self.now // HOUR_SECONDS)

    @property
    def hour_began(self) -> float:
        """When this hour did, UTC epoch seconds."""
        return float(self.hour_number * HOUR_SECONDS)

    @property
    def hour(self) -> int:
        """Of the day, UTC."""
        return self.hour_number % 24

    @property
    def weekday(self) -> int:
        """0 is Monday, UTC."""
        return (self.hour_number // 24 + MONDAY) % 7


class SignalInputs:
    """All that a signal may look at; what several signals share is computed once, when first asked for."""

    def __init__(self, version: Version, pool: Pool, session: Session, at: Circumstances) -> None:
        self.version = version
        self.pool = pool
        self.session = session
        self.at = at
        self._visited: Float32 | None = None  # `cached_property` would take a lock for it

    @cached_property
    def vectors(self) -> Float32:
        """float32[n, d] of the candidates."""
        return self.version.item_vectors[self.pool.items]

    @property
    def visited(self) -> Float32:
        """float32[s, d]: the vectors of the session's items, brought to length 1."""
        if self._visited is None:
            self._visited = self._of_length_1()
        return self._visited

    def _of_length_1(self) -> Float32:
        vectors, items = self.version.item_vectors, self.session.items
        found = np.empty((items.size, vectors.shape[1]), np.float32)
        if is_compiled:
            kernel.unit(found, vectors, items)
            return found
        np.take(vectors, items, axis=0, out=found)
        found /= np.maximum(np.sqrt(np.einsum("sd,sd->s", found, found)), SHORTEST)[:, None]
        return found

    @cached_property
    def lengths(self) -> Float32:
        """float32[n] of the candidates' vectors, above 0."""
        lengths: Float32 = np.sqrt(np.einsum("nd,nd->n", self.vectors, self.vectors))
        return np.maximum(lengths, np.float32(SHORTEST))

    @cached_property
    def cosines(self) -> Float32:
        """float32[n, s]: the cosine between every candidate and every item of the session."""
        products: Float32 = self.vectors @ self.visited.T
        products /= self.lengths[:, None]
        return products

    @cached_property
    def places(self) -> tuple[Indexes, Positions]:
        """(the candidates in ascending order, the position of each of these in the pool)."""
        order = np.argsort(self.pool.items)
        return self.pool.items[order], order

    def refreshed(self) -> Float32 | None:
        """float32[d]: the user's vector with the session in it; None: the version cannot make one."""
        return None if self.at.user is None else self.at.user.vector

    def met_together(self, count: int) -> Form | None:
        """How often a candidate is met with the last `count` items of the session, on average by their weights.

        1 is always.
        """
        near = self.version.every_together
        if near is None:
            return None
        return Together(near.items, near.scores, self.session.items[:count], self.session.weights[:count])

    def affinity(self, column: str) -> Form:
        """Share of the session, by weight, with the candidate's value; missing values share nothing."""
        values: CategoryColumn = self._kept(f"column {column}", lambda: self.version.column(column))
        return OfCode(values.codes, self.session.items, self.session.weights, len(values.values))

    def column(self, name: str) -> Column:
        """float32 or float64[n_items]: a column of numbers."""
        return self._kept(f"column {name}", lambda: _floats(self.version.column(name)))

    def of_item(self, name: str) -> Form | None:
        """The candidates' values in a column of numbers; None where the version is older than the column."""
        is_there = name in self.version.manifest.columns
        return self._kept(f"of {name}", lambda: OfItem(self.column(name))) if is_there else None

    def in_context(self, kind: str, value: str) -> Form | None:
        """How much more often than usual a candidate is met in this context; None where nobody knows."""
        found: Form | None = self.version.kept.get(f"{kind} {value}")
        if found is None and (lifts := self.version.context(kind, value)) is not None:
            found = self.version.kept[f"{kind} {value}"] = OfItem(lifts)
        return found

    def _kept(self, name: str, make: Callable[[], T]) -> T:
        kept = self.version.kept
        found: T | None = kept.get(name)
        if found is None:
            found = kept[name] = make()
        return found


def _floats(column: Column) -> Column:
    return column if column.dtype in FLOATS else column.astype(np.float32)
