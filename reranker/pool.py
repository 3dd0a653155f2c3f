"""A pool: the candidates of one rung, best first, before anything of the session is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from reranker.arrays import Float32, Indexes


@dataclass(frozen=True, slots=True)
class Pool:
    """Distinct candidates, best first; a candidate's position is its base rank, so that no two share one."""

    items: Indexes
    """uint32[n]"""
    base_scores: Float32
    """float32[n], in the units of its source."""
    listed: int
    """The first so many come from the list; the rest was added for the session."""
    found: Mapping[str, Indexes] = field(default_factory=dict)
    """Source to what it has found, uint32[m] in any order: perhaps also what others have, or what is no candidate."""

    @classmethod
    def of_list(cls, items: Indexes, scores: Float32, source: str = "list") -> Pool:
        """What one source has found, best first."""
        return cls(items=items, base_scores=scores, listed=int(items.size), found={source: items})

    def extend(self, items: Indexes, scores: Float32, found: Mapping[str, Indexes]) -> Pool:
        """This pool with more candidates after its own. Requires: none of them is in it."""
        return Pool(
            items=np.concatenate([self.items, items]),
            base_scores=np.concatenate([self.base_scores, scores]),
            listed=self.listed,
            found={**self.found, **found},
        )

    def sources_of(self, position: int) -> list[str]:
        """The sources that have found a candidate."""
        item = self.items[position]
        return [source for source, items in self.found.items() if (items == item).any()]
