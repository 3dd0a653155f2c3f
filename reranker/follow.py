"""Following the store: a thread that looks for a new history record, so that no request ever waits for one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from reranker.log import logger

if TYPE_CHECKING:
    from prediction_store.reader import Store

log = logger(__name__)


class Follower:
    """Refreshes a store every `poll_seconds` until stopped; the first time before `start` returns."""

    def __init__(self, store: Store, poll_seconds: float) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow-store", daemon=True)
        self._reported: str | None = None

    def start(self) -> None:
        """Open the current version, if there is one, and follow from there."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended; a version being verified is waited for."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            self._look()

    def _look(self) -> None:
        try:
            changed = self._store.refresh()
        except Exception as error:  # the thread's edge: one unforeseen failure must not end the following
            self._store.last_error = error  # what is newest is not served: the metrics say so
            if str(error) != self._reported:
                log.exception("refresh failed")
            self._reported = str(error)
            return
        if changed:
            with (held := self._store.acquire()) as version:
                log.info("serving", version=version.name, number=held.number)
        problem = None if self._store.last_error is None else str(self._store.last_error)
        if problem != self._reported and problem is not None:
            log.warning("version not taken", reason=problem)
        self._reported = problem
