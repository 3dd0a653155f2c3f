"""The score of every candidate, and the order that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reranker.arrays import Float32, Mask, Positions
from reranker.compiled import is_compiled, kernel
from reranker.signal_inputs import SignalInputs
from reranker.signals import BY_NAME, Signal, default_weights, forms_of, known
from reranker.user_tower import UserTower
from schemas.ranker import RankerWeights


@dataclass(frozen=True)
class Ranker:
    """A linear score: the sum of signal times weight."""

    terms: tuple[tuple[Signal, float], ...]
    """The signals that have a weight; those without one are not computed."""
    unknown: tuple[str, ...] = ()
    """Signals of the version that this program does not have."""
    tower: UserTower | None = None
    """Of the same version, for the signals that need it."""

    @classmethod
    def of(cls, weights: RankerWeights, tower: UserTower | None = None) -> Ranker:
        """The ranker of a version.

        Weights are learned together: when one signal is unknown here, the others mean nothing, and the defaults serve.
        """
        unknown = tuple(name for name in weights.signals if name not in BY_NAME)
        used = default_weights(weights.space_id) if unknown else weights
        pairs = zip(used.signals, used.weights, strict=True)
        terms = tuple((BY_NAME[name], weight) for name, weight in pairs if weight != 0.0)
        return cls(terms=terms, unknown=unknown, tower=tower)

    @cached_property
    def signals(self) -> list[Signal]:
        """Of `terms`."""
        return [signal for signal, _ in self.terms]

    @cached_property
    def weights(self) -> list[float]:
        """Of the signals, in the order of `terms`."""
        return [weight for _, weight in self.terms]

    @cached_property
    def names(self) -> list[str]:
        """The signals that have a weight, in the order of `terms`."""
        return [signal.name for signal, _ in self.terms]


class Scoring:
    """The candidates of one pool as a ranker sees them."""

    def __init__(self, ranker: Ranker, given: SignalInputs) -> None:
        self.given = given
        self._weights = ranker.weights
        self._forms = forms_of(ranker.signals, given)

    def scores(self, allowed: Mask, *, boosts: Sequence[Float32] = (), k: int = 0) -> Float32:
        """float32[n], finite: the sum of signal times weight, and of the boosts.

        k > 0: only the best k allowed candidates are asked for; of the others some may be -inf instead.
        """
        given = self.given
        total = np.zeros(given.pool.items.shape, np.float32)
        for boost in boosts:
            total += boost
        if is_compiled:
            vectors = given.version.item_vectors
            kernel.score(total, given.pool.items, vectors, allowed, self._weights, self._forms, k)
            return total
        for weight, form in zip(self._weights, self._forms, strict=True):
            if form is not None:
                total += np.float32(weight) * known(form.values(given))
        return total

    def values(self, positions: Positions) -> Float32:
        """float32[m, signals]: the values of the ranker's signals at some positions."""
        given = self.given
        found = np.zeros((len(self._forms), positions.size), np.float32)
        if is_compiled:
            items = given.pool.items
            kernel.values(found, items[positions], positions, given.version.item_vectors, self._forms, items.size)
            return found.T
        for row, form in zip(found, self._forms, strict=True):
            if form is not None:
                row[:] = known(form.values(given))[positions]
        return found.T


def top(scores: Float32, allowed: Mask, k: int) -> Positions:
    """Positions of the best k allowed candidates: by score, then by base rank, which is the position itself.

    No two candidates of a pool share a base rank, so the order is total.
    """
    if not is_compiled:
        return top_in_numpy(scores, allowed, k)
    found = np.empty(min(k, scores.size), np.int64)
    return found[: kernel.top(found, scores, allowed)]


def top_in_numpy(scores: Float32, allowed: Mask, k: int) -> Positions:
    """As `top`."""
    positions = np.flatnonzero(allowed)
    found = scores[positions]
    if k < positions.size:
        # Everything that ties with the k-th stays in, so that base rank decides among them and not the partition.
        threshold = np.partition(found, positions.size - k)[positions.size - k]
        near = found >= threshold
        positions, found = positions[near], found[near]
    order = np.argsort(-found, kind="stable")
    best: Positions = positions[order[:k]]
    return best
