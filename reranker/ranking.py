"""The score of every candidate, and the order that it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reranker.arrays import Float32, Mask, Positions
from reranker.signal_inputs import SignalInputs
from reranker.signals import BY_NAME, Signal, default_weights
from reranker.user_tower import UserTower
from schemas.ranker import RankerWeights


@dataclass(frozen=True, slots=True)
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

    @property
    def names(self) -> list[str]:
        """The signals that have a weight, in the order of `terms`."""
        return [signal.name for signal, _ in self.terms]

    def scores(self, given: SignalInputs) -> Float32:
        """float32[n], finite."""
        return self.scored(given)[0]

    def scored(self, given: SignalInputs) -> tuple[Float32, list[Float32]]:
        """float32[n] scores, and float32[n] values of each signal of `names`."""
        total = np.zeros(given.pool.items.shape, np.float32)
        values = [signal.values(given) for signal, _ in self.terms]
        for (_, weight), found in zip(self.terms, values, strict=True):
            total += np.float32(weight) * found
        return total, values


def top(scores: Float32, eligible: Mask, k: int) -> Positions:
    """Positions of the best k eligible candidates: by score, then by base rank, which is the position itself.

    No two candidates of a pool share a base rank, so the order is total.
    """
    positions = np.flatnonzero(eligible)
    found = scores[positions]
    if k < positions.size:
        # Everything that ties with the k-th stays in, so that base rank decides among them and not the partition.
        threshold = np.partition(found, positions.size - k)[positions.size - k]
        near = found >= threshold
        positions, found = positions[near], found[near]
    order = np.argsort(-found, kind="stable")
    best: Positions = positions[order[:k]]
    return best
