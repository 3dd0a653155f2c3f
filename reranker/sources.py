"""Where candidates come from: one function for each rung's pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import Float32, Indexes, contains
from reranker.compiled import is_compiled, kernel
from reranker.pool import Pool
from reranker.session import Session
from schemas.record import Candidates

if TYPE_CHECKING:
    from prediction_store.reader import NearItems, Version

NOTHING: Indexes = np.empty(0, np.uint32)
MAX_NEIGHBOURHOODS = 50
"""Neighbour lists read for one session: those of its most recent items."""


def personal(version: Version, candidates: Candidates, session: Session, limit: int) -> Pool:
    """The user's stored list, and after it up to `limit` neighbours of the session's items."""
    pool = Pool.of_list(candidates.items, candidates.scores)
    if session.is_empty or limit == 0:
        return pool
    items, _ = session_neighbours(version, session, candidates.items)
    if items.size == 0:
        return pool
    return pool.extend(*in_order(items[:limit], version.item_vectors, version.user_vector(candidates.user_row)))


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


def session_only(version: Version, session: Session, limit: int) -> Pool:
    """The best `limit` neighbours of the session's items."""
    items, scores = session_neighbours(version, session)
    return Pool.of_list(items[:limit], scores[:limit])


def popular(version: Version, segment: str = "") -> Pool:
    """The popular list of a segment; "" is everybody's."""
    ranked = version.popular(segment)
    return Pool.of_list(ranked.items, ranked.scores)
