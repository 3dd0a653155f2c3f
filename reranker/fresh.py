"""New and trending items as a source of candidates: those that suit the user, as the session leaves the user.

The stored list has the best of the whole catalogue for the user of last night. What the session has made of the user
since is asked of few items only, those for which a night is a long time: one small product per request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from reranker.arrays import NO_ITEMS, Float32, Indexes, Mask, Positions

if TYPE_CHECKING:
    from prediction_store.reader import Version

NEW, TRENDING = "new", "trending"
MOST_NEW = 500
MOST_TRENDING = 500


class Fresh(NamedTuple):
    """The new and trending items of one version, ascending. Any number of threads may use it at once."""

    items: Indexes
    """uint32[m]"""
    vectors: Float32
    """float32[m, d]"""
    is_new: Mask
    is_trending: Mask

    @classmethod
    def of(cls, version: Version) -> Self | None:
        """Those released last before the version's data ends, and the first of its trending list, if in stock there.

        Returns None where there are none.
        """
        in_stock = version.in_stock
        new = _newest(version, in_stock)
        trending = version.trending().items
        trending = trending[in_stock[trending]][:MOST_TRENDING]
        items = np.unique(np.concatenate([new, trending])).astype(np.uint32)
        if items.size == 0:
            return None
        return cls(items, version.item_vectors[items], np.isin(items, new), np.isin(items, trending))

    def suiting(self, vector: Float32, count: int) -> Positions:
        """int64[at most count]: positions of what suits a user's vector best, best first; equal ones by position."""
        scores: Float32 = self.vectors @ vector
        if count >= scores.size:
            return np.argsort(-scores, kind="stable")
        # What ties with the last one stays in, so that the place decides and not the partition.
        near = np.flatnonzero(scores >= np.partition(scores, scores.size - count)[scores.size - count])
        best: Positions = near[np.argsort(-scores[near], kind="stable")[:count]]
        return best

    def by_source(self, vector: Float32, count: int) -> Mapping[str, Indexes]:
        """uint32[m]: which items of `suiting` are there because they are new, and which because they are trending."""
        suiting = self.suiting(vector, count)
        items = self.items[suiting]
        return {NEW: items[self.is_new[suiting]], TRENDING: items[self.is_trending[suiting]]}


def _newest(version: Version, in_stock: Mask) -> Indexes:
    """uint32[at most MOST_NEW]: a release that is still to come says nothing."""
    released = version.numbers("released")
    if released is None:
        return NO_ITEMS
    with np.errstate(invalid="ignore"):
        known = np.flatnonzero(in_stock & (released <= version.manifest.made_at))
    order = np.argsort(-released[known], kind="stable")
    return known[order[:MOST_NEW]].astype(np.uint32)
