"""The ladder: how an answer is made when the better way is closed, in named rungs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from reranker import sources
from reranker.deadline import Haste
from reranker.fresh import Fresh
from reranker.pool import Pool
from reranker.session import Session
from reranker.trending_now import Trending
from reranker.user_tower import UserNow
from schemas.record import Candidates
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.reader import Version

PERSONAL, SESSION, SEGMENT, POPULAR = "personal", "session", "segment", "popular"
STORED_ORDER = "stored_order"
"""The user's list in its own order: there was no time to rank it."""
EMPTY = "empty"
"""No rung had anything to show: everything is excluded or out of stock."""


class Step(NamedTuple):
    """One rung that is open."""

    rung: str
    pool: Pool
    is_hasty: bool
    """There is no time to rank: the pool is shown in its own order."""


def ladder(
    version: Version,
    candidates: Candidates | None,
    session: Session,
    segment: str | None,
    *,
    user: UserNow,
    serve: Serve,
    fresh: Fresh | None,
    trending: Trending | None,
    haste: Haste,
) -> Iterator[Step]:
    """The rungs that are open for this request, best first; a pool is made when it is asked for.

    Without time there is no rung of the session, whose pool costs the most to make.
    """
    if candidates is not None:
        if haste():
            yield Step(STORED_ORDER, sources.stored(candidates), True)
        else:
            pool = sources.personal(version, candidates, session, serve, fresh, user=user, trending=trending)
            yield Step(PERSONAL, pool, False)
    if not session.is_empty and not haste():
        pool = sources.session_only(version, session, serve, fresh, user=user, trending=trending)
        yield Step(SESSION, pool, False)
    if segment and version.has_segment(segment):
        yield Step(SEGMENT, sources.popular(version, segment), haste())
    yield Step(POPULAR, sources.popular(version), haste())
