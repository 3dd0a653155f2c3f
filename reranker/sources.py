"""Where candidates come from: one function for each rung's pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prediction_store.columns import RECENT
from reranker.arrays import NO_ITEMS, NO_NUMBERS, Float32, Indexes, contains
from reranker.compiled import is_compiled, kernel
from reranker.fresh import Fresh
from reranker.pool import Pool
from reranker.session import Session
from reranker.trending_now import Trending
from reranker.user_tower import UserNow
from schemas.record import Candidates
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.reader import NearItems, Version

STORED_LIST, SESSION_NEIGHBOURS = "stored_list", "session_neighbours"
TRENDING_NOW = "trending_now"
POPULAR, SEGMENT_POPULAR = "popular", "segment_popular"
MAX_NEIGHBOURHOODS = 50
"""Neighbour lists read for one session: those of its most recent items."""


class Visited(NamedTuple):
    """Whose neighbours are read: those of a session's most recent items, by the weight of their events."""

    items: Indexes
    weights: Float32

    @classmethod
    def of(cls, session: Session) -> Visited:
        return cls(session.items[:MAX_NEIGHBOURHOODS], session.weights[:MAX_NEIGHBOURHOODS])


class Suiting(NamedTuple):
    """Fresh items, and the user's vector that they are to suit."""

    fresh: Fresh
    vector: Float32

    def beside(self, known: Indexes, count: int) -> Indexes:
        """uint32[at most count]: the items that suit best, best first, without those that are known."""
        found = self.fresh.items[self.fresh.suiting(self.vector, count)]
        return found[~contains(np.sort(known), found)]


def stored(candidates: Candidates) -> Pool:
    """The user's stored list."""
    return Pool.of_list(candidates.items, candidates.scores, STORED_LIST)


def personal(
    version: Version,
    candidates: Candidates,
    session: Session,
    serve: Serve,
    fresh: Fresh | None,
    *,
    user: UserNow,
    trending: Trending | None = None,
) -> Pool:
    """The user's stored list; after it neighbours of the session's items, new and trending ones that suit it, and what
    is trending just now.

    All as many as `serve` says. The first two are in the order of their products with the user's vector of the version,
    what is trending is by how many want it. To the products comes what the order of lists adds for having been met of
    late, as in the stored list: such are base scores.
    """
    if session.is_empty and trending is None:
        return stored(candidates)
    items, scores, suiting = candidates.items, candidates.scores, None
    visited = Visited.of(session)
    if not session.is_empty:
        suiting, gather = _suiting(fresh, user, serve), gathered if is_compiled else gathered_in_numpy
        items, scores = gather(version, candidates, visited, suiting, serve)
    others = NO_ITEMS if trending is None else trending.beside(items, serve.trending_now_candidates)
    if others.size:
        products = version.item_vectors[others] @ version.user_vector(candidates.user_row)
        items, scores = np.concatenate([items, others]), np.concatenate([scores, products])
    listed = candidates.items.size
    recent = version.numbers(RECENT) if items.size > listed else None
    if recent is not None:
        scores[listed:] += recent[items[listed:]]

    def found() -> Mapping[str, Indexes]:
        near = version.every_neighbours.items[visited.items].view(np.uint32)  # what pads a list is no item
        sources = {STORED_LIST: candidates.items}
        if near.size and serve.neighbour_candidates:
            sources[SESSION_NEIGHBOURS] = near
        return {**sources, **_by_source(suiting, serve), **_of_many(trending, serve)}

    return Pool(items, scores, listed=listed, found=found)


def gathered(
    version: Version, candidates: Candidates, visited: Visited, suiting: Suiting | None, serve: Serve
) -> tuple[Indexes, Float32]:
    """(items, base scores) of `personal`."""
    near, vectors, user = version.every_neighbours, version.item_vectors, version.user_vector(candidates.user_row)
    fresh, of_fresh, moved = NO_ITEMS, NO_NUMBERS, NO_NUMBERS
    if suiting is not None:
        fresh, of_fresh, moved = suiting.fresh.items, suiting.fresh.vectors, suiting.vector
    # As many as there are: what is wanted may be any number.
    n_near = min(serve.neighbour_candidates, visited.items.size * near.items.shape[1])
    n_fresh = min(serve.fresh_candidates, fresh.size)
    room = candidates.items.size + n_near + n_fresh
    items, scores = np.empty(room, np.uint32), np.empty(room, np.float32)
    count = kernel.gather(
        items, scores, candidates.items, candidates.scores, near.items, near.scores, *visited, vectors, user,
        fresh, of_fresh, moved, n_near, n_fresh,
    )  # fmt: skip
    return items[:count], scores[:count]


