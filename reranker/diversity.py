"""Diversity: what an item is worth beside those above it.

Source: Carbonell, Goldstein 1998, The use of MMR, diversity-based reranking for reordering documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from reranker.arrays import SHORTEST, Float32

MMR_AMONG = 200
"""Candidates that diversity chooses among: those of the best scores."""


class Unlike:
    """Candidates by what each is worth beside those that are shown."""

    def __init__(
        self, best: Sequence[int], scores: Float32, vectors: Callable[[Sequence[int]], Float32], share: float
    ) -> None:
        """`best`: places in the pool, as many of the best as may come to be among MMR_AMONG."""
        self._best = best
        self._row = {position: row for row, position in enumerate(best)}
        self._is_left = np.ones(len(best), np.bool_)
        self._own, self._share = (1.0 - share) * scores[best], share
        self._vectors, self._unit = vectors, _of_length_1(vectors(best))
        self._nearest = np.zeros(len(best), np.float32)  # the cosine to the nearest that is shown; the first has none
        self._is_first = True

    def by_worth(self, left: Sequence[int]) -> Iterator[int]:
        """All that is left, the first MMR_AMONG by their worth."""
        rows = self._is_left.nonzero()[0][:MMR_AMONG]
        if rows.size:
            worth = self._own[rows] - self._share * self._nearest[rows]
            yield self._best[rows[worth.argmax()]]
            # Only where that is one too many of its kind are the others asked for.
            for row in rows[np.argsort(-worth, kind="stable")[1:]].tolist():
                yield self._best[row]
        yield from left[len(rows) :]

    def add(self, position: int) -> None:
        """It is shown."""
        row = self._row.get(position)
        if row is None:  # a pin
            unit = _of_length_1(self._vectors([position]))[0]
        else:
            unit, self._is_left[row] = self._unit[row], False
        cosines = self._unit @ unit
        self._nearest = cosines if self._is_first else np.maximum(self._nearest, cosines)
        self._is_first = False


def _of_length_1(vectors: Float32) -> Float32:
    found: Float32 = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), SHORTEST)
    return found
