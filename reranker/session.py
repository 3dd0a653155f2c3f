"""The session: recent events of one user as the request gives them, weighed and mapped to item indexes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reranker.arrays import NO_ITEMS, NO_NUMBERS, Float32, Indexes
from schemas.messages import SessionEvent
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.reader import Version

UNLISTED_EVENT_WEIGHT = 1.0
"""Weight of an event type that `serve.session_event_weights` does not list, and that the data did not say to be 0."""


class Session(NamedTuple):
    """The distinct items of a session, most recent first; arrays of one length."""

    items: Indexes
    """uint32[s], dense item indexes."""
    weights: Float32
    """float32[s]: 1 is one view just now; sums over the events of an item."""
    ignored: int = 0
    """Events whose item is not in the version."""
    visits: Indexes = NO_ITEMS
    """uint32[e]: the item of each event, oldest first."""
    kinds: tuple[str, ...] = ()
    """The types of these events."""
    old: int = 0
    """So many of these events, the first ones, are from before the end of the version's data, which may have them."""
    silent: Indexes = NO_ITEMS
    """uint32[q], other items: all of their events are of types that weigh nothing. They move no order."""

    @property
    def is_empty(self) -> bool:
        return self.items.size == 0


EMPTY = Session(items=NO_ITEMS, weights=NO_NUMBERS)


def read_session(events: Sequence[SessionEvent], version: Version, serve: Serve, now: float) -> Session:
    """The session that a request's events make in this version.

    An event's weight is its type's, halved every `serve.session_half_life_seconds`; one without a time, or from the
    future, happened now. A type that weighed 0 in training weighs 0 here, unless `serve.session_event_weights` lists
    it. Unknown items are counted and left out.
    """
    if not events:
        return EMPTY
    times = [now if event.time is None or event.time > now else event.time for event in events]
    indexes = version.indexes_of([event.item for event in events])
    # Latest last, and stable: events of one time, or of none, keep the order they were sent in.
    order = sorted(range(len(times)), key=times.__getitem__)
    weights: dict[int, float] = {}
    visits: list[int] = []
    kinds: list[str] = []
    silent: dict[int, None] = {}
    old, made_at = 0, version.manifest.made_at
    half_life = serve.session_half_life_seconds
    weight_of = _weights_of({event.event for event in events}, version, serve)
    for place in order:
        if (index := indexes[place]) is None:
            continue
        kind = events[place].event
        visits.append(index)
        kinds.append(kind)
        old += times[place] < made_at
        if weight_of[kind] == 0.0:
            silent[index] = None
            continue
        weight = weight_of[kind] * 0.5 ** ((now - times[place]) / half_life)
        # Taken out and put back, so that the dictionary's order is that of each item's latest event.
        weights[index] = weights.pop(index, 0.0) + weight
    return Session(
        items=np.array([*reversed(weights)], np.uint32),
        weights=np.array([*reversed(weights.values())], np.float32),
        ignored=len(events) - len(visits),
        visits=np.array(visits, np.uint32),
        kinds=tuple(kinds),
        old=old,
        silent=np.array([item for item in silent if item not in weights], np.uint32),
    )


def _weights_of(kinds: Iterable[str], version: Version, serve: Serve) -> dict[str, float]:
    tower = version.user_tower
    in_training = {} if tower is None else tower.tower.facts.event_weights
    usual = {kind: 0.0 if in_training.get(kind) == 0.0 else UNLISTED_EVENT_WEIGHT for kind in kinds}
    return usual | serve.session_event_weights
