"""Durable steps from the outside: watch them, count them, and have something go wrong at one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from prediction_store import durable

Before = Callable[[str, Path], None]


class Step(NamedTuple):
    """One durable step, by what is done and to which file or folder."""

    what: str
    name: str

    def __str__(self) -> str:
        return f"{self.what} {self.name}"


@contextmanager
def announced_to(before: Before) -> Iterator[None]:
    """Have a function called before each durable step of this process, for the length of a block."""
    silent = durable.before
    durable.before = before
    try:
        yield
    finally:
        durable.before = silent


def steps_of(command: Callable[[], object]) -> list[Step]:
    """The durable steps that a command takes, in order."""
    taken: list[Step] = []
    with announced_to(lambda step, path: taken.append(Step(step, path.name))):
        command()
    return taken


def at_step(number: int, do: Callable[[], None]) -> Before:
    """What does something before the step of that number, counted from 0, and nothing before any other."""
    left = number

    def count_down(step: str, path: Path) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            do()

    return count_down


def from_step(number: int, do: Callable[[], None]) -> Before:
    """What does something before the step of that number, counted from 0, and before every later one."""
    left = number

    def count_down(step: str, path: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            do()

    return count_down


def kill_myself() -> None:
    """End this process as a power switch would: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(command: Callable[[], object]) -> int:
    """Run a command in a forked child: its exit code, which is 0 unless the command raised or the child was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            command()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(number: int, command: Callable[[], object]) -> int:
    """Run a command in a child that is killed before one of its steps; the child's exit code."""

    def run() -> None:
        with announced_to(at_step(number, kill_myself)):
            command()

    return in_child(run)


@contextmanager
def failing_syncs(number: int, error: int) -> Iterator[list[tuple[int, int]]]:
    """Let the sync of that number fail, counted from 0; yields what was synced after it, by device and inode.

    The first entry of the list is the one whose sync failed.
    """
    real, left = os.fsync, number
    synced: list[tuple[int, int]] = []

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        facts = os.fstat(descriptor)
        if left < 0:
            synced.append((facts.st_dev, facts.st_ino))
        if left == -1:
            raise OSError(error, "broken on purpose")
        real(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    try:
        yield synced
    finally:
        os.fsync = real
