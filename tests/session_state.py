"""Events for session state, and what it says of them."""

from __future__ import annotations

from reranker.serving_log.records import LoggedEvent
from reranker.sessions.stored import Limits, Sessions

NOW = 1_790_000_000.0
LIMITS = Limits(events=5, ttl_seconds=3600.0, impressions=7)


def event(user: str, item: str, seconds_ago: float = 0.0, kind: str = "view") -> LoggedEvent:
    return LoggedEvent(user, item, kind, NOW - seconds_ago)


def items(sessions: Sessions, user: str, now: float = NOW) -> list[str]:
    return [found.item for found in sessions.of(user, now).session]
