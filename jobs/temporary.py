"""Folders for temporary files, and an end to those whose process was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "shortlist-step-"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder where TMPDIR says, removed at the end of the block.

    A process that is killed leaves its folder behind, with all that Spark has spilled into it; the next one on the same
    machine removes that. A folder in use is locked, and the kernel frees the lock when the process dies.

    Raises:
        OSError: there is no place for temporary files.
    """
    root = Path(tempfile.gettempdir())
    for leftover in root.glob(f"{PREFIX}*"):
        _sweep(leftover)
    folder, lock = _locked(root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(root: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        with suppress(FileNotFoundError):  # another process has swept it before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(OSError):  # a file system without locks: nobody can sweep there, either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _sweep(folder: Path) -> None:
    with suppress(OSError):  # gone meanwhile, in use, or of a user whose folders are not ours to open
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
