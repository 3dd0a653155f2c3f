"""The word to end, which the handler of a signal may give."""

from __future__ import annotations

import time
from typing import Final

LOOK_SECONDS: Final = 0.1
"""How late whoever waits may hear of it."""


class Stop:
    """Is given once, by any thread, and amid whatever the main thread does, its `wait` included.

    Not a `threading.Event`: that has a lock, on which a handler that runs amid the same thread's `wait` would wait for
    ever.
    """

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """It is time to end."""
        self._is_set = True

    def is_set(self) -> bool:
        """Somebody has said so."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Return when it is set, or after so many seconds; whether it is."""
        until = time.monotonic() + seconds
        while not self._is_set and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
        return self._is_set