def gathered_in_numpy(
    version: Version, candidates: Candidates, visited: Visited, suiting: Suiting | None, serve: Serve
) -> tuple[Indexes, Float32]:
    """As `gathered`: the definition."""
    vectors, user = version.item_vectors, version.user_vector(candidates.user_row)
    items, scores = candidates.items, candidates.scores

    def append(added: Indexes) -> None:
        nonlocal items, scores
        products: Float32 = vectors[added] @ user
        order = np.argsort(-products, kind="stable")
        items, scores = np.concatenate([items, added[order]]), np.concatenate([scores, products[order]])

    if serve.neighbour_candidates:
        near = neighbours_in_numpy(version.every_neighbours, visited)[0]
        append(near[~contains(np.sort(items), near)][: serve.neighbour_candidates])
    if suiting is not None:
        append(suiting.beside(items, serve.fresh_candidates))
    return items, scores


def session_neighbours(version: Version, session: Session) -> tuple[Indexes, Float32]:
    """The neighbours of the session's items, best first: similarity times the event's weight, summed over the session.

    The session's own items may be among them. Equal sums are ordered by dense index.
    """
    near, visited = version.every_neighbours, Visited.of(session)
    if not is_compiled:
        return neighbours_in_numpy(near, visited)
    room = visited.items.size * near.items.shape[1]
    items, scores = np.empty(room, np.uint32), np.empty(room, np.float32)
    count = kernel.neighbours(items, scores, near.items, near.scores, *visited)
    return items[:count], scores[:count]


def neighbours_in_numpy(near: NearItems, visited: Visited) -> tuple[Indexes, Float32]:
    """As `session_neighbours`, of the visited items."""
    found = near.items[visited.items]
    is_item = found >= 0
    items, places = np.unique(found[is_item], return_inverse=True)
    weighted = (near.scores[visited.items] * visited.weights[:, None])[is_item]
    scores = np.bincount(places, weighted, minlength=items.size).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return items[order].astype(np.uint32), scores[order]


def session_only(
    version: Version,
    session: Session,
    serve: Serve,
    fresh: Fresh | None,
    *,
    user: UserNow,
    trending: Trending | None = None,
) -> Pool:
    """The best neighbours of the session's items; after them new and trending items that suit it, and what is trending
    just now.

    The base score of these is 0, which is what the neighbour lists say of them; they are in the order in which they
    suit, or are wanted. As a rung of its own the pool carries a whole answer, whatever share of another pool neighbours
    may have.
    """
    items, scores = session_neighbours(version, session)
    limit = max(serve.neighbour_candidates, serve.max_k)
    pool = Pool.of_list(items[:limit], scores[:limit], SESSION_NEIGHBOURS)
    suiting, known = _suiting(fresh, user, serve), pool.items
    if suiting is not None:
        known = np.concatenate([known, suiting.beside(known, serve.fresh_candidates)])
    if trending is not None:
        known = np.concatenate([known, trending.beside(known, serve.trending_now_candidates)])
    added = known.size - pool.items.size
    if not added:
        return pool
    return pool.extended(
        known,
        np.concatenate([pool.base_scores, np.zeros(added, np.float32)]),
        lambda: {**_by_source(suiting, serve), **_of_many(trending, serve)},
    )


def popular(version: Version, segment: str = "") -> Pool:
    """The popular list of a segment; "" is everybody's."""
    ranked = version.popular(segment)
    return Pool.of_list(ranked.items, ranked.scores, SEGMENT_POPULAR if segment else POPULAR)


def _suiting(fresh: Fresh | None, user: UserNow, serve: Serve) -> Suiting | None:
    if fresh is None or not serve.fresh_candidates:
        return None
    vector = user.vector
    return None if vector is None else Suiting(fresh, vector)


def _of_many(trending: Trending | None, serve: Serve) -> Mapping[str, Indexes]:
    return {} if trending is None else {TRENDING_NOW: trending.items[: serve.trending_now_candidates]}


def _by_source(suiting: Suiting | None, serve: Serve) -> Mapping[str, Indexes]:
    return {} if suiting is None else suiting.fresh.by_source(suiting.vector, serve.fresh_candidates)
