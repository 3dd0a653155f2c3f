"""Writing the log: one series of segments for one process, each ended by its size or age."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prediction_store import durable, locks
from prediction_store.errors import DiskError, StoreError
from prediction_store.leftovers import old_temporary_files
from reranker.serving_log.frames import MAX_NUMBER, MAX_RECORD_BYTES, SegmentName, frame, header, new_series
from reranker.serving_log.reading import segments
from schemas.errors import UsageError
from schemas.serving_config import Log

DAY_SECONDS = 86_400.0


class SegmentWriter:
    """Appends to the newest segment of its series, and begins another when it is due. One thread at a time.

    A segment begins with the first record: a process that writes nothing leaves nothing. After an error the segment is
    given up, cut back to its whole records, and the next try begins another. A lock on it says that it is appended to.
    """

    def __init__(self, folder: Path, settings: Log, now: Callable[[], float], first: bytes = b"") -> None:
        """`first` is the payload of a record that each segment begins with; empty: none does."""
        self._folder = folder
        self._settings = settings
        self._now = now
        self._head = header() + (frame(first) if first else b"")
        self._series = new_series()
        self._number = 0
        self._open: durable.Appended | None = None
        self._lock: int | None = None
        self._started = 0.0
        self._is_dirty = False

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add records, all or none; they survive this process from now on, and a power cut after `sync`.

        Raises:
            DiskError: no space, no permission, a bad disk.
            UsageError: a record is too long.
        """
        if not payloads:
            return
        longest = max(map(len, payloads))
        if longest > MAX_RECORD_BYTES:
            raise UsageError(f"a record of {longest} bytes; wanted at most {MAX_RECORD_BYTES}")
        self.end_if_due()
        data = b"".join(map(frame, payloads))
        with self._giving_up():
            self._current().append(data)
            self._is_dirty = True

    def sync(self) -> None:
        """Return when every record survives a power cut. Raises DiskError."""
        if self._open is not None and self._is_dirty:
            with self._giving_up():
                self._open.sync()
                self._is_dirty = False

    def end_if_due(self) -> None:
        """End the segment when it is large or old enough. Raises DiskError."""
        if self._open is None:
            return
        is_large = self._open.size >= self._settings.segment_mb * 1_000_000
        # Also when the clock has been set back: a segment must not grow for a year.
        if is_large or not 0.0 <= self._now() - self._started < self._settings.segment_minutes * 60.0:
            self.close()

    def close(self) -> None:
        """Sync and end the segment; the next record begins another. Raises DiskError."""
        try:
            self.sync()
        finally:
            self._drop()

    def _current(self) -> durable.Appended:
        if self._open is None:
            durable.make_last_folder(self._folder)
            self._started = self._now()
            if self._number == MAX_NUMBER:  # each try on a full disk takes one, so that a day of them takes all
                self._series, self._number = new_series(), 0
            self._number += 1
            name = SegmentName(int(self._started * 1000), self._series, self._number)
            self._open = durable.Appended(self._folder / str(name), self._head)
            try:
                self._lock = locks.lock(self._open.path, exclusive=True)
            except DiskError:
                durable.remove_file(self._open.path)  # or each try would leave one
                raise
            if self._lock is None:
                raise DiskError(f"locking {self._open.path}: somebody else has a lock on it, or it has gone")
            self._is_dirty = False
            self._remove_old()
        return self._open

    def _remove_old(self) -> None:
        """Remove segments that were ended before the time to keep began, whoever wrote them, and what a killed `forget`
        has left: no copy of a record is kept for longer."""
        begin = self._started - self._settings.keep_days * DAY_SECONDS - self._settings.segment_minutes * 60.0
        with contextlib.suppress(StoreError):  # what cannot be listed or removed is tried again with the next one
            for path in segments(self._folder):
                name = SegmentName.parse(path.name)
                if name is not None and name.started_ms < begin * 1000:
                    with contextlib.suppress(StoreError):
                        durable.remove_file(path)
            for path in old_temporary_files(self._folder):
                with contextlib.suppress(StoreError):
                    durable.remove_file(path)

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._open is not None:
            self._open.close()
        if self._lock is not None:
            locks.unlock(self._lock)
        self._open, self._lock, self._is_dirty = None, None, False
