"""A pool: the candidates of one rung, best first, before anything of the session is known about them."""

from __future__ import annotations

from dataclasses import dataclass

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
    """The first so many come from the stored list; the rest was added for the session."""

    @classmethod
    def of_list(cls, items: Indexes, scores: Float32) -> Pool:
        return cls(items=items, base_scores=scores, listed=int(items.size))

    def extend(self, items: Indexes, scores: Float32) -> Pool:
        """This pool with more candidates after its own. Requires: none of them is in it."""
        return Pool(
            items=np.concatenate([self.items, items]),
            base_scores=np.concatenate([self.base_scores, scores]),
            listed=self.listed,
        )
