"""The signals, each defined once: a name, and one function that gives the form of what it says of the candidates.

The same functions serve, train the weights and check for skew. A new signal is one function and one line in SIGNALS;
one that fits no form of `forms` gives a function of the request as `Computed`, in NumPy.
Every signal is float32[n], finite, about 0 where it has nothing to say and about 1 where it says the most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reranker.arrays import Float32
from reranker.catalogue import Catalogue
from reranker.forms import (
    LATEST,
    MEAN,
    SESSION,
    USER,
    Before,
    Form,
    Halving,
    Met,
    Missed,
    Nearest,
    NearNumber,
    OfItem,
    Placed,
    Share,
    Toward,
    values_of,
)
from reranker.signal_inputs import SignalInputs
from schemas.ranker import RankerWeights

FRESH_HALF_LIFE_SECONDS = 14 * 86_400.0
TOGETHER_ITEMS = 10
"""Of the session, the latest, whose companions are looked up."""
DISCOUNTS: Float32 = (1.0 / np.log2(np.arange(2, 8194))).astype(np.float32)
"""By place, of more places than there usually are."""


def base_score(catalogue: Catalogue) -> Form | None:
    """The score of the list the candidate came from, so that the list's last is 0 and its first 1."""
    return Share()


def base_rank(catalogue: Catalogue) -> Form | None:
    """The place in that list, discounted as in DCG: 1 for the first, 0.63 for the second, 0.1 for the thousandth."""
    return Placed(DISCOUNTS)


def in_list(catalogue: Catalogue) -> Form | None:
    """1 for what stands in the list itself, 0 for what was added because of the session."""
    return Before()


def session_similarity(catalogue: Catalogue) -> Form | None:
    """Cosine to the session's items, weighted by the age and type of their events, on average."""
    return Toward(SESSION)


def session_nearest(catalogue: Catalogue) -> Form | None:
    """Cosine to the most similar item of the session, an item counting at most as one view just now."""
    return Nearest()


def session_last(catalogue: Catalogue) -> Form | None:
    """Cosine to the item of the latest event."""
    return Toward(LATEST)


def session_mean(catalogue: Catalogue) -> Form | None:
    """Cosine to the weighted mean of the session's vectors, each of length 1: what the session is about."""
    return Toward(MEAN)


def refreshed_user(catalogue: Catalogue) -> Form | None:
    """Cosine to the user's vector, made anew with the session in it."""
    return Toward(USER)


def together_last(catalogue: Catalogue) -> Form | None:
    """How often the candidate is met in one session with the item of the latest event."""
    return catalogue.met_together(1)


def together_session(catalogue: Catalogue) -> Form | None:
    """How often it is met with the last items of the session, on average by the weights of their events."""
    return catalogue.met_together(TOGETHER_ITEMS)


def session_price(catalogue: Catalogue) -> Form | None:
    """1 at the session's usual price, by weight; half of it at twice or half that price; 0 where no price is known."""
    prices = catalogue.column("price")
    return None if prices is None else NearNumber(prices)


def session_category(catalogue: Catalogue) -> Form | None:
    """Share of the session, by weight, that is in the candidate's category."""
    return catalogue.affinity("category")


def session_brand(catalogue: Catalogue) -> Form | None:
    """Share of the session, by weight, that is of the candidate's brand."""
    return catalogue.affinity("brand")


def popularity(catalogue: Catalogue) -> Form | None:
    """Interactions of the item, as a share of the most popular one's."""
    return catalogue.of_item("popularity")


def freshness(catalogue: Catalogue) -> Form | None:
    """1 at the release, half of it every two weeks, as the hour begins; 0 where the release is not known."""
    released = catalogue.column("released")
    return None if released is None else Halving(released, catalogue.at.hour_began, FRESH_HALF_LIFE_SECONDS)


def trend(catalogue: Catalogue) -> Form | None:
    """How much of the item's popularity is recent."""
    return catalogue.of_item("trend")


def at_hour(catalogue: Catalogue) -> Form | None:
    """How much more often than usual the item is met at this hour of the day, UTC."""
    return catalogue.in_context("hour", str(catalogue.at.hour))


def on_weekday(catalogue: Catalogue) -> Form | None:
    """How much more often than usual it is met on this day of the week, UTC."""
    return catalogue.in_context("weekday", str(catalogue.at.weekday))


def on_device(catalogue: Catalogue) -> Form | None:
    """How much more often than usual it is met on the request's device."""
    return catalogue.in_context("device", catalogue.at.device)


def ignored(catalogue: Catalogue) -> Form | None:
    """0 for what the user was not shown lately; 1/2, 3/4, … after one, two, … times without a click."""
    return Missed()


def met_before(catalogue: Catalogue) -> Form | None:
    """0 for what is new to the user; 1/2, 3/4, … for what is once, twice, … among the last interactions that the
    version knows of: what is bought or read again and again."""
    return Met()


def trending_now(catalogue: Catalogue) -> Form | None:
    """1 for the item with which most users have done something in the last hours, the earlier for less; less for
    others, by the logarithm, and 0 for what is not among the first of them."""
    now = catalogue.at.trending
    return None if now is None else OfItem(now.counts)


@dataclass(frozen=True, slots=True)
class Signal:
    """A named number about a candidate."""

    name: str
    compute: Callable[[Catalogue], Form | None]
    """None: it has nothing to say of any candidate."""
    of_session: bool = False
    """Needs a session; 0 without one."""
    of_hour: bool = False
    """The same for whoever asks within the hour from such a device, as long as the same is trending: of the item alone,
    and of the time by its hour."""
    default_weight: float = 0.0
    """Until weights are learned. Without a session the order is that of the list."""

    def values(self, given: SignalInputs) -> Float32:
        """float32[n]; what a signal cannot say (a NaN in a column or vector) counts as 0."""
        is_silent = self.of_session and given.session.is_empty
        return values_of(None if is_silent else self.compute(Catalogue(given.version, given.at)), given)


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
    Signal("on_device", on_device, of_hour=True),
    Signal("popularity", popularity, of_hour=True),
    Signal("trend", trend, of_hour=True),
    Signal("freshness", freshness, of_hour=True),
    Signal("ignored", ignored, default_weight=-0.5),
    Signal("met_before", met_before),
    Signal("trending_now", trending_now, of_hour=True),
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
