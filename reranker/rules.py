"""The rules of a configuration, parsed once: what they say of the candidates of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from reranker.arrays import NO_ITEMS, Float32, Indexes, Mask
from reranker.conditions import Columns, Condition, parse
from reranker.errors import ConditionError
from schemas.errors import ShortlistError
from schemas.rules import Rule

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.version import Version


KEPT_BYTES: Final = 64 << 20
"""For what conditions say of all items: a byte for each item and condition."""
Kept = Callable[[str], Mask | None]
"""For which items, bool[n_items], a condition holds, by its text; None: it has to be tried."""


class Effects(NamedTuple):
    """What the rules of a placement say of n candidates."""

    is_allowed: Mask | None
    """None: no rule leaves anything out."""
    boosts: tuple[tuple[str, Float32], ...]
    """Name of a rule, and what it adds to each score."""
    pins: tuple[tuple[int, Mask], ...]
    """(position from 1, the candidates of which the best stands there), ascending by position."""


NO_EFFECTS = Effects(None, (), ())


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that have been parsed, in the order of the configuration."""

    rules: tuple[tuple[Rule, Condition], ...] = ()

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> Rules:
        """Raises ConditionError, with the rule's name and the position, when a condition cannot be read."""
        parsed = []
        for rule in rules:
            try:
                parsed.append((rule, parse(rule.where)))
            except ConditionError as error:
                error.message = f"rule {rule.name!r}: {error.message}"
                raise
        return cls(tuple(parsed))

    def fitting(self, columns: Columns) -> tuple[Rules, list[str]]:
        """(the rules that these columns have an answer to, why each other one has none)."""
        kept, problems = [], []
        for rule, condition in self.rules:
            try:
                condition.holds(columns, NO_ITEMS)
            except ShortlistError as error:
                problems.append(f"rule {rule.name!r}: {error.message}")
            else:
                kept.append((rule, condition))
        return Rules(tuple(kept)), problems

    def at(self, placement: str) -> Rules:
        """Those that hold for a placement."""
        if not self.rules:
            return self
        return Rules(tuple(pair for pair in self.rules if not pair[0].placements or placement in pair[0].placements))

    def keep_in(self, live: LiveView, version: Version) -> None:
        """Find out beforehand for which items each condition holds, as many as there is memory for."""
        conditions = {condition.text: condition for _, condition in self.rules}
        for text, condition in islice(conditions.items(), KEPT_BYTES // max(version.n_items, 1)):
            live.keep(version, text, condition.holds)

    def effects(
        self, columns: Columns, items: Indexes, *, kept: Kept = lambda _: None, wants_all: bool = False
    ) -> Effects:
        """What they say of the items, uint32[n].

        Args:
            kept: what is known beforehand of all items.
            wants_all: a rule judges only items of which something is there in all columns that it names. Others it
                leaves out, whether it excludes or includes, and does not boost or pin.
        """
        if not self.rules:
            return NO_EFFECTS
        is_allowed = np.ones(items.shape, np.bool_)
        included: Mask | None = None
        boosts, pins = [], []
        for rule, condition in self.rules:
            of_all = kept(condition.text)
            holds = condition.holds(columns, items) if of_all is None else of_all[items]
            if wants_all:
                is_judged = condition.is_judged(columns, items)
                holds &= is_judged
                if rule.action == "exclude":
                    is_allowed &= is_judged
            if rule.action == "exclude":
                is_allowed &= ~holds
            elif rule.action == "include":
                included = holds if included is None else included | holds
            elif rule.action == "boost":
                boosts.append((rule.name, np.float32(rule.weight) * holds))
            else:
                pins.append((rule.position, holds))
        if included is not None:
            is_allowed &= included
        return Effects(is_allowed, tuple(boosts), tuple(sorted(pins, key=lambda pin: pin[0])))
