"""Places left to chance: what stands there is drawn, so that clicks say how far people look, and not what is good."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence


class Chance:
    """Says what stands at each place: at some of them by chance, at all others the best.

    All places left to chance share out the same items, those that the last of them could have: else what stands further
    up would be better.
    """

    def __init__(self, places: Sequence[int], explore: Sequence[int], among: int, seed: str) -> None:
        """`places`: all that are filled here, ascending; `explore`: which of them chance fills, from `among` items."""
        self._explored = [place for place in places if place in explore]
        others = [place for place in places if place not in explore]
        # Who comes to stand between the first of these and the last does so whatever is drawn.
        self._anyway = sum(self._explored[0] < place < self._explored[-1] for place in others) if self._explored else 0
        self._among = among
        self._dice = random.Random(seed)
        self._shared: list[int] = []  # what was found at the first of these places, and has not been shared out yet
        self._odds = 1.0

    def fill(self, place: int, fitting: Iterator[int], fits: Callable[[int], bool]) -> tuple[int, float] | None:
        """(what stands at a place, how probable it was there); None: nothing is left.

        `fitting`: what is left and fits, best first. Requires: the places come in their order.
        """
        is_explored = place in self._explored
        if not is_explored:
            among = self._best(fitting)
        elif place == self._explored[0]:
            among = self._shared = self._found(fitting)
            self._odds = 1.0 / max(len(among), 1)
        else:
            among = [item for item in self._shared if fits(item)] or list(itertools.islice(fitting, 1))
        if not among:
            return None
        item = self._dice.choice(among)
        odds = self._odds if is_explored and item in self._shared else 1.0
        self._shared = [other for other in self._shared if other != item and place < self._explored[-1]]
        return item, odds

    def _best(self, fitting: Iterator[int]) -> list[int]:
        """The first that is not to be shared out, or else the first; none where there is none."""
        first = list(itertools.islice(fitting, 1 + len(self._shared)))
        return [item for item in first if item not in self._shared][:1] or first[:1]

    def _found(self, fitting: Iterator[int]) -> list[int]:
        """What is shared out: one item at least, if there is any."""
        first = list(itertools.islice(fitting, self._anyway + self._among))
        return first[min(self._anyway, max(len(first) - 1, 0)) :]
