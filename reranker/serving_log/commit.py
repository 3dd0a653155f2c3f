"""The thread that writes the log: answers when it comes to them, events before anybody hears that they were accepted.

Group commit: all bodies of events that wait when the disk is free share one sync. What a request pays for an answer is
its encoding and an append to a queue; a process that is killed takes the answers of the last tenth of a second with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from reranker.errors import NotRecordedError, SessionsError
from reranker.log import logger
from reranker.serving_log.records import EventsRecord, LoggedEvent, Record, encode
from reranker.serving_log.segments import SegmentWriter
from schemas.errors import ShortlistError

TICK_SECONDS = 0.1
"""Answers are written this often, and not one by one: waking the thread costs a request more than the record does."""
log = logger(__name__)

Accept = Callable[[Sequence[LoggedEvent]], None]
"""What has to know of events before they are acknowledged; raises ShortlistError when it cannot."""


class _Waiting(NamedTuple):
    record: EventsRecord
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class Committer:
    """Writes what it is given from a thread of its own, between `start` and `stop`."""

    def __init__(
        self,
        writer: SegmentWriter,
        *,
        limit: int,
        accept: Accept,
        dropped: Callable[[int], None],
        failed: Callable[[], None],
    ) -> None:
        """`limit` is how many answers may wait, and how many bodies of events. `dropped` hears of so many answers that
        will not be in the log, `failed` of each write that failed.
        """
        self._writer = writer
        self._limit = limit
        self._accept = accept
        self._dropped = dropped
        self._failed = failed
        self._answers: deque[bytes] = deque()
        self._events: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._reported: tuple[type[Exception], int | None] | None = None
        self._thread = threading.Thread(target=self._run, name="serving-log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when everything that was given is on disk, or has failed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def offer(self, answer: Record) -> None:
        """Have an answer written soon; dropped and counted when too many wait. Never waits for the disk."""
        payload = encode(answer)  # here: the thread would hold the interpreter for a whole batch of them
        with self._changed:
            if len(self._answers) < self._limit and not self._stopping:
                self._answers.append(payload)
                return
        self._dropped(1)

    async def commit(self, record: EventsRecord) -> None:
        """Return when the events are on disk and accepted.

        Raises:
            NotRecordedError: they are not; sending them again is safe.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(record, loop, loop.create_future())
        with self._changed:
            if len(self._events) >= self._limit or self._stopping:
                raise NotRecordedError("too many events wait for the disk")
            self._events.append(waiting)
            self._changed.notify()
        await waiting.done

    def _run(self) -> None:
        while True:
            with self._changed:
                if not (self._events or self._stopping):
                    self._changed.wait(TICK_SECONDS)
                answers, events = list(self._answers), list(self._events)
                self._answers.clear()
                self._events.clear()
                is_last = self._stopping
            if events:
                self._write_events(events)
            if answers:
                self._write_answers(answers)
            self._tend(is_last)
            if is_last:
                return

    def _write_events(self, events: list[_Waiting]) -> None:
        """Log, then session: what the session knows can always be found in the log."""
        failure: NotRecordedError | None = NotRecordedError(
            "the events could not be recorded; the server's log says why"  # and not where our files lie
        )
        try:
            self._writer.append([encode(waiting.record) for waiting in events])
            self._writer.sync()
            self._reported = None
            self._accept([event for waiting in events for event in waiting.record.events])
            failure = None
        except SessionsError:
            pass  # the log has the events, and who keeps the sessions has told of it
        except Exception as error:  # the thread's edge: whoever waits has to hear of it
            self._report(error)
        for waiting in events:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits any more
                waiting.loop.call_soon_threadsafe(_settle, waiting.done, failure)

    def _write_answers(self, answers: list[bytes]) -> None:
        try:
            self._writer.append(answers)
            self._reported = None
        except Exception as error:  # the thread's edge
            self._report(error)
            self._dropped(len(answers))

    def _tend(self, is_last: bool) -> None:
        try:
            if is_last:
                self._writer.close()
            else:
                self._writer.end_if_due()
        except Exception as error:  # the thread's edge
            self._report(error)

    def _report(self, error: Exception) -> None:
        """Count every failure; say each kind once, until something can be written again."""
        self._failed()
        kind = (type(error), getattr(error.__cause__, "errno", None))  # not the words: each segment has another name
        if kind != self._reported:
            if isinstance(error, ShortlistError):
                log.error("serving log failed", reason=str(error))
            else:
                log.error("serving log failed", exc_info=error)
        self._reported = kind


def _settle(done: asyncio.Future[None], failure: NotRecordedError | None) -> None:
    if done.done():  # whoever waited has given up
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)
