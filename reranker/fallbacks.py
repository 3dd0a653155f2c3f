"""The ladder: how an answer is made when the better way is closed, in named rungs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reranker import sources
from reranker.pool import Pool
from reranker.session import Session
from schemas.record import Candidates
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.reader import Version

PERSONAL, SESSION, SEGMENT, POPULAR = "personal", "session", "segment", "popular"
EMPTY = "empty"
"""No rung had anything to show: everything is excluded or out of stock."""


def ladder(
    version: Version, candidates: Candidates | None, session: Session, segment: str | None, serve: Serve
) -> Iterator[tuple[str, Pool]]:
    """The rungs that are open for this request, best first, each with its pool; a pool is made when it is asked for."""
    if candidates is not None:
        yield PERSONAL, sources.personal(version, candidates, session, serve.neighbour_candidates)
    if not session.is_empty:
        # As a rung of its own it has to carry a whole answer, whatever share of another pool it may have.
        yield SESSION, sources.session_only(version, session, max(serve.neighbour_candidates, serve.max_k))
    if segment and version.has_segment(segment):
        yield SEGMENT, sources.popular(version, segment)
    yield POPULAR, sources.popular(version)
