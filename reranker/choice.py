"""Which of the scored candidates are shown: the best ones, or as far as the shop's constraints let them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prediction_store.errors import StoreError
from prediction_store.reader import CategoryColumn, TextColumn
from reranker.arrays import Float32, Mask
from reranker.caps import Cap, Caps
from reranker.ordering import Ordered, as_they_are, order
from reranker.ranking import top
from reranker.signal_inputs import SignalInputs
from schemas.rules import Order

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version

PLAIN = Order()
"""Nothing but the best is wanted."""


def caps_of(version: Version, live: LiveView, wanted: Order) -> Caps:
    """The caps, nothing being shown yet. A column that the version has not, or that has no categories, caps nothing."""
    columns = {name: live.column(version, name) for name in wanted.caps if version.texts(name) is not None}
    fitting = ((name, column) for name, column in columns.items() if isinstance(column, CategoryColumn))
    return Caps(Cap(column.codes, wanted.caps[name], name, column.values) for name, column in fitting)


def unfit_caps(version: Version, wanted: Order) -> list[str]:
    """Why each cap that caps nothing does so."""
    problems = []
    for name in wanted.caps:
        try:
            column = version.column(name)
        except StoreError as error:
            problems.append(f"cap {name!r}: {error.message}")
            continue
        if not isinstance(column, CategoryColumn):
            kind = "texts" if isinstance(column, TextColumn) else "numbers"
            problems.append(f"cap {name!r}: it is a column of {kind}; wanted one of categories")
    return problems


def is_plain(wanted: Order, pins: Sequence[tuple[int, Mask]]) -> bool:
    """True when the best are what is shown, and what the others score does not matter."""
    return not pins and wanted == PLAIN


def choose(
    given: SignalInputs,
    scores: Float32,
    allowed: Mask,
    k: int,
    wanted: Order,
    *,
    caps: Caps,
    pins: Sequence[tuple[int, Mask]],
    seed: str,
    is_first: bool,
) -> Ordered:
    """At most k of the allowed candidates, in order. `caps` count on.

    Pins and chance hold for the pool that the answer begins with, whose positions are those of the answer: for others
    there are no `pins`.
    """
    if is_plain(wanted, pins):
        return as_they_are(top(scores, allowed, k))
    return order(
        scores,
        allowed,
        k,
        items=given.pool.items,
        caps=caps,
        pins=pins,
        diversity=wanted.diversity,
        vectors=given.vectors_at if wanted.diversity else None,
        explore=wanted.explore_positions if is_first else (),
        explore_among=wanted.explore_among,
        seed=seed,
    )


def unchanged(wanted: Order) -> Order:
    """What is left of it where nothing may change the order of a list: the caps."""
    return Order(caps=wanted.caps) if wanted.caps else PLAIN
