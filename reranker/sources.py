"""Where candidates come from: one function for each rung's pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import Float32, Indexes, contains
from reranker.fresh import Fresh
from reranker.pool import Pool
from reranker.session import Session
from schemas.record import Candidates
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.reader import Version

STORED_LIST, SESSION_NEIGHBOURS, NEW, TRENDING = "stored_list", "session_neighbours", "new", "trending"
POPULAR, SEGMENT_POPULAR = "popular", "segment_popular"
MAX_NEIGHBOURHOODS = 50
"""Neighbour lists read for one session: those of its most recent items."""


def stored(candidates: Candidates) -> Pool:
    """The user's stored list."""
    return Pool.of_list(candidates.items, candidates.scores, STORED_LIST)


def personal(version: Version, candidates: Candidates, session: Session, serve: Serve, fresh: Fresh | None) -> Pool:
    """The user's stored list; after it neighbours of the session's items, and new and trending ones that suit it.

    Both as many as `serve` says, each part in the order of its base scores, which are as the stored list's: products
    with the user's vector of the version.
    """
    pool = stored(candidates)
    if session.is_empty:
        return pool
    user = version.user_vector(candidates.user_row)
    known = np.sort(candidates.items)
    if serve.neighbour_candidates:
        near, _ = session_neighbours(version, session)
        added = near[~contains(known, near)][: serve.neighbour_candidates]
        pool = pool.extend(*_by_score(added, version.item_vectors[added] @ user), {SESSION_NEIGHBOURS: near})
    if fresh is not None and serve.fresh_candidates:
        suiting = fresh.suiting(candidates.user_row, session, serve.fresh_candidates)
        items, joined = fresh.items[suiting], np.sort(pool.items[pool.listed :])
        # Two small searches: to sort the whole pool would cost more than all the rest.
        places = suiting[~(contains(known, items) | contains(joined, items))]
        pool = pool.extend(*_by_score(fresh.items[places], fresh.vectors[places] @ user), _named(fresh, suiting))
    return pool


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


def session_only(version: Version, session: Session, serve: Serve, fresh: Fresh | None, user_row: int | None) -> Pool:
    """The best neighbours of the session's items, and after them new and trending items that suit it.

    The base score of these is 0, which is what the neighbour lists say of them; they are in the order in which they
    suit. As a rung of its own the pool carries a whole answer, whatever share of another pool neighbours may have.
    """
    items, scores = session_neighbours(version, session)
    limit = max(serve.neighbour_candidates, serve.max_k)
    pool = Pool.of_list(items[:limit], scores[:limit], SESSION_NEIGHBOURS)
    if fresh is not None and serve.fresh_candidates:
        suiting = fresh.suiting(user_row, session, serve.fresh_candidates)
        added = fresh.items[suiting]
        added = added[~contains(np.sort(pool.items), added)]
        pool = pool.extend(added, np.zeros(added.size, np.float32), _named(fresh, suiting))
    return pool


def popular(version: Version, segment: str = "") -> Pool:
    """The popular list of a segment; "" is everybody's."""
    ranked = version.popular(segment)
    return Pool.of_list(ranked.items, ranked.scores, SEGMENT_POPULAR if segment else POPULAR)


def _by_score(items: Indexes, scores: Float32) -> tuple[Indexes, Float32]:
    order = np.argsort(-scores, kind="stable")
    return items[order], scores[order]


def _named(fresh: Fresh, positions: np.ndarray) -> Mapping[str, Indexes]:
    items = fresh.items[positions]
    return {NEW: items[fresh.is_new[positions]], TRENDING: items[fresh.is_trending[positions]]}
