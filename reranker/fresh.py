"""New and trending items as a source of candidates: those that suit the user, as the session leaves the user.

The stored list has the best of the whole catalogue for the user of last night. What the session has made of the user
since is asked of few items only, those for which a night is a long time: one small product per request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from reranker.arrays import Float32, Indexes, Mask, Positions
from reranker.session import Session
from reranker.user_tower import UserTower

if TYPE_CHECKING:
    from prediction_store.reader import Version

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
    tower: UserTower

    @classmethod
    def of(cls, version: Version, tower: UserTower | None) -> Self | None:
        """Those released last before the version's data ends, and the first of its trending list, if in stock there.

        Returns None where there are none, or no tower to make the user's vector anew.
        """
        if tower is None:
            return None
        in_stock = np.asarray(version.column("in_stock")).astype(np.bool_)
        new = _newest(version, in_stock)
        trending = version.trending().items
        trending = trending[in_stock[trending]][:MOST_TRENDING]
        items = np.unique(np.concatenate([new, trending])).astype(np.uint32)
        if items.size == 0:
            return None
        return cls(items, version.item_vectors[items], np.isin(items, new), np.isin(items, trending), tower)

    def suiting(self, user_row: int | None, session: Session, count: int) -> Positions:
        """int64[at most count]: positions of what suits the user best, best first: by product with the new vector.

        `user_row` is of the record; None: a user whom the version does not know.
        """
        vector = self.tower.refreshed(user_row, session.visits, self.tower.weights_of(session.kinds))
        scores: Float32 = self.vectors @ vector
        if count >= scores.size:
            return np.argsort(-scores, kind="stable")
        # What ties with the last one stays in, so that the place decides and not the partition.
        near = np.flatnonzero(scores >= np.partition(scores, scores.size - count)[scores.size - count])
        best: Positions = near[np.argsort(-scores[near], kind="stable")[:count]]
        return best


def _newest(version: Version, in_stock: Mask) -> Indexes:
    """uint32[at most MOST_NEW]: a release that is still to come says nothing."""
    if "released" not in version.manifest.columns:
        return np.empty(0, np.uint32)
    released = np.asarray(version.column("released"), np.float64)
    with np.errstate(invalid="ignore"):
        known = np.flatnonzero(in_stock & (released <= version.manifest.made_at))
    order = np.argsort(-released[known], kind="stable")
    return known[order[:MOST_NEW]].astype(np.uint32)
