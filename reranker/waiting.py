"""The requests that wait for their turn in a worker, and the rule by which more are turned away.

A worker is one thread, and an answer is some hundred microseconds of it. So load is measured as what waits here, in
seconds: the number of requests times what one takes. Requests are read and queued as they come; after every half
millisecond of answering the sockets are read again. So a request that comes when the queue is too long is refused at
once, for the cost of reading it, and not when its turn would have come; and the kernel never holds more than arrives in
such a slice. The number of connections would say less: most of them are idle. The lag of the event loop would say it
too late: a line of a second can have formed within one turn of the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

from reranker.errors import OverloadedError

T = TypeVar("T")
SLICE_SECONDS = 0.0005
FIRST_GUESS_SECONDS = 0.0005
"""What an answer takes, before the first one."""
_SHARE = 0.05
"""Of the latest answer in the running mean."""
_MOST = 4.0
"""Times the mean: what takes longer counts as that much, so that one hiccup turns nobody away."""


class Waiting:
    """A line of work, first come, first served, no longer than a time. Only for the thread of the event loop."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._mean = FIRST_GUESS_SECONDS
        self._line: deque[Callable[[], None]] = deque()
        self._is_due = False

    @property
    def is_full(self) -> bool:
        """Who came now would wait too long."""
        return len(self._line) * self._mean > self._max_seconds

    def put(self, work: Callable[[], None]) -> None:
        """Have work done in its turn; it must not raise."""
        self._line.append(work)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go_on)

    async def turn(self, work: Callable[[], T], *, is_admitted: bool = False) -> T:
        """What the work returns or raises, once it was its turn; raises OverloadedError.

        `is_admitted`: it belongs to a request that was let in before.
        """
        if self.is_full and not is_admitted:
            raise OverloadedError("too many requests wait")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        context = copy_context()  # the line runs in that of whoever came first, to whose span all would be told

        def settle() -> None:
            if done.cancelled():  # whoever waited has given up
                return
            try:
                done.set_result(context.run(work))
            except Exception as error:  # it is raised where it is awaited
                done.set_exception(error)

        self.put(settle)
        return await done

    def _go_on(self) -> None:
        clock, line = time.perf_counter, self._line
        began = before = clock()
        try:
            while line:
                line.popleft()()
                now = clock()
                self._mean += _SHARE * (min(now - before, _MOST * self._mean) - self._mean)
                if now - began > SLICE_SECONDS:
                    break
                before = now
        finally:  # also after work that raises, which is for the loop to report: the others must not wait for ever
            self._is_due = bool(line)
            if line:
                asyncio.get_running_loop().call_soon(self._go_on)
