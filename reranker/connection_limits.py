"""How many connections a worker has, and until when each has to say something.

uvicorn has no deadline for a head, none for a connection that never says anything, and no limit of connections that
would let a new one in. Here, whoever has not sent a whole head or body in time is answered 408, and where there are too
many connections the one that has been idle for longest goes. Both cost two entries in a dictionary, and no timer.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reranker.connections import Connection

SWEEP_SECONDS = 0.25
"""How late a deadline may be noticed."""
AT_ONCE, BETWEEN_SECONDS = 20, 0.002
"""Connections that are closed at once, about a millisecond of work, and the pause before the next ones are."""


class Connections:
    """The connections of a worker: how many, which are idle, and which have begun to send or to read and not ended."""

    def __init__(
        self,
        *,
        most: int,
        idle_seconds: float,
        arrival_seconds: float,
        closed: Callable[[str], None],
        tell: Callable[[int], None],
    ) -> None:
        """`most`: how many there may be. `closed` is told why one was closed, `tell` how many there are."""
        self._most = most
        self._idle_seconds = idle_seconds
        self._arrival_seconds = arrival_seconds
        self._closed = closed
        self._tell = tell
        self._number = 0
        self._is_sweeping = False
        self.idle: dict[Connection, float] = {}
        """Since when; the one that has been for longest comes first."""
        self.arriving: dict[Connection, float] = {}
        """Likewise."""

    def add(self, connection: Connection) -> None:
        """Count a new connection; where it is one too many, the one that has been idle for longest is closed."""
        self._number += 1
        self._tell(self._number)
        if self._number > self._most:
            longest = next(iter(self.idle), None)
            self._closed("full")
            if longest is None:
                connection.refuse(connection.door.overloaded)
                return
            self._close(longest)
        self.idle[connection] = time.perf_counter()
        if not self._is_sweeping:
            self._is_sweeping = True
            connection.loop.call_later(SWEEP_SECONDS, self._sweep, connection.loop)

    def begin(self, connection: Connection) -> None:
        """Give a connection the whole time from now on to send what it has begun, or to read."""
        self.arriving.pop(connection, None)  # or it would keep its place before those that began earlier
        self.arriving[connection] = time.perf_counter()

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._number -= 1
        self._tell(self._number)
        self.idle.pop(connection, None)
        self.arriving.pop(connection, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.perf_counter()
        idle = _before(self.idle, now - self._idle_seconds)
        for connection in idle:
            self._closed("idle")
            self._close(connection)
        slow = _before(self.arriving, now - self._arrival_seconds)
        for connection in slow:
            self._closed("slow")
            del self.arriving[connection]
            connection.refuse(connection.door.too_slow)
        self._is_sweeping = self._number > 0
        if self._is_sweeping:
            # Thousands may be due at once; whoever asks for something meanwhile does not wait for all of them.
            is_behind = max(len(idle), len(slow)) == AT_ONCE
            loop.call_later(BETWEEN_SECONDS if is_behind else SWEEP_SECONDS, self._sweep, loop)

    def _close(self, connection: Connection) -> None:
        del self.idle[connection]
        connection.transport.abort()  # what it has not read by now, it never will


def _before(since: dict[Connection, float], moment: float) -> list[Connection]:
    """The first that began before a moment, a few of them."""
    first = itertools.islice(since.items(), AT_ONCE)
    return [connection for connection, _ in itertools.takewhile(lambda entry: entry[1] <= moment, first)]
