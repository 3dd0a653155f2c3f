"""The rules that a session re-ranker has to beat: session neighbours, item-to-item, popularity. Counts, no learning.

A rule knows the sessions that it was made of, and those that were added since.

Source: Ludewig, Jannach 2018, Evaluation of session-based recommendation algorithms (V-SKNN and association rules, with
the settings found best there).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from jobs.trending_then import Events
from reranker.decayed_counts import HALF_LIFE_SECONDS, QUIET_SECONDS

NEIGHBOURS, SAMPLE = 100, 1000
"""Sessions that vote, and recent sessions with an item in common among which they are found."""

Scores = Mapping[str, float]
"""Item id to score; an item that is not in it has none."""


class Rule(Protocol):
    """Scores what may come next in a session of item ids, oldest first."""

    def add(self, session: Sequence[str], /) -> None:
        """Count one more session, of item ids, which is over later than all before."""
        ...

    def scores(self, session: Sequence[str], /) -> Scores: ...


class SessionNeighbours:
    """V-SKNN: past sessions that have items in common with this one vote for what else they held."""

    def __init__(self, sessions: Sequence[Sequence[str]]) -> None:
        """`sessions`: the item ids of each, oldest session first."""
        self._sessions: list[frozenset[str]] = []
        self._with_item: dict[str, list[int]] = defaultdict(list)
        for session in sessions:
            self.add(session)

    def add(self, session: Sequence[str]) -> None:
        for item in frozenset(session):
            self._with_item[item].append(len(self._sessions))
        self._sessions.append(frozenset(session))

    def scores(self, session: Sequence[str]) -> Scores:
        """`session`: item ids, oldest first; later ones count more, linearly."""
        weight: dict[str, float] = {}
        for place, item in enumerate(session, start=1):
            weight[item] = place / len(session)
        touched = {number for item in weight for number in self._with_item.get(item, ())}
        recent = sorted(touched, reverse=True)[:SAMPLE]
        likeness = {number: sum(weight[item] for item in self._sessions[number] & weight.keys()) for number in recent}
        nearest = sorted(likeness, key=lambda number: (-likeness[number], -number))[:NEIGHBOURS]
        found: dict[str, float] = defaultdict(float)
        for number in nearest:
            held = self._sessions[number]
            latest = max((place for place, item in enumerate(session) if item in held), default=0)
            decay = 1.0 - 0.1 * (len(session) - 1 - latest) if len(session) - 1 - latest < 10 else 0.0
            for item in held - weight.keys():
                rarity = math.log(len(self._sessions) / len(self._with_item[item]))
                found[item] += likeness[number] * decay * rarity
        return found


class ItemToItem:
    """Association rules: how many past sessions held an item together with the last one of this session."""

    def __init__(self, sessions: Sequence[Sequence[str]]) -> None:
        self._together: dict[str, Counter[str]] = defaultdict(Counter)
        for session in sessions:
            self.add(session)

    def add(self, session: Sequence[str]) -> None:
        items = sorted(set(session))
        for place, item in enumerate(items):
            self._together[item].update(items[:place] + items[place + 1 :])

    def scores(self, session: Sequence[str]) -> Scores:
        return self._together.get(session[-1], {})


class Popularity:
    """How many past sessions held the item."""

    def __init__(self, sessions: Sequence[Sequence[str]]) -> None:
        self._counts = Counter[str]()
        for session in sessions:
            self.add(session)

    def add(self, session: Sequence[str]) -> None:
        self._counts.update(set(session))

    def scores(self, session: Sequence[str]) -> Scores:
        return self._counts


def wanted_now(events: Events, now: float) -> Scores:
    """How many users have just wanted each item: one each, of the last time, half of it after every half life."""
    first, last = np.searchsorted(events.time, [now - QUIET_SECONDS, now])
    latest = {(events.item[n], events.user[n]): events.time[n] for n in range(first, last)}
    found: dict[str, float] = defaultdict(float)
    for (item, _), met_at in latest.items():
        found[events.items[item]] += 0.5 ** ((now - met_at) / HALF_LIFE_SECONDS)
    return found
