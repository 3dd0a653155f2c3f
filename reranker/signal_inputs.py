"""What the signals of one request look at: the candidates, the session, the circumstances, and what these share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import Float32, Indexes, Positions
from reranker.pool import Pool
from reranker.session import Session
from reranker.user_tower import UserTower

if TYPE_CHECKING:
    from prediction_store.reader import Version

SHORTEST = 1e-12
"""A vector of zeros has no direction: its products are zero and stay so."""
DAY_SECONDS = 86_400
MONDAY = 3
"""Days from a Monday to the first of January 1970, a Thursday."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of a request beside its session."""

    now: float
    """UTC epoch seconds, from which events and items age."""
    user_row: int | None = None
    """The user's row in the version; None: not known there."""
    device: str = ""
    shown: Mapping[int, int] = field(default_factory=dict)
    """Dense item index to the times that the user was shown the item lately and did not click it."""
    tower: UserTower | None = None
    """Makes the user's vector anew; None: the version has none."""


class SignalInputs:
    """All that a signal may look at; what several signals share is computed once, when first asked for."""

    def __init__(self, version: Version, pool: Pool, session: Session, at: Circumstances) -> None:
        self.version = version
        self.pool = pool
        self.session = session
        self.at = at

    @cached_property
    def vectors(self) -> Float32:
        """float32[n, d] of the candidates."""
        return self.version.item_vectors[self.pool.items]

    @cached_property
    def visited(self) -> Float32:
        """float32[s, d]: the vectors of the session's items, brought to length 1."""
        vectors = self.version.item_vectors[self.session.items]
        vectors /= np.maximum(np.sqrt(np.einsum("sd,sd->s", vectors, vectors)), SHORTEST)[:, None]
        return vectors

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

    def toward(self, vector: Float32) -> Float32:
        """float32[n]: the cosine between every candidate and float32[d]."""
        length = max(float(np.sqrt(vector @ vector)), SHORTEST)
        found: Float32 = (self.vectors @ vector) / (self.lengths * np.float32(length))
        return found

    def refreshed(self) -> Float32 | None:
        """float32[d]: the user's vector with the session in it; None: the version cannot make one."""
        tower = self.at.tower
        if tower is None:
            return None
        return tower.refreshed(self.at.user_row, self.session.visits, tower.weights_of(self.session.kinds))

    def met_together(self, count: int) -> Float32:
        """float32[n]: how often a candidate is met with the last `count` items of the session, by their weights.

        On average over these items; 1 is always.
        """
        lists = [self.version.together(int(item)) for item in self.session.items[:count]]
        weights = self.session.weights[:count]
        found = np.concatenate([near.items for near in lists])
        parts = np.concatenate([near.scores * weight for near, weight in zip(lists, weights, strict=True)])
        total = np.zeros(self.pool.items.shape, np.float32)
        ascending, positions = self.places
        places = np.minimum(np.searchsorted(ascending, found), len(ascending) - 1)
        is_there = ascending[places] == found
        np.add.at(total, positions[places[is_there]], parts[is_there])
        return total / np.float32(max(1.0, float(weights.sum())))

    def affinity(self, column: str) -> Float32:
        """float32[n]: share of the session, by weight, with the candidate's value; missing values share nothing."""
        values = self.version.column(column)
        visited = values.codes[self.session.items]
        of_value = np.zeros(len(values.values) + 1, np.float32)
        np.add.at(of_value, visited, self.session.weights)
        of_value[-1] = 0.0  # what the code of a missing value, -1, finds
        found: Float32 = of_value[values.codes[self.pool.items]] / np.float32(self.session.strength)
        return found

    def number(self, column: str) -> Float32:
        """float32[n]: the candidates' values in a column of numbers; 0 where the version is older than the column."""
        if column not in self.version.manifest.columns:
            return np.zeros(self.pool.items.shape, np.float32)
        found: Float32 = self.version.column(column)[self.pool.items]
        return found

    def in_context(self, kind: str, value: str) -> Float32:
        """float32[n]: how much more often than usual a candidate is met in this context; 0 where nobody knows."""
        lifts = self.version.context(kind, value)
        return np.zeros(self.pool.items.shape, np.float32) if lifts is None else lifts[self.pool.items]

    @property
    def hour(self) -> int:
        """Of the day, UTC."""
        return int(self.at.now % DAY_SECONDS // 3600)

    @property
    def weekday(self) -> int:
        """0 is Monday, UTC."""
        return int(self.at.now // DAY_SECONDS + MONDAY) % 7
