"""What session state is, wherever it is kept, and how a request's own session goes with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec

from reranker.serving_log.records import LoggedEvent
from schemas.config import Config
from schemas.messages import RecommendRequest, SessionEvent

IMPRESSION: Final = "impression"
"""The event type that says only that an item was shown: it is no part of the session, and moves nothing."""
MAX_IMPRESSIONS: Final = 200
"""Impressions kept for one user: the most recent."""


class Happened(NamedTuple):
    """An event of the session. Two that agree in all but `time` are one, and the earlier `time` holds."""

    time: float
    """When it counts: `sent`, or its arrival where that lies in the future. It must not outlive the others."""
    sent: float
    """The event's own time, as the client has told it."""
    item: str
    event: str


class Shown(NamedTuple):
    """An impression, with the same times."""

    time: float
    sent: float
    item: str


class Stored(NamedTuple):
    """What is known of one user."""

    session: list[Happened]
    """Oldest first, without impressions."""
    ignored: dict[str, int]
    """Item to the times it was shown since the user last did something with it: never 0."""

    @classmethod
    def of(cls, happened: Iterable[Happened], shown: Iterable[Shown], since: float, until: float) -> Stored:
        """What is left of events and impressions after `since`, up to `until`."""
        recent = sorted(event for event in happened if since < event.time <= until)
        latest = {event.item: event.time for event in recent}
        ignored = Counter(one.item for one in shown if max(since, latest.get(one.item, since)) < one.time <= until)
        return cls(recent, dict(ignored))


NOTHING = Stored([], {})


class Sessions(Protocol):
    """Keeps the recent events of users. Methods may be called from any thread; raise SessionsError."""

    def add(self, events: Sequence[LoggedEvent], now: float) -> None:
        """Take events, in any order; all or none, for one user. What was taken is seen by every later `of`."""

    def of(self, user: str, now: float) -> Stored:
        """What is known of a user's last `ttl_minutes`."""

    def close(self) -> None:
        """Give back what is held; nothing is called after it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of one user."""

    events: int
    ttl_seconds: float
    impressions: int = MAX_IMPRESSIONS

    @classmethod
    def of(cls, config: Config) -> Limits:
        return cls(config.serve.max_session_events, config.sessions.ttl_minutes * 60.0)

    def span(self, now: float) -> tuple[float, float]:
        """The times after and up to which an event counts.

        Hosts' clocks differ a little. What lies further ahead came while the clock was wrong, and would push out all
        that comes since, for as long as the clock was ahead.
        """
        return now - self.ttl_seconds, now + self.ttl_seconds


def by_user(events: Iterable[LoggedEvent], now: float) -> dict[str, tuple[set[Happened], set[Shown]]]:
    """Events and impressions of each user, as they come in now."""
    found: dict[str, tuple[set[Happened], set[Shown]]] = {}
    for event in events:
        happened, shown = found.setdefault(event.user, (set(), set()))
        time = min(event.time, now)
        if event.event == IMPRESSION:
            shown.add(Shown(time, event.time, event.item))
        else:
            happened.add(Happened(time, event.time, event.item, event.event))
    return found


def with_stored(request: RecommendRequest, stored: Sequence[Happened], limit: int) -> RecommendRequest:
    """The request with what is known of its user before its own events; beyond `limit` in all the stored ones give way.

    An event that both tell of (same item, type and time) counts once, an impression not at all.
    """
    session = [event for event in request.session if event.event != IMPRESSION]
    if not stored and len(session) == len(request.session):
        return request
    own = {(event.item, event.event, event.time) for event in session}
    others = [
        SessionEvent(item=event.item, event=event.event, time=event.time)
        for event in stored
        if (event.item, event.event, event.sent) not in own
    ]
    room = max(0, limit - len(session))
    return msgspec.structs.replace(request, session=[*others[len(others) - min(room, len(others)) :], *session])
