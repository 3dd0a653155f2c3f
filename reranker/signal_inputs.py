"""What a request gives to all of its signals: the candidates, the session, the circumstances, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reranker.arrays import NO_ITEMS, NO_NUMBERS, SHORTEST, Float32, Indexes, Mask, Positions
from reranker.pool import Pool
from reranker.session import Session
from reranker.trending_now import Trending
from reranker.user_tower import UserNow

if TYPE_CHECKING:
    from prediction_store.reader import Version

HOUR_SECONDS = 3_600
MONDAY = 3
"""Days from a Monday to the first of January 1970, a Thursday."""


class Circumstances(NamedTuple):
    """What is known of a request beside its session."""

    now: float
    """UTC epoch seconds, from which events and items age."""
    device: str = ""
    ignored: Mapping[int, int] = MappingProxyType({})
    """Dense item index to the times that the user was shown the item lately and did not click it."""
    user: UserNow | None = None
    """Of the session; None: there is no vector to ask for."""
    trending: Trending | None = None
    """What is trending now; None: nothing."""

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

    def arrays(self) -> tuple[Any, ...]:
        """What the kernel reads: items, base scores, every item's vector, the session's items and weights, the user's
        vector (of no length: there is none), the items shown in vain and what that comes to, the user's history, and
        how many are listed.
        """
        pool, session = self.pool, self.session
        user = None if session.is_empty else self.user_vector()
        return (
            pool.items,
            pool.base_scores,
            self.version.item_vectors,
            session.items,
            session.weights,
            NO_NUMBERS if user is None else user,
            *self.missed,
            self.history,
            pool.listed,
        )

    def user_vector(self) -> Float32 | None:
        """float32[d]: the user's vector with the session in it; None: the version cannot make one."""
        return None if self.at.user is None else self.at.user.vector

    @property
    def missed(self) -> tuple[Indexes, Float32]:
        """(uint32[m], float32[m]): what was shown in vain; 1/2, 3/4, … for once, twice, …"""
        ignored = self.at.ignored
        if not ignored:
            return NO_ITEMS, NO_NUMBERS
        times = np.fromiter(ignored.values(), np.float32)
        return np.fromiter(ignored, np.uint32), (1.0 - 0.5**times).astype(np.float32)

    @property
    def history(self) -> Indexes:
        """uint32[h]: the items of the user's last interactions before the session, as often as they are there."""
        return NO_ITEMS if self.at.user is None else self.at.user.history

    @cached_property
    def vectors(self) -> Float32:
        """float32[n, d] of the candidates."""
        return self.version.item_vectors[self.pool.items]

    def vectors_at(self, positions: Sequence[int]) -> Float32:
        """float32[m, d] of some candidates."""
        found: Float32 = self.version.item_vectors[self.pool.items[positions]]
        return found

    @cached_property
    def visited(self) -> Float32:
        """float32[s, d]: the vectors of the session's items, brought to length 1."""
        found: Float32 = self.version.item_vectors[self.session.items]
        found /= _lengths(found)[:, None]
        return found

    @cached_property
    def lengths(self) -> Float32:
        """float32[n] of the candidates' vectors, above 0."""
        return _lengths(self.vectors)

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

    def positions_of(self, items: Indexes) -> tuple[Positions, Mask]:
        """(int64[m], bool[m]): where in the pool these items are, and which of them are there at all."""
        ascending, positions = self.places
        places = np.minimum(np.searchsorted(ascending, items), len(ascending) - 1)
        return positions[places], ascending[places] == items


def _lengths(vectors: Float32) -> Float32:
    """float32[n] of the rows, above 0."""
    lengths: Float32 = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return np.maximum(lengths, np.float32(SHORTEST))
