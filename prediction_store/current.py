"""The current version, followed through the history while requests run."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from prediction_store import history, layout
from prediction_store.errors import DiskError, MissingVersionError, NoCurrentVersionError
from prediction_store.version import Version
from schemas.errors import ShortlistError
from schemas.history import HistoryRecord

RETRY_SECONDS = 60.0
"""A version that an unforeseen fault has kept from being taken is tried again after so long: that reads every byte."""


class _Served:
    """A version the store serves or has served, and how many requests, the store itself included, hold it."""

    __slots__ = ("holders", "record", "version")

    def __init__(self, version: Version, record: HistoryRecord) -> None:
        self.version = version
        self.record = record
        self.holders = 1


class _Failed(NamedTuple):
    """What was wrong with the version of a record, the files that were tried, and until when they need no other try."""

    record: HistoryRecord
    error: Exception
    files: set[tuple[str, int, int, int]]
    until: float


class Store:
    """The current version, followed through the history. One per process, made after forking.

    `refresh` may be called from any thread, also while others are in `acquire` blocks: a request ends on the version
    it began with. The version served before stays open, so that going back to it needs no second verification.
    """

    def __init__(self, root: Path | str, *, now: Callable[[], float] = time.time) -> None:
        self.prepare: Callable[[Version], None] | None = None
        """Called by `refresh` with a version that is about to be taken, while requests still run on another."""
        self._root = Path(root)
        self._now = now
        self._lock = threading.Lock()
        """Guards the two below and every `holders`; held for an instant only."""
        self._current: _Served | None = None
        self._previous: _Served | None = None
        self._refreshing = threading.Lock()
        self._failed: _Failed | None = None
        self.last_error: Exception | None = None
        """Why the newest history record is not served; None: it is."""
        self.changed_at: float | None = None
        """When the version served now was taken, by the store's clock."""

    @property
    def is_ready(self) -> bool:
        """True when there is a verified version to answer from."""
        return self._current is not None

    def acquire(self) -> Acquired:
        """A context manager that yields the current version and keeps it open for the length of the block.

        Raises (on entering):
            NoCurrentVersionError: no version has been taken yet; `last_error` says why.
        """
        return Acquired(self)

    def refresh(self) -> bool:
        """Look at the newest history record and take its version, if it is another one; True: it was taken.

        Never raises for a store that is wrong: the version at hand goes on serving and `last_error` says what was
        wrong. Bytes found damaged are not tried again until they change, or the history names something new; what else
        fails once they are read is tried again after RETRY_SECONDS.
        """
        with self._refreshing:
            try:
                return self._follow(history.current(self._root))
            except (ShortlistError, OSError) as error:  # too many open files, say: worth another try at the next look
                self.last_error = error
                return False

    def close(self) -> None:
        """Let go of all versions; each closes when its last request has ended."""
        with self._refreshing:
            with self._lock:
                served, self._current, self._previous = [self._current, self._previous], None, None
            for one in served:
                if one is not None:
                    self._let_go(one)

    def _follow(self, record: HistoryRecord) -> bool:
        current = self._current
        if current is not None and current.record.identity == record.identity:
            current.record = record
            self.last_error = None
            return False
        failed = self._failed
        if (
            failed is not None
            and failed.record == record
            and self._now() < failed.until
            and failed.files == self._files(record)
        ):
            self.last_error = failed.error
            return False
        taken = self._reopened(record) or self._opened(record)
        with self._lock:
            before, oldest = self._current, self._previous
            self._current, self._previous = taken, before
        if oldest is not None and oldest is not taken:
            self._let_go(oldest)
        self._failed, self.last_error, self.changed_at = None, None, self._now()
        return True

    def _reopened(self, record: HistoryRecord) -> _Served | None:
        """The version served before, made ready again, if it is the one; it stays open as such if that fails."""
        previous = self._previous
        if previous is None or previous.record.identity != record.identity:
            return None
        self._make_ready(previous.version)
        previous.record = record
        return previous  # what it holds as the previous one, it now holds as the current one

    def _opened(self, record: HistoryRecord) -> _Served:
        """A version, verified and made ready; what fails is remembered, because each try reads every byte."""
        files = self._files(record)  # before they are read: what changes meanwhile is tried again
        version: Version | None = None
        try:
            version = Version.open(self._root, record.version, manifest_sha256=record.manifest_sha256)
            self._make_ready(version)
        except (MissingVersionError, DiskError, OSError):  # it may still arrive, or get other rights
            _close(version)
            raise
        except Exception as error:  # raised on, whatever it is
            _close(version)
            is_damaged = version is None and isinstance(error, ShortlistError)
            until = math.inf if is_damaged else self._now() + RETRY_SECONDS
            self._failed = _Failed(record, error, files, until)
            raise
        return _Served(version, record)

    def _make_ready(self, version: Version) -> None:
        if self.prepare is not None:
            self.prepare(version)

    def _files(self, record: HistoryRecord) -> set[tuple[str, int, int, int]]:
        """Path, inode, size and time of change of all that lies in a version: other ones once it is put right."""
        found = set()
        for path in layout.version_path(self._root, record.version).rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # it is being restored
                facts = path.lstat()
                found.add((str(path), facts.st_ino, facts.st_size, facts.st_ctime_ns))
        return found

    def _let_go(self, served: _Served) -> None:
        with self._lock:
            served.holders -= 1
            is_last = served.holders == 0
        if is_last:
            served.version.close()

    def _hold(self) -> _Served:
        with self._lock:
            served = self._current
            if served is not None:
                served.holders += 1
                return served
        raise NoCurrentVersionError("no version is open", hint="shortlist versions") from self.last_error


def _close(version: Version | None) -> None:
    if version is not None:
        version.close()


class Acquired:
    """One block's hold on the version that was current when the block began."""

    __slots__ = ("_served", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._served: _Served | None = None

    def __enter__(self) -> Version:
        self._served = self._store._hold()
        return self._served.version

    @property
    def number(self) -> int:
        """The number of the history record that names the version. Requires: the block runs."""
        assert self._served is not None
        return self._served.record.number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._served is not None:
            self._store._let_go(self._served)
            self._served = None
