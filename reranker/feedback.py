"""What a server keeps of what it is told: the log on disk, and the sessions of users."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from reranker.events import record_of
from reranker.metrics import Metrics
from reranker.recommend import Clock
from reranker.serving_log.commit import Committer
from reranker.serving_log.records import AnswerRecord, LoggedEvent
from reranker.serving_log.segments import SegmentWriter
from reranker.sessions.embedded import EmbeddedSessions, file_name
from reranker.sessions.guarded import GuardedSessions
from reranker.sessions.redis_server import RedisSessions
from reranker.sessions.stored import NOTHING, Limits, Sessions, Stored
from schemas.config import Config, events_folder, sessions_folder
from schemas.messages import EventsRequest


class Feedback:
    """The log and the sessions of one worker, between `start` and `stop`."""

    def __init__(self, config: Config, metrics: Metrics, now: Clock) -> None:
        self._metrics = metrics
        self._now = now
        self._sessions = (
            GuardedSessions(opener(config), metrics.session_failures.inc) if config.sessions.enabled else None
        )
        self._committer = Committer(
            SegmentWriter(Path(events_folder(config.paths)), config.log, now),
            limit=config.log.queue,
            accept=self._accept,
            dropped=metrics.log_dropped.inc,
            failed=metrics.log_failures.inc,
        )

    def start(self) -> None:
        if self._sessions is not None:
            self._sessions.start()
        self._committer.start()

    def stop(self) -> None:
        """Return when all that was given is on disk."""
        self._committer.stop()
        if self._sessions is not None:
            self._sessions.close()

    async def take(self, request: EventsRequest) -> int:
        """Number of events, all of them on disk and in the sessions of their users; raises NotRecordedError."""
        record = record_of(request, self._now())
        await self._committer.commit(record)
        self._metrics.events.inc(len(record.events))
        return len(record.events)

    def answered(self, record: AnswerRecord) -> None:
        """Have an answer logged, without waiting for it."""
        self._committer.offer(record)

    def known_of(self, user: str) -> Stored:
        """What is stored of a user; nothing when it cannot be read."""
        return NOTHING if self._sessions is None else self._sessions.of(user, self._now())

    def _accept(self, events: Sequence[LoggedEvent]) -> None:
        if self._sessions is not None:
            self._sessions.add(events, self._now())


@contextlib.contextmanager
def stored_sessions(config: Config, now: Clock) -> Iterator[Callable[[str], Stored]]:
    """The sessions that servers of this configuration keep, for reading: nothing where there are none."""
    is_there = config.sessions.enabled and (config.sessions.backend == "redis" or _may_be_there(config))
    sessions = GuardedSessions(opener(config), lambda: None) if is_there else None
    try:
        yield lambda user: NOTHING if sessions is None else sessions.of(user, now())
    finally:
        if sessions is not None:
            sessions.close()


def opener(config: Config) -> Callable[[], Sessions]:
    """Opens the session state that the configuration names; raises SessionsError."""
    settings, limits = config.sessions, Limits.of(config)
    if settings.backend == "redis":
        return partial(RedisSessions, settings.redis_url, limits, seconds=settings.redis_seconds)
    folder = Path(sessions_folder(config.paths))
    return partial(EmbeddedSessions, folder, limits, max_bytes=settings.max_mb << 20)


def _may_be_there(config: Config) -> bool:
    folder = Path(sessions_folder(config.paths))
    try:
        return (folder / file_name(folder)).is_file()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # who opens it hears why
        return True
