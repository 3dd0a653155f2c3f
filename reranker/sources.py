"""Where candidates come from: one function for each rung's pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import Float32, Indexes, Mask, contains
from reranker.compiled import is_compiled, kernel
from reranker.fresh import Fresh
from reranker.pool import Pool
from reranker.session import Session
from schemas.record import Candidates
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.reader import NearItems, Version

STORED_LIST, SESSION_NEIGHBOURS, NEW, TRENDING = "stored_list", "session_neighbours", "new", "trending"
POPULAR, SEGMENT_POPULAR = "popular", "segment_popular"
NOTHING: Indexes = np.empty(0, np.uint32)
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
    if serve.neighbour_candidates:
        added, _ = session_neighbours(version, session, candidates.items)
        ordered = in_order(added[: serve.neighbour_candidates], version.item_vectors, user)
        near = version.every_neighbours.items[session.items[:MAX_NEIGHBOURHOODS]].view(np.uint32)  # ends are no items
        pool = pool.extend(*ordered, {SESSION_NEIGHBOURS: near})
    if fresh is not None and serve.fresh_candidates:
        suiting = fresh.suiting(candidates.user_row, session, serve.fresh_candidates)
        items = fresh.items[suiting]
        pool = pool.extend(
            *in_order(items[~are_among(items, pool.items)], version.item_vectors, user), _named(fresh, suiting)
        )
    return pool


def session_neighbours(version: Version, session: Session, known: Indexes = NOTHING) -> tuple[Indexes, Float32]:
    """The neighbours of the session's items, best first: similarity times the event's weight, summed over the session.

    The session's own items may be among them; the known ones are not. Equal sums are ordered by dense index.
    """
    near = version.every_neighbours
    visited, weights = session.items[:MAX_NEIGHBOURHOODS], session.weights[:MAX_NEIGHBOURHOODS]
    if not is_compiled:
        return neighbours_in_numpy(near, visited, weights, known)
    room = visited.size * near.items.shape[1]
    items, scores = np.empty(room, np.uint32), np.empty(room, np.float32)
    count = kernel.neighbours(items, scores, near.items, near.scores, visited, weights, known)
    return items[:count], scores[:count]


def neighbours_in_numpy(near: NearItems, visited: Indexes, weights: Float32, known: Indexes) -> tuple[Indexes, Float32]:
    """As `session_neighbours`, of the visited items by their weights."""
    found = near.items[visited]
    is_item = found >= 0
    items, places = np.unique(found[is_item], return_inverse=True)
    weighted = (near.scores[visited] * weights[:, None])[is_item]
    scores = np.bincount(places, weighted, minlength=items.size).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    order = order[~contains(np.sort(known), items[order].astype(np.uint32))]
    return items[order].astype(np.uint32), scores[order]


def in_order(items: Indexes, vectors: Float32, vector: Float32) -> tuple[Indexes, Float32]:
    """The items by the product of their vectors with one, and these products; equal ones keep their order."""
    if not is_compiled:
        products: Float32 = vectors[items] @ vector
        order = np.argsort(-products, kind="stable")
        return items[order], products[order]
    ordered, scores = items.copy(), np.empty(items.size, np.float32)
    kernel.order(ordered, scores, vectors, vector)
    return ordered, scores


def are_among(items: Indexes, others: Indexes) -> Mask:
    """bool[n]: which of the items, each there once, are among the others, uint32[m] in any order."""
    if not is_compiled:
        return contains(np.sort(others), items)
    found = np.empty(items.shape, np.bool_)
    kernel.among(found, items, others)
    return found


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
        added = added[~are_among(added, pool.items)]
        pool = pool.extend(added, np.zeros(added.size, np.float32), _named(fresh, suiting))
    return pool


def popular(version: Version, segment: str = "") -> Pool:
    """The popular list of a segment; "" is everybody's."""
    ranked = version.popular(segment)
    return Pool.of_list(ranked.items, ranked.scores, SEGMENT_POPULAR if segment else POPULAR)


def _named(fresh: Fresh, positions: np.ndarray) -> Mapping[str, Indexes]:
    items = fresh.items[positions]
    return {NEW: items[fresh.is_new[positions]], TRENDING: items[fresh.is_trending[positions]]}
