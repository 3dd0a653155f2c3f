"""A pool: the candidates of one rung, best first, before anything of the session is known about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

from reranker.arrays import Float32, Indexes, Positions

Found = Callable[[], Mapping[str, Indexes]]


class Pool(NamedTuple):
    """Distinct candidates, best first; a candidate's position is its base rank, so that no two share one."""

    items: Indexes
    """uint32[n]"""
    base_scores: Float32
    """float32[n], in the units of its source."""
    listed: int
    """How many, from the first on, come from the list; the rest was added for the session."""
    found: Found = dict
    """By source: what it has found, uint32[m] in any order, perhaps also what others have found or what is no
    candidate. Called only where items are explained, because finding the candidates is much cheaper than finding why
    each is one.
    """

    @classmethod
    def of_list(cls, items: Indexes, scores: Float32, source: str = "list") -> Self:
        """What one source has found, best first."""
        return cls(items=items, base_scores=scores, listed=int(items.size), found=lambda: {source: items})

    def extended(self, items: Indexes, scores: Float32, found: Found) -> Self:
        """This pool with other candidates: its own, and after them what another source `found`."""
        before = self.found
        return type(self)(items, scores, self.listed, lambda: {**before(), **found()})

    def sources_of(self, positions: Positions) -> list[list[str]]:
        """The sources that have found each of some candidates."""
        found = self.found()
        return [[source for source, items in found.items() if (items == item).any()] for item in self.items[positions]]
