"""Whether there is time to rank: the limit of a request, and what ranking takes in this process.

An answer that comes late is no answer. Where the time that is left is hardly enough, the answer takes lists as they are
stored, which costs a fraction of the time, and says so.
"""

from __future__ import annotations

from collections.abc import Callable

Timer = Callable[[], float]
"""Seconds from any moment on, never going back."""
HEADER = "X-Deadline-Ms"
MAX_DEADLINE_MS = 3_600_000

USUAL_AT_FIRST_SECONDS = 0.001
SHARE_OF_THE_LATEST = 0.1
MARGIN = 2.0
"""An answer needs up to twice its usual time often enough, and has to be encoded and sent."""
FORGETTING = 0.98
"""Share of the known time that is forgotten with each answer that was not ranked, so that ranking is tried again."""


class Pace:
    """What an answer that ranks takes in this process: the mean of the last ones, older ones counting less."""

    def __init__(self) -> None:
        self.seconds = USUAL_AT_FIRST_SECONDS

    def took(self, seconds: float) -> None:
        """An answer has been ranked in this time."""
        self.seconds += SHARE_OF_THE_LATEST * (seconds - self.seconds)

    def was_skipped(self) -> None:
        """An answer has not been ranked, for want of time."""
        self.seconds *= FORGETTING


class Haste:
    """Asked before each rung: is there too little time left to rank? Once true, it stays true."""

    def __init__(self, is_short: Callable[[int], bool] | None = None) -> None:
        """`is_short` gets the number of the question, from 0. None: there is no limit."""
        self._is_short = is_short
        self._asked = 0
        self.since = -1
        """The number of the first question that was answered with yes; -1: none was."""

    @classmethod
    def until(cls, ends_at: float, timer: Timer, pace: Pace) -> Haste:
        """From when on what is left until a moment on the timer is too short for what ranking usually takes."""
        return cls(lambda _: ends_at - timer() < MARGIN * pace.seconds)

    @classmethod
    def as_before(cls, since: int) -> Haste:
        """As it was for an answer that is made again."""
        return cls(lambda number: 0 <= since <= number)

    def __call__(self) -> bool:
        if self._is_short is None:
            return False
        if self.since < 0 and self._is_short(self._asked):
            self.since = self._asked
        self._asked += 1
        return self.since >= 0


def limit_ms(asked: float | None, setting: float) -> float | None:
    """The shorter of what a request asks for and `serve.deadline_ms`, where 0 is none; None: there is no limit."""
    limits = [limit for limit in (asked, setting or None) if limit is not None]
    return min(limits, default=None)
