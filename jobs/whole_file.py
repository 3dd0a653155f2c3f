"""A file anywhere that is complete or absent, and an end to what a killed process has left of one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from jobs.errors import JobError
from prediction_store import durable, layout, locks
from prediction_store.errors import DiskError
from schemas.errors import UsageError

PREFIX = ".shortlist-export-"


def refuse_no_place(path: Path) -> None:
    """Go on only if a file can stand at the path: its folder is there, and nothing that is no file.

    Raises:
        UsageError: it cannot.
        DiskError: this user may not look there, or such.
    """
    with durable.translated("writing", path):
        if not path.parent.is_dir():
            raise UsageError(f"writing {path}: there is no folder {path.parent}")
        if path.exists() and not path.is_file():  # a device, say, which root would replace
            raise UsageError(f"writing {path}: it is there, and is no file")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of `path` when the block ends; on an error it is gone.

    Until then it lies beside it under a name that begins with `PREFIX`. A process that is killed leaves it there, and
    the next one that writes the same file removes it: the lock on a file in use goes with the process.

    Raises:
        DiskError: the disk is full, or may not be written.
    """
    _sweep(path)
    temporary = path.with_name(f"{PREFIX}{path.name}-{secrets.token_hex(4)}")
    lock = None
    try:
        with durable.create(temporary) as file:
            lock = locks.lock(temporary, exclusive=True)
            if lock is None:  # swept between the two lines
                raise JobError(f"another process writes {path}, too", hint="wait for it to end, then run again")
            yield file
        durable.rename(temporary, path)
    except BaseException:
        with suppress(DiskError):
            durable.remove_file(temporary)
        raise
    finally:
        if lock is not None:
            locks.unlock(lock)
    durable.sync_folder(path.parent)


def _sweep(path: Path) -> None:
    """Remove what killed processes have left that wrote this very file."""
    name = re.compile(re.escape(f"{PREFIX}{path.name}-") + "[0-9a-f]{8}")
    with suppress(DiskError):  # a link, of a user whose files are not ours to open, or in a folder that hides its names
        for leftover in filter(name.fullmatch, layout.entries(path.parent)):
            lock = locks.lock(path.with_name(leftover), exclusive=True)
            if lock is not None:
                try:
                    durable.remove_file(path.with_name(leftover))
                finally:
                    locks.unlock(lock)
