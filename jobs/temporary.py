"""Folders for temporary files, and an end to those whose process was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prediction_store import locks
from prediction_store.errors import DiskError

PREFIX = "shortlist-step-"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder where TMPDIR says, removed at the end of the block.

    A process that is killed leaves its folder behind, with all that Spark has spilled into it; the next one on the same
    machine removes that: the lock on a folder in use goes with the process.

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
        locks.unlock(lock)


def _locked(root: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        lock = locks.lock(folder, exclusive=True)
        if lock is not None:  # else another process has swept it already
            return folder, lock


def _sweep(folder: Path) -> None:
    with suppress(DiskError, OSError):  # a link, gone meanwhile, or of a user whose folders are not ours to open
        lock = locks.lock(folder, exclusive=True) if folder.lstat().st_uid == os.getuid() else None
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            locks.unlock(lock)
