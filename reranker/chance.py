"""Places left to chance: what stands there is drawn, so that clicks say how far people look, and not what is good."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import islice

from reranker.caps import Caps


class Chance:
    """Says what stands at each place: at some of them by chance, at all others the best.

    All places left to chance share out the same items, those that the last of them could have: else what stands further
    up would be better. Of these are left out those that the caps do not allow beside the better ones: so whatever is
    drawn takes nothing from the others, and each stands at each of the places as often.
    """

    def __init__(self, places: Sequence[int], explore: Sequence[int], among: int, seed: str, *, caps: Caps) -> None:
        """`places`: all that are filled here, ascending; `explore`: which of them chance fills, from `among` items.

        `caps` count what is filled in.
        """
        self._explored = [place for place in places if place in explore]
        others = [place for place in places if place not in explore]
        # Who comes to stand between the first of these and the last does so whatever is drawn.
        self._anyway = sum(self._explored[0] < place < self._explored[-1] for place in others) if self._explored else 0
        self._among = among
        self._dice = random.Random(seed)
        self._caps = caps
        self._shared: list[int] = []  # found at the first of these places and not shared out yet; the caps count it
        self._odds = 1.0

    def fill(self, place: int, worthy: Iterable[int]) -> tuple[int, float] | None:
        """(what stands at a place, how probable it was there); None: nothing is left.

        `worthy`: what is left, best first. Requires: the places come in their order.
        """
        is_explored = place in self._explored
        if is_explored and place == self._explored[0]:
            self._shared = self._found(worthy)
            self._odds = 1.0 / max(len(self._shared), 1)
        among = self._shared if is_explored and self._shared else self._best(worthy)
        if not among:
            return None
        item = self._dice.choice(among)
        is_shared = item in self._shared
        if is_shared:
            self._shared.remove(item)
        else:
            self._caps.add(item)
        if is_explored and place == self._explored[-1]:
            self._give_back(self._shared)
            self._shared = []
        return item, self._odds if is_explored and is_shared else 1.0

    def _best(self, worthy: Iterable[int]) -> list[int]:
        """The first that fits and is not to be shared out, or else the first of these; none where there is none."""
        fitting = (item for item in worthy if item not in self._shared and self._caps.allow(item))
        best = next(fitting, None)
        return self._shared[:1] if best is None else [best]

    def _found(self, worthy: Iterable[int]) -> list[int]:
        """What is shared out: one item at least, if there is any."""
        left = iter(worthy)
        anyway = [*islice(filter(self._caps.add_if_allowed, left), self._anyway)]
        first = [*islice(filter(self._caps.allow, left), self._among)]
        shared = [*filter(self._caps.add_if_allowed, first)]
        if not shared and anyway:
            shared = [anyway.pop()]
        self._give_back(anyway)
        return shared

    def _give_back(self, items: Iterable[int]) -> None:
        for item in items:
            self._caps.remove(item)
