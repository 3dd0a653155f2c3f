"""Who of several workers takes a new connection: the one that has the fewest.

All workers wait at one socket, and the kernel wakes whom it likes. Left to that, one worker may get all the connections
of a proxy, which last, and the others have nothing to do. So a worker that has more than another leaves new ones to it.
It takes what nobody has taken after 25 milliseconds: the other may be dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

from reranker.log import logger

LOOK_SECONDS, LOOKS = 0.001, 25
"""How often a worker that is ahead looks whether the others have caught up, until it takes what waits."""
PAUSE_SECONDS = 1.0
"""Where the system has no more files or memory for connections."""
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
log = logger(__name__)


class Acceptor:
    """Takes connections from a socket that listens, from its start until it is closed, in the thread of its loop."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], is_ahead: Callable[[int], bool]
    ) -> None:
        """`protocol` is made for each connection; `is_ahead` says that another worker has fewer, when this one has so
        many that it has not counted yet."""
        self._listener = listener
        self._protocol = protocol
        self._is_ahead = is_ahead
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._wait()

    def close(self) -> None:
        """Take no more."""
        self._loop.remove_reader(self._listener)
        if self._later is not None:
            self._later.cancel()

    async def wait_closed(self) -> None:
        """Return when what was taken has begun."""
        await asyncio.gather(*self._beginning)

    def _wait(self) -> None:
        self._loop.add_reader(self._listener, self._arrived)

    def _arrived(self) -> None:
        if self._is_ahead(len(self._beginning)):
            self._loop.remove_reader(self._listener)
            self._leave(LOOKS)
        else:
            self._take()

    def _leave(self, looks: int) -> None:
        """Leave what waits to the others, for so many looks."""
        self._later = self._loop.call_later(LOOK_SECONDS, self._look, looks - 1)

    def _look(self, looks: int) -> None:
        if not self._is_ahead(len(self._beginning)):
            self._wait()
        elif looks:
            self._leave(looks)
        else:
            self._wait()
            while self._take():
                pass

    def _take(self) -> bool:
        """One connection; False: none is left."""
        try:
            taken, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker was quicker, or it is gone
            return False
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            log.error("no connections taken", reason=error.strerror)
            self._loop.remove_reader(self._listener)
            self._later = self._loop.call_later(PAUSE_SECONDS, self._wait)
            return False
        taken.setblocking(False)
        task = self._loop.create_task(self._begin(taken))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        return True

    async def _begin(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client is gone already
            await self._loop.connect_accepted_socket(self._protocol, taken)
