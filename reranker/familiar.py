"""The items that the user knows already, and what becomes of them: hidden, lowered for a while, or shown as usual.

Every item is known in one way only: bought, or else seen in the session, or else seen before, which is in the history
that the version has of the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reranker.arrays import NO_ITEMS, Float32, Indexes, contains
from reranker.session import Session
from reranker.user_tower import UserTower
from schemas.messages import SessionEvent
from schemas.serving_config import Repeat, Serve

if TYPE_CHECKING:
    from prediction_store.reader import Version

BOUGHT, SEEN, SEEN_BEFORE = "bought", "seen", "seen before"


class Lowered(NamedTuple):
    """Items known in one way, whose scores are lowered."""

    how: str
    items: Indexes
    """uint32[m], ascending."""
    by: Float32
    """float32[m]: what is taken from the score, at least 0."""

    def at(self, candidates: Indexes) -> Float32:
        """float32[n]: what is added to the scores of candidates, at most 0."""
        added = np.zeros(candidates.shape, np.float32)
        known = contains(self.items, candidates)
        added[known] = -self.by[np.searchsorted(self.items, candidates[known])]
        return added


class Familiar(NamedTuple):
    """What the user knows, as far as it matters."""

    hidden: Indexes
    """uint32[m] in any order."""
    lowered: tuple[Lowered, ...] = ()
    """Of each way that is lowered, if there is anything."""


def familiar_items(
    events: Iterable[SessionEvent],
    session: Session,
    version: Version,
    serve: Serve,
    *,
    user_row: int | None,
    tower: UserTower | None,
    now: float,
) -> Familiar:
    """What `serve.seen`, `serve.seen_before` and `serve.bought` make of the items that the user knows.

    A discount halves with the age of the latest event. What the version knows has no times: it is as old as the
    version's data, and so never lowered too little.

    Args:
        events: of the session.
        user_row: of the record; None: a user whom the version does not know.
    """
    policies = {BOUGHT: serve.bought, SEEN: serve.seen, SEEN_BEFORE: serve.seen_before}
    consumed = NO_ITEMS if user_row is None else version.consumed(user_row)
    if (serve.bought.policy, serve.seen.policy, serve.seen_before.policy) == ("hide", "hide", "allow"):
        return Familiar(np.concatenate([session.items, session.silent, consumed]))
    history = NO_ITEMS
    if tower is not None and user_row is not None and serve.seen_before.policy != "allow":
        history = tower.history_of(user_row)
    age = max(0.0, now - version.manifest.made_at)
    known: dict[int, tuple[str, float]] = dict.fromkeys(history.tolist(), (SEEN_BEFORE, age))
    known |= dict.fromkeys(consumed.tolist(), (BOUGHT, age))
    known |= _of_session(events, version, set(serve.bought_events), known, now)
    hidden = [item for item, (how, _) in known.items() if policies[how].policy == "hide"]
    return Familiar(np.array(hidden, np.uint32), tuple(_lowered(known, policies)))


def _of_session(
    events: Iterable[SessionEvent],
    version: Version,
    bought_events: set[str],
    known: Mapping[int, tuple[str, float]],
    now: float,
) -> dict[int, tuple[str, float]]:
    """How and since when (seconds) the session's items are known; a view of what was bought leaves it bought then."""
    found: dict[int, tuple[str, float]] = {}
    for event in events:
        index = version.item_index(event.item)
        if index is None:
            continue
        age = 0.0 if event.time is None else max(0.0, now - event.time)
        how = BOUGHT if event.event in bought_events else SEEN
        before = found.get(index, known.get(index, (SEEN_BEFORE, np.inf)))
        if how == before[0]:
            found[index] = (how, min(age, before[1]))
        elif how == BOUGHT or before[0] == SEEN_BEFORE:
            found[index] = (how, age)
    return found


def _lowered(known: Mapping[int, tuple[str, float]], policies: Mapping[str, Repeat]) -> Iterator[Lowered]:
    for how, repeat in policies.items():
        ages = {item: age for item, (kind, age) in known.items() if kind == how}
        if repeat.policy == "discount" and ages:
            items = np.array(sorted(ages), np.uint32)
            halvings = np.array([ages[item] for item in items.tolist()]) / (repeat.half_life_hours * 3600.0)
            yield Lowered(how, items, (repeat.discount * 0.5**halvings).astype(np.float32))
