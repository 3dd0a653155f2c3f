"""The rules that a session re-ranker has to beat: session neighbours, item-to-item, popularity. Counts, no learning.

Source: Ludewig, Jannach 2018, Evaluation of session-based recommendation algorithms (V-SKNN and association rules, with
the settings found best there).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

NEIGHBOURS, SAMPLE = 100, 1000
"""Sessions that vote, and recent sessions with an item in common among which they are found."""

Scores = Mapping[str, float]
"""Item id to score; an item that is not in it has none."""


class Rule(Protocol):
    """Scores what may come next in a session of item ids, oldest first."""

    def scores(self, session: Sequence[str], /) -> Scores: ...


class SessionNeighbours:
    """V-SKNN: past sessions that have items in common with this one vote for what else they held."""

    def __init__(self, sessions: Sequence[Sequence[str]]) -> None:
        """`sessions`: the item ids of each, oldest session first."""
        self._sessions = [frozenset(session) for session in sessions]
        self._with_item: dict[str, list[int]] = defaultdict(list)
        for number, items in enumerate(self._sessions):
            for item in items:
                self._with_item[item].append(number)
        self._rarity = {item: math.log(len(sessions) / len(held)) for item, held in self._with_item.items()}

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
                found[item] += likeness[number] * decay * self._rarity[item]
        return found


class ItemToItem:
    """Association rules: how many past sessions held an item together with the last one of this session."""

    def __init__(self, sessions: Sequence[Sequence[str]]) -> None:
        self._together: dict[str, Counter[str]] = defaultdict(Counter)
        for session in sessions:
            items = sorted(set(session))
            for item in items:
                self._together[item].update(items)
        for item, counts in self._together.items():
            del counts[item]

    def scores(self, session: Sequence[str]) -> Scores:
        return self._together.get(session[-1], {})


class Popularity:
    """How many past sessions held the item."""

    def __init__(self, sessions: Sequence[Sequence[str]]) -> None:
        self._counts = Counter(item for session in sessions for item in set(session))

    def scores(self, session: Sequence[str]) -> Scores:
        return self._counts
