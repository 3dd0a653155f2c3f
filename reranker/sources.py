"""Where candidates come from: one function for each rung's pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import Float32, Indexes, contains
from reranker.pool import Pool
from reranker.session import Session
from schemas.record import Candidates

if TYPE_CHECKING:
    from prediction_store.reader import Version

MAX_NEIGHBOURHOODS = 50
"""Neighbour lists read for one session: those of its most recent items."""


def stored(candidates: Candidates) -> Pool:
    """The user's stored list."""
    return Pool.of_list(candidates.items, candidates.scores)


def personal(version: Version, candidates: Candidates, session: Session, limit: int) -> Pool:
    """The user's stored list, and after it up to `limit` neighbours of the session's items."""
    pool = Pool.of_list(candidates.items, candidates.scores)
    if session.is_empty or limit == 0:
        return pool
    items, _ = session_neighbours(version, session)
    added = items[~contains(np.sort(candidates.items), items)][:limit]
    if added.size == 0:
        return pool
    scores: Float32 = version.item_vectors[added] @ version.user_vector(candidates.user_row)
    order = np.argsort(-scores, kind="stable")
    return pool.extend(added[order], scores[order])


def session_neighbours(version: Version, session: Session) -> tuple[Indexes, Float32]:
    """The neighbours of the session's items, best first: similarity times the event's weight, summed over the session.

    The session's own items may be among them. Equal sums are ordered by dense index.
    """
    lists = [version.neighbours(int(item)) for item in session.items[:MAX_NEIGHBOURHOODS]]
    if not lists:
        return np.empty(0, np.uint32), np.empty(0, np.float32)
    weighted = [near.scores * weight for near, weight in zip(lists, session.weights, strict=False)]
    items, places = np.unique(np.concatenate([near.items for near in lists]), return_inverse=True)
    scores = np.bincount(places, np.concatenate(weighted), minlength=items.size).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return items[order].astype(np.uint32), scores[order]


def session_only(version: Version, session: Session, limit: int) -> Pool:
    """The best `limit` neighbours of the session's items."""
    items, scores = session_neighbours(version, session)
    return Pool.of_list(items[:limit], scores[:limit])


def popular(version: Version, segment: str = "") -> Pool:
    """The popular list of a segment; "" is everybody's."""
    ranked = version.popular(segment)
    return Pool.of_list(ranked.items, ranked.scores)
