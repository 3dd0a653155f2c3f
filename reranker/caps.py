"""Caps on columns of categories: the most items of one value in an answer."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from reranker.arrays import Indexes
from schemas.live_items import ItemFacts


class Cap(NamedTuple):
    """How many items of one value may be shown."""

    codes: npt.NDArray[np.int32]
    """int32[items]: of each item's value, -1 for none; items without one are not counted."""
    most: int
    name: str = ""
    """Of the column."""
    values: Sequence[str] = ()
    """By code, in byte order."""


class Caps:
    """Caps, and how many of each value are shown: of the version's items, and of those that it lacks."""

    def __init__(self, caps: Iterable[Cap]) -> None:
        self._caps = [(cap, Counter[int | str]()) for cap in caps]

    def by_place(self, items: Indexes) -> Caps:
        """The same caps and counts, which know each of these items by its place among them."""
        found = Caps(())
        found._caps = [(cap._replace(codes=cap.codes[items]), seen) for cap, seen in self._caps]
        return found

    def anew(self) -> Caps:
        """The same caps, nothing being shown yet."""
        return Caps(cap for cap, _ in self._caps)

    def among(self, announced: Sequence[ItemFacts], most: int) -> Sequence[int]:
        """The places of the first `most` that may be shown when they alone are, each after those before it."""
        if not self._caps:
            return range(min(most, len(announced)))
        caps = self.anew()
        return [*islice((place for place, facts in enumerate(announced) if caps.take(facts)), most)]

    def begin_with(self, announced: Iterable[ItemFacts]) -> None:
        """These are shown, and nothing else yet."""
        for _, seen in self._caps:
            seen.clear()
        for facts in announced:
            self.take(facts)

    def allow(self, item: int) -> bool:
        """True when one more of its values may be shown."""
        for cap, seen in self._caps:  # a loop, and `get`: of a hundred candidates each is asked
            code = cap.codes.item(item)
            if code >= 0 and seen.get(code, 0) >= cap.most:
                return False
        return True

    def add(self, item: int) -> None:
        """It is shown."""
        for cap, seen in self._caps:
            seen[cap.codes.item(item)] += 1

    def remove(self, item: int) -> None:
        """It is not shown after all. Requires: it was added."""
        for cap, seen in self._caps:
            seen[cap.codes.item(item)] -= 1

    def add_if_allowed(self, item: int) -> bool:
        """True when one more of its values may be shown; it is shown then."""
        is_allowed = self.allow(item)
        if is_allowed:
            self.add(item)
        return is_allowed

    def add_first(self, items: Sequence[int], most: int) -> list[int]:
        """The places of the first `most` that may be shown, each after those before it; they are shown."""
        return [*islice((place for place, item in enumerate(items) if self.add_if_allowed(item)), most)]

    def take(self, facts: ItemFacts) -> bool:
        """Count an item that the version lacks, if one more of what it is said to be may be shown; else False."""
        found = list(self._of(facts))
        is_allowed = all(seen[value] < most for value, most, seen in found)
        if is_allowed:
            for value, _, seen in found:
                seen[value] += 1
        return is_allowed

    def _of(self, facts: ItemFacts) -> Iterator[tuple[int | str, int, Counter[int | str]]]:
        """Its code, or its value where the version has none for it; the most of it, and how many there are."""
        for cap, seen in self._caps:
            value = getattr(facts, cap.name, UNSET)
            if isinstance(value, str):
                code = bisect_left(cap.values, value)
                yield code if cap.values[code : code + 1] == [value] else value, cap.most, seen


NO_CAPS = Caps(())
