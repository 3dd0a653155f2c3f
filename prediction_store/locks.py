"""Locks on files and folders that nobody waits for, and that the death of a process gives back."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from prediction_store.errors import DiskError


def lock(path: Path, *, exclusive: bool) -> int | None:
    """Take a lock on a file or folder without waiting: the open descriptor that holds it, or None.

    None: someone else holds it, or there is nothing there, or (checked after locking) another thing by now.
    The kernel lets go when the descriptor is closed or the process dies.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DiskError(f"opening {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        mine, there = os.fstat(descriptor), path.lstat()
        if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def unlock(descriptor: int) -> None:
    """Give a lock back: by word, for closing is not enough while a forked child still has the descriptor."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
