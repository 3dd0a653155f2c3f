"""The user tower in numpy: a user's vector, brought up to date with the session by the trained weights.

vector = [at length 1] base + matrix · (weighted mean of the vectors of the last items)

Nothing is learned here and nothing approximated: it is the vector that `embed` would give the user, had the session
been in the data already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from prediction_store.user_tower import StoredTower
from reranker.arrays import NO_ITEMS, Float32, Indexes, of_length_1
from reranker.compiled import is_compiled, kernel

if TYPE_CHECKING:
    from prediction_store.reader import Version
    from reranker.session import Session


class UserTower:
    """The tower of one version. Any number of threads may use it at once, also when the version is closed."""

    def __init__(self, stored: StoredTower, item_vectors: Float32) -> None:
        tower = stored.tower
        self._is_unit = tower.facts.is_unit
        self._event_weights = tower.facts.event_weights
        self._length = tower.facts.history_length
        self._bases = stored.bases
        self._starts, self._items, self._weights = stored.histories
        self._item_vectors = item_vectors
        self._matrix = np.array(tower.matrix)
        self._stranger = np.array(tower.stranger)
        distances = np.arange(self._length, 0, -1)
        # frexp is exact where a logarithm may round up to the next bucket.
        buckets = np.minimum(np.frexp(distances)[1] - 1, len(tower.recency) - 1)
        self._recency = np.array(tower.recency)[buckets]  # [history_length], oldest first

    @classmethod
    def of(cls, version: Version) -> Self | None:
        """The tower of a version; None: the version has none."""
        stored = version.user_tower
        return None if stored is None else cls(stored, version.item_vectors)

    def weights_of(self, events: Sequence[str]) -> Float32:
        """float32[n]: what events of these types weighed in training; 0 for a type that it did not know."""
        known = self._event_weights
        return np.array([known.get(event, 0.0) for event in events], np.float32)

    def history_of(self, user_row: int) -> Indexes:
        """uint32[n]: the items of the user's last interactions, oldest first, as often as they are there."""
        start, stop = self._starts[user_row : user_row + 2].tolist()
        return self._items[start:stop]

    def overlap(self, user_row: int, items: Indexes, weights: Float32) -> int:
        """How many of the first events of a session are those that the user's history ends with; the others come after.

        As many as can be: an event of weight 0 is in no history.
        """
        places = np.flatnonzero(weights).tolist()
        history, visited = self.history_of(user_row).tolist(), items[places].tolist()
        for n in range(min(len(history), len(visited)), 0, -1):
            if history[-n:] == visited[:n]:
                return int(places[n - 1]) + 1
        return 0

    def refreshed(self, user_row: int | None, items: Indexes, weights: Float32) -> Float32:
        """float32[d]: the user's vector, the session coming after all that the version knows of the user.

        Only the last `history_length` interactions of both together count. Repeated items count as often as they are
        there; an event of weight 0 counts as if it were not there, as in training.

        Args:
            user_row: of the record; None: a user whom the version does not know.
            items: uint32[s], dense indexes of the session's items, oldest first.
            weights: float32[s], see `weights_of`.
        """
        if np.count_nonzero(weights) < len(weights):
            says_something = weights > 0
            items, weights = items[says_something], weights[says_something]
        room = self._length - len(items)
        if room < 0:
            items, weights, room = items[-room:], weights[-room:], 0
        base, start, stop = self._stranger, 0, 0
        if user_row is not None:
            base = self._bases[user_row]
            start, stop = self._starts[user_row : user_row + 2].tolist()
            start = max(start, stop - room)
        items, weights = np.ascontiguousarray(items), np.ascontiguousarray(weights)
        history = self._items[start:stop], self._weights[start:stop]
        if not is_compiled:
            return self._in_numpy(base, *history, items, weights)
        found = np.empty(base.shape, np.float32)
        vectors, is_unit = self._item_vectors, self._is_unit
        kernel.refresh(found, self._matrix, base, vectors, *history, items, weights, self._recency, is_unit)
        return found

    def _in_numpy(
        self, base: Float32, before: Indexes, their_weights: Float32, items: Indexes, weights: Float32
    ) -> Float32:
        items, weights = np.concatenate((before, items)), np.concatenate((their_weights, weights))
        found = np.array(base)
        if n := len(items):
            shares = np.sqrt(weights) * self._recency[-n:]
            found += self._matrix @ (shares @ self._item_vectors[items] / shares.sum())
        return of_length_1(found) if self._is_unit else found


class UserNow:
    """One user as the session leaves the user: the vector is made when it is first asked for, and once."""

    def __init__(self, tower: UserTower | None, user_row: int | None, session: Session) -> None:
        """`user_row` is of the record; None: a user whom the version does not know."""
        self._tower = tower
        self._row = user_row
        self._session = session
        self._vector: Float32 | None = None

    @property
    def history(self) -> Indexes:
        """uint32[n]: the items of the last interactions before the session, as often as they are there."""
        return NO_ITEMS if self._tower is None or self._row is None else self._tower.history_of(self._row)

    @property
    def vector(self) -> Float32 | None:
        """float32[d]; None: the version has no tower to make one. What its data had of the session counts once."""
        tower, session = self._tower, self._session
        if self._vector is None and tower is not None:
            items, weights, old = session.visits, tower.weights_of(session.kinds), session.old
            if old and self._row is not None:
                known = tower.overlap(self._row, items[:old], weights[:old])
                items, weights = items[known:], weights[known:]
            self._vector = tower.refreshed(self._row, items, weights)
        return self._vector
