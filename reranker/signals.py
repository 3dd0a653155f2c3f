"""The signals, each defined once: a name, and one function that gives the form of what it says of the candidates.

The same functions serve, train the weights and check for skew. A new signal is one function and one line in SIGNALS;
one that fits no form of `forms` computes its numbers itself and gives them as `Placed`.
Every signal is float32[n], finite, about 0 where it has nothing to say and about 1 where it says the most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reranker.arrays import Float32
from reranker.forms import Before, Form, Halving, Nearest, NearNumber, Placed, Share, Together, Toward
from reranker.signal_inputs import SignalInputs
from schemas.ranker import RankerWeights

FRESH_HALF_LIFE_SECONDS = 14 * 86_400.0
TOGETHER_ITEMS = 10
"""Of the session, the latest, whose companions are looked up."""
FIRST_LIST, ONCE = np.zeros(1, np.uint32), np.ones(1, np.float32)


def discounts(count: int) -> Float32:
    """float32[count], by place."""
    return (1.0 / np.log2(np.arange(2, count + 2))).astype(np.float32)


DISCOUNTS = discounts(4096)
"""Of the places that there usually are."""


def base_score(given: SignalInputs) -> Form | None:
    """The score of the list the candidate came from, so that the list's last is 0 and its first 1."""
    return Share(given.pool.base_scores, given.pool.listed)


def base_rank(given: SignalInputs) -> Form | None:
    """The place in that list, discounted as in DCG: 1 for the first, 0.63 for the second, 0.1 for the thousandth."""
    count = given.pool.items.size
    return Placed(DISCOUNTS if count <= len(DISCOUNTS) else discounts(count))


def in_list(given: SignalInputs) -> Form | None:
    """1 for what stands in the list itself, 0 for what was added because of the session."""
    return Before(given.pool.listed)


def session_similarity(given: SignalInputs) -> Form | None:
    """Cosine to the session's items, weighted by the age and type of their events, on average."""
    return Toward(given.visited, given.session.weights, False)


def session_nearest(given: SignalInputs) -> Form | None:
    """Cosine to the most similar item of the session, an item counting at most as one view just now."""
    return Nearest(given.visited, given.session.weights)


def session_last(given: SignalInputs) -> Form | None:
    """Cosine to the item of the latest event."""
    return Toward(given.visited[:1], ONCE, False)


def session_mean(given: SignalInputs) -> Form | None:
    """Cosine to the weighted mean of the session's vectors, each of length 1: what the session is about."""
    return Toward(given.visited, given.session.weights, True)


def refreshed_user(given: SignalInputs) -> Form | None:
    """Cosine to the user's vector, made anew with the session in it."""
    vector = given.refreshed()
    return None if vector is None else Toward(vector[None], ONCE, True)


def together_last(given: SignalInputs) -> Form | None:
    """How often the candidate is met in one session with the item of the latest event."""
    return given.met_together(1)


def together_session(given: SignalInputs) -> Form | None:
    """How often it is met with the last items of the session, on average by the weights of their events."""
    return given.met_together(TOGETHER_ITEMS)


def session_price(given: SignalInputs) -> Form | None:
    """1 at the session's usual price, by weight; half of it at twice or half that price; 0 where no price is known."""
    return NearNumber(given.column("price"), given.session.items, given.session.weights)


def session_category(given: SignalInputs) -> Form | None:
    """Share of the session, by weight, that is in the candidate's category."""
    return given.affinity("category")


def session_brand(given: SignalInputs) -> Form | None:
    """Share of the session, by weight, that is of the candidate's brand."""
    return given.affinity("brand")


def popularity(given: SignalInputs) -> Form | None:
    """Interactions of the item, as a share of the most popular one's."""
    return given.of_item("popularity")


def freshness(given: SignalInputs) -> Form | None:
    """1 at the release, half of it every two weeks, as the hour begins; 0 where the release is not known."""
    return Halving(given.column("released"), given.at.hour_began, FRESH_HALF_LIFE_SECONDS)


def trend(given: SignalInputs) -> Form | None:
    """How much of the item's popularity is recent."""
    return given.of_item("trend")


def at_hour(given: SignalInputs) -> Form | None:
    """How much more often than usual the item is met at this hour of the day."""
    return given.in_context("hour", str(given.at.hour))


def on_weekday(given: SignalInputs) -> Form | None:
    """How much more often than usual it is met on this day of the week."""
    return given.in_context("weekday", str(given.at.weekday))


def on_device(given: SignalInputs) -> Form | None:
    """How much more often than usual it is met on the request's device."""
    return given.in_context("device", given.at.device)


def ignored(given: SignalInputs) -> Form | None:
    """0 for what the user was not shown lately; 1/2, 3/4, … after one, two, … times without a click."""
    shown = given.at.shown
    if not shown:
        return None
    items = np.fromiter(shown, np.int32)[None]  # one list, [1, m]
    missed = 1.0 - 0.5 ** np.fromiter(shown.values(), np.float32)[None]
    return Together(items, missed.astype(np.float32), FIRST_LIST, ONCE)


def known(values: Float32) -> Float32:
    """The values; what is not finite (a NaN in a column or vector) counts as 0."""
    return values if np.isfinite(values).all() else np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


@dataclass(frozen=True, slots=True)
class Signal:
    """A named number about a candidate."""

    name: str
    compute: Callable[[SignalInputs], Form | None]
    """None: it has nothing to say of any candidate."""
    of_session: bool = False
    """Needs a session; 0 without one."""
    of_hour: bool = False
    """The same for whoever asks within the hour: of the item alone, and of the time by its hour."""
    default_weight: float = 0.0
    """Until weights are learned. Without a session the order is that of the list."""

    def values(self, given: SignalInputs) -> Float32:
        """float32[n]; what a signal cannot say (a NaN in a column or vector) counts as 0."""
        (form,) = forms_of([self], given)
        return np.zeros(given.pool.items.shape, np.float32) if form is None else known(form.values(given))


def forms_of(signals: Sequence[Signal], given: SignalInputs) -> list[Form | None]:
    """What each signal looks at in this request; None: it has nothing to say."""
    if given.pool.items.size == 0:
        return [None] * len(signals)
    is_empty = given.session.is_empty
    return [None if is_empty and signal.of_session else signal.compute(given) for signal in signals]


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
    Signal("at_hour", at_hour, of_hour=True),
    Signal("on_weekday", on_weekday, of_hour=True),
    Signal("on_device", on_device),
    Signal("popularity", popularity, of_hour=True),
    Signal("trend", trend, of_hour=True),
    Signal("freshness", freshness, of_hour=True),
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
