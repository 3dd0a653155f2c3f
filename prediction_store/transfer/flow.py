"""What all files of a transfer share: the room for bytes per second, the count of bytes, and the word to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, Protocol, TypeVar

from prediction_store.errors import TransferStoppedError
from prediction_store.transfer.stop import Stop

PIECE_BYTES: Final = 8 << 20
"""What one request brings. Bounds the memory, and what is fetched twice after a kill."""
MIN_PIECE_BYTES: Final = 64 << 10
PIECES_PER_SECOND: Final = 4
"""When throttled: a piece is no more than a quarter of a second's bytes."""
Thing = TypeVar("Thing")


class Meter(Protocol):
    """Where people see how far a transfer has come."""

    def expect(self, count: int) -> None:
        """So many more bytes will travel."""

    def advance(self, count: int) -> None:
        """So many bytes have."""


class Flow:
    """Told of every piece that has travelled, by any thread; holds it up while the transfer is too fast.

    Args:
        max_bytes_per_second: of all threads together; 0: no limit.
        meter: told of every piece, too.
        stopping: set by whoever wants the transfer to end.
        is_wanted: asked after each piece, by any thread; the transfer ends when it says no.
    """

    def __init__(
        self, max_bytes_per_second: float = 0.0, *, meter: Meter | None = None,
        stopping: Stop | None = None, is_wanted: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[Stop, float], object] = Stop.wait,
    ) -> None:  # fmt: skip
        self._rate = max_bytes_per_second
        self._meter = meter
        self._stopping = Stop() if stopping is None else stopping
        self._failure: BaseException | None = None
        self._is_wanted = is_wanted
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._paid_until = clock()
        """When all bytes so far have had their time."""
        self.bytes = 0
        """That have travelled, in either direction."""

    @property
    def piece_bytes(self) -> int:
        """How much to ask for at a time."""
        if self._rate <= 0:
            return PIECE_BYTES
        return int(min(PIECE_BYTES, max(MIN_PIECE_BYTES, self._rate / PIECES_PER_SECOND)))

    def expect(self, count: int) -> None:
        """Say how many more bytes will travel."""
        if self._meter is not None:
            self._meter.expect(count)

    def passed(self, count: int) -> None:
        """Count a piece, and return when it has had its time. Raises TransferStoppedError."""
        with self._lock:
            self.bytes += count
            if self._meter is not None:
                self._meter.advance(count)
            now = self._clock()
            if self._rate > 0:
                self._paid_until = max(self._paid_until, now) + count / self._rate
            ahead_seconds = self._paid_until - now
        if self._rate > 0 and ahead_seconds > 0:
            self._wait(self._stopping, ahead_seconds)
        self.check()
        if not self._is_wanted():
            raise TransferStoppedError("stopped in the middle of a transfer: something else is wanted by now")

    def check(self) -> None:
        """Go on only if nobody has asked to stop. Raises TransferStoppedError."""
        if self._stopping.is_set() or self._failure is not None:
            raise TransferStoppedError(
                "stopped in the middle of a transfer", hint="run it again: it goes on from there"
            )

    def each(self, things: Iterable[Thing], do: Callable[[Thing], None], parallel: int) -> None:
        """Do something with each of some things, several at a time; the first failure ends the others and is raised."""

        def guarded(thing: Thing) -> None:
            self.check()
            try:
                do(thing)
            except BaseException as error:
                self._fail(error)
                raise

        with ThreadPoolExecutor(parallel, thread_name_prefix="transfer") as pool:
            futures = [pool.submit(guarded, thing) for thing in things]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException as error:
                self._fail(error)
                for future in futures:
                    future.cancel()
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: BaseException) -> None:
        """Keep the first failure: those of the other threads only follow from it."""
        with self._lock:
            if self._failure is None:
                self._failure = error
