"""Session state that may fail: an answer without the stored session is better than none, and than a late one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from reranker.errors import SessionsError
from reranker.log import logger
from reranker.serving_log.records import LoggedEvent
from reranker.sessions.stored import NOTHING, Sessions, Stored

PAUSE_SECONDS = 1.0
"""After a failure to read no request tries for this long: each would wait as the one that failed has."""
log = logger(__name__)


class GuardedSessions:
    """Opens the state when it can, and reads nothing from it when it cannot; writing tells of every failure."""

    def __init__(
        self,
        open_: Callable[[], Sessions],
        failed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = open_
        self._failed = failed
        self._clock = clock
        self._opening = threading.Lock()
        self._sessions: Sessions | None = None
        self._not_before = -PAUSE_SECONDS
        self._reported: dict[str, str] = {}  # by what failed, until it succeeds

    def start(self) -> None:
        """Open the state now, and not with the first request; that it cannot be opened is reported."""
        try:
            self._opened()
        except SessionsError as error:
            self._fail_to_read(error)

    def add(self, events: Sequence[LoggedEvent], now: float) -> None:
        """Raises SessionsError: the events are not in the session.

        Reading goes on: what is full is read as ever.
        """
        try:
            self._opened().add(events, now)
        except SessionsError as error:
            self._tell("writing", error)
            raise
        self._reported.clear()
        self._not_before = self._clock()

    def of(self, user: str, now: float) -> Stored:
        """What is stored of a user; nothing while it cannot be read."""
        if self._clock() < self._not_before:
            return NOTHING
        try:
            return self._opened().of(user, now)
        except SessionsError as error:
            self._fail_to_read(error)
            return NOTHING

    def close(self) -> None:
        if self._sessions is not None:
            self._sessions.close()
            self._sessions = None

    def _opened(self) -> Sessions:
        with self._opening:
            if self._sessions is None:
                self._sessions = self._open()
            return self._sessions

    def _fail_to_read(self, error: SessionsError) -> None:
        self._not_before = self._clock() + PAUSE_SECONDS
        self._tell("reading", error)

    def _tell(self, what: str, error: SessionsError) -> None:
        self._failed()
        if str(error) != self._reported.get(what):
            log.warning("sessions not available", reason=str(error))
        self._reported[what] = str(error)
