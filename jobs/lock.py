"""A lock on what two processes must not make at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import DatasetBusyError


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`, which is made; the kernel frees it when this process dies.

    Raises:
        DatasetBusyError: another process holds it, as it makes `what`.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetBusyError(
                f"another process is making {what}", hint="wait for it to end, then run again"
            ) from None
        yield
    finally:
        os.close(handle)
