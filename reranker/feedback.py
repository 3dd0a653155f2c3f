"""What a server keeps of what it is told: the log on disk, and the sessions of users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reranker.decayed_counts import DecayedCounts
from reranker.deciding import settings_record
from reranker.errors import SessionsError
from reranker.events import record_of
from reranker.last_minutes import opener
from reranker.log import logger
from reranker.metrics import Metrics
from reranker.recommend import Clock
from reranker.serving_log.commit import Committer
from reranker.serving_log.records import AnswerRecord, LoggedEvent, encode
from reranker.serving_log.segments import SegmentWriter
from reranker.session import UNLISTED_EVENT_WEIGHT
from reranker.sessions.guarded import GuardedSessions
from reranker.sessions.stored import IMPRESSION, NOTHING, Stored
from reranker.trending_now import TrendingNow
from schemas.config import Config, events_folder, sessions_folder
from schemas.messages import EventsRequest

log = logger(__name__)


class Feedback:
    """The log and the sessions of one worker, between `start` and `stop`."""

    def __init__(self, config: Config, metrics: Metrics, now: Clock) -> None:
        self._config = config
        self._metrics = metrics
        self._now = now
        self._counts = DecayedCounts(Path(sessions_folder(config.paths))) if config.sessions.enabled else None
        self._reported = ""
        self._sessions = (
            GuardedSessions(opener(config), metrics.session_failures.inc) if config.sessions.enabled else None
        )
        settings = encode(settings_record(config)) if config.log.answers else b""
        self._committer = Committer(
            SegmentWriter(Path(events_folder(config.paths)), config.log, now, settings),
            limit=config.log.queue,
            accept=self._accept,
            dropped=metrics.log_dropped.inc,
            failed=metrics.log_failures.inc,
        )

    def trending_now(self) -> TrendingNow | None:
        """Tells what is trending, and has it logged where answers are; None: nothing is counted."""
        if self._counts is None:
            return None
        return TrendingNow(self._counts, self._now, self._committer.offer if self._config.log.answers else None)

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
        if self._counts is not None:
            self._count(self._counts, events)
        if self._sessions is not None:
            self._sessions.add(events, self._now())

    def _count(self, counts: DecayedCounts, events: Sequence[LoggedEvent]) -> None:
        """For what is trending. Where that fails it is said once, and nobody is refused for it."""
        try:
            for event in events:
                if says_something(event.event, self._config):
                    counts.add(event.user, event.item, self._now())
            self._reported = ""
        except SessionsError as error:
            if str(error) != self._reported:
                log.error("events do not count for what is trending", reason=str(error))
            self._reported = str(error)


def says_something(kind: str, config: Config) -> bool:
    """Whether events of a type count for what is trending: not where they weigh nothing in sessions."""
    usual = config.data.interactions.event_weights.get(kind, UNLISTED_EVENT_WEIGHT)
    return kind != IMPRESSION and config.serve.session_event_weights.get(kind, usual) > 0.0
