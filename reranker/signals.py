"""The signals, each defined once: a name and one vectorised function over the candidates.

The same functions serve, train the weights and check for skew. A new signal is one function and one line in SIGNALS.
Every signal is float32[n], finite, about 0 where it has nothing to say and about 1 where it says the most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import Float32
from reranker.pool import Pool
from reranker.session import Session
from schemas.ranker import RankerWeights

if TYPE_CHECKING:
    from prediction_store.reader import Version

FRESH_HALF_LIFE_SECONDS = 14 * 86_400.0


class SignalInputs:
    """All that a signal may look at; what several signals share is computed once, when first asked for."""

    def __init__(self, version: Version, pool: Pool, session: Session, now: float) -> None:
        self.version = version
        self.pool = pool
        self.session = session
        self.now = now

    @cached_property
    def cosines(self) -> Float32:
        """float32[n, s]: the cosine between every candidate and every item of the session."""
        candidates = self.version.item_vectors[self.pool.items]  # [n, d]
        visited = self.version.item_vectors[self.session.items]  # [s, d]
        products = candidates @ visited.T  # [n, s]
        lengths = np.sqrt(np.einsum("nd,nd->n", candidates, candidates))
        visited_lengths = np.sqrt(np.einsum("sd,sd->s", visited, visited))
        # A vector of zeros has no direction: its products are zero and stay so.
        products /= np.maximum(lengths, 1e-12)[:, None]
        products /= np.maximum(visited_lengths, 1e-12)
        return products

    def affinity(self, column: str) -> Float32:
        """float32[n]: share of the session, by weight, with the candidate's value; missing values share nothing."""
        values = self.version.column(column)
        visited = values.codes[self.session.items]
        of_value = np.zeros(len(values.values) + 1, np.float32)
        np.add.at(of_value, visited, self.session.weights)
        of_value[-1] = 0.0  # what the code of a missing value, -1, finds
        found: Float32 = of_value[values.codes[self.pool.items]] / np.float32(self.session.strength)
        return found


def base_score(given: SignalInputs) -> Float32:
    """The score of the list the candidate came from, so that the list's last is 0 and its first 1."""
    scores = given.pool.base_scores
    listed = scores[: given.pool.listed] if given.pool.listed else scores
    lowest, highest = float(listed.min()), float(listed.max())
    if highest <= lowest:
        return np.zeros(scores.shape, np.float32)
    shares: Float32 = (scores - np.float32(lowest)) / np.float32(highest - lowest)
    return np.clip(shares, -1.0, 1.0)


def base_rank(given: SignalInputs) -> Float32:
    """The place in that list, discounted as in DCG: 1 for the first, 0.63 for the second, 0.1 for the thousandth."""
    return (1.0 / np.log2(np.arange(2, given.pool.items.size + 2))).astype(np.float32)


def session_similarity(given: SignalInputs) -> Float32:
    """Cosine to the session's items, weighted by the age and type of their events, on average."""
    weighted: Float32 = given.cosines @ given.session.weights
    return weighted / np.float32(given.session.strength)


def session_nearest(given: SignalInputs) -> Float32:
    """Cosine to the most similar item of the session, an item counting at most as one view just now."""
    nearest: Float32 = (given.cosines * np.minimum(given.session.weights, 1.0)).max(axis=1)
    return nearest


def session_category(given: SignalInputs) -> Float32:
    """Share of the session, by weight, that is in the candidate's category."""
    return given.affinity("category")


def session_brand(given: SignalInputs) -> Float32:
    """Share of the session, by weight, that is of the candidate's brand."""
    return given.affinity("brand")


def popularity(given: SignalInputs) -> Float32:
    """Interactions of the item, as a share of the most popular one's."""
    shares: Float32 = given.version.column("popularity")[given.pool.items]
    return shares


def freshness(given: SignalInputs) -> Float32:
    """1 on the day of release, half of it every two weeks; 0 where the release is not known."""
    released = given.version.column("released")[given.pool.items]
    age = np.maximum(given.now - released, 0.0)
    fresh: Float32 = np.nan_to_num(0.5 ** (age / FRESH_HALF_LIFE_SECONDS), nan=0.0).astype(np.float32)
    return fresh


@dataclass(frozen=True, slots=True)
class Signal:
    """A named number about a candidate."""

    name: str
    compute: Callable[[SignalInputs], Float32]
    of_session: bool = False
    """Needs a session; 0 without one."""
    default_weight: float = 0.0
    """Until weights are learned. Without a session the order is that of the list."""

    def values(self, given: SignalInputs) -> Float32:
        """float32[n]; what a signal cannot say (a NaN in a column or vector) counts as 0."""
        if given.pool.items.size == 0 or (self.of_session and given.session.is_empty):
            return np.zeros(given.pool.items.shape, np.float32)
        found = self.compute(given)
        return found if np.isfinite(found).all() else np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


SIGNALS: tuple[Signal, ...] = (
    Signal("base_score", base_score, default_weight=1.0),
    Signal("base_rank", base_rank),
    Signal("session_similarity", session_similarity, of_session=True, default_weight=1.0),
    Signal("session_nearest", session_nearest, of_session=True, default_weight=0.5),
    Signal("session_category", session_category, of_session=True, default_weight=0.2),
    Signal("session_brand", session_brand, of_session=True, default_weight=0.1),
    Signal("popularity", popularity),
    Signal("freshness", freshness),
)
"""In the order in which weights are stored. Append only: a version's weights name the signals they belong to."""

BY_NAME: dict[str, Signal] = {signal.name: signal for signal in SIGNALS}


def default_weights(space_id: str) -> RankerWeights:
    """The weights of a version whose ranker has not been trained, bound to its embedding space."""
    return RankerWeights(
        signals=[signal.name for signal in SIGNALS],
        weights=[signal.default_weight for signal in SIGNALS],
        space_id=space_id,
    )
