"""The signals, each defined once: a name and one vectorised function over the candidates.

The same functions serve, train the weights and check for skew. A new signal is one function and one line in SIGNALS.
Every signal is float32[n], finite, about 0 where it has nothing to say and about 1 where it says the most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reranker.arrays import Float32
from reranker.signal_inputs import SignalInputs
from schemas.ranker import RankerWeights

FRESH_HALF_LIFE_SECONDS = 14 * 86_400.0
TOGETHER_ITEMS = 10
"""Of the session, the latest, whose companions are looked up."""
TINY = 1e-9


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


def session_last(given: SignalInputs) -> Float32:
    """Cosine to the item of the latest event."""
    return given.cosines[:, 0]


def session_mean(given: SignalInputs) -> Float32:
    """Cosine to the weighted mean of the session's vectors, each of length 1: what the session is about."""
    return given.toward(given.session.weights @ given.visited)


def refreshed_user(given: SignalInputs) -> Float32:
    """Cosine to the user's vector, made anew with the session in it."""
    vector = given.refreshed()
    return np.zeros(given.pool.items.shape, np.float32) if vector is None else given.toward(vector)


def together_last(given: SignalInputs) -> Float32:
    """How often the candidate is met in one session with the item of the latest event."""
    return given.met_together(1)


def together_session(given: SignalInputs) -> Float32:
    """How often it is met with the last items of the session, on average by the weights of their events."""
    return given.met_together(TOGETHER_ITEMS)


def session_price(given: SignalInputs) -> Float32:
    """1 at the session's usual price, by weight; half of it at twice or half that price; 0 where no price is known."""
    prices = given.version.column("price")
    visited, weights = prices[given.session.items], given.session.weights
    is_known = visited > 0
    if not is_known.any():
        return np.zeros(given.pool.items.shape, np.float32)
    usual = np.average(np.log2(visited[is_known]), weights=weights[is_known] + TINY)
    with np.errstate(divide="ignore", invalid="ignore"):
        octaves = np.abs(np.log2(prices[given.pool.items]) - usual)
    found: Float32 = np.nan_to_num(0.5**octaves, nan=0.0).astype(np.float32)
    return found


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
    age = np.maximum(given.at.now - released, 0.0)
    fresh: Float32 = np.nan_to_num(0.5 ** (age / FRESH_HALF_LIFE_SECONDS), nan=0.0).astype(np.float32)
    return fresh


def trend(given: SignalInputs) -> Float32:
    """How much of the item's popularity is recent."""
    return given.number("trend")


def in_list(given: SignalInputs) -> Float32:
    """1 for what stands in the list itself, 0 for what was added because of the session."""
    return (np.arange(given.pool.items.size) < given.pool.listed).astype(np.float32)


def at_hour(given: SignalInputs) -> Float32:
    """How much more often than usual the item is met at this hour of the day."""
    return given.in_context("hour", str(given.hour))


def on_weekday(given: SignalInputs) -> Float32:
    """How much more often than usual it is met on this day of the week."""
    return given.in_context("weekday", str(given.weekday))


def on_device(given: SignalInputs) -> Float32:
    """How much more often than usual it is met on the request's device."""
    return given.in_context("device", given.at.device)


def ignored(given: SignalInputs) -> Float32:
    """0 for what the user was not shown lately; 1/2, 3/4, … after one, two, … times without a click."""
    found = np.zeros(given.pool.items.shape, np.float32)
    if given.at.shown:
        ascending, positions = given.places
        items = np.fromiter(given.at.shown, np.uint32)
        times = np.fromiter(given.at.shown.values(), np.float32)
        places = np.minimum(np.searchsorted(ascending, items), len(ascending) - 1)
        is_there = ascending[places] == items
        found[positions[places[is_there]]] = 1.0 - 0.5 ** times[is_there]
    return found


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
    Signal("in_list", in_list),
    Signal("session_similarity", session_similarity, of_session=True, default_weight=1.0),
    Signal("session_nearest", session_nearest, of_session=True, default_weight=0.5),
    Signal("session_last", session_last, of_session=True),
    Signal("session_mean", session_mean, of_session=True),
    Signal("refreshed_user", refreshed_user, of_session=True),
    Signal("together_last", together_last, of_session=True),
    Signal("together_session", together_session, of_session=True),
    Signal("session_category", session_category, of_session=True, default_weight=0.2),
    Signal("session_brand", session_brand, of_session=True, default_weight=0.1),
    Signal("session_price", session_price, of_session=True),
    Signal("at_hour", at_hour),
    Signal("on_weekday", on_weekday),
    Signal("on_device", on_device),
    Signal("popularity", popularity),
    Signal("trend", trend),
    Signal("freshness", freshness),
    Signal("ignored", ignored, default_weight=-0.5),
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
