"""What a disk refuses, in words that say what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from jobs.errors import JobError

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full, as far as this user may fill it",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EIO: "the disk fails",
    errno.ENOTDIR: "a file lies where a folder is wanted",
    errno.EEXIST: "a file lies where a folder is wanted",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "links lead in a circle",
    errno.EFBIG: "the file is larger than this user may write",
}


@contextmanager
def refusals_for_people(step: str, path: Path) -> Iterator[None]:
    """Turn what the disk refuses in the block into an error that names the file, or `path`, below which it writes.

    Raises:
        JobError: the disk is full, read-only, or such.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None) or _number(str(error))
        if number not in REFUSALS:
            raise
        needs_room = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room" if needs_room else "ls -ld tells what it is, and whose"
        raise JobError(
            f"{step}: {REFUSALS[number]}: {getattr(error, 'filename', None) or path}",
            hint=f"{remedy}; or take another disk, see paths.workspace; then run again: finished steps are skipped",
        ) from error


def _number(text: str) -> int | None:
    """The error number that a library says in words alone."""
    if said := re.search(r"\(os error (\d+)\)", text):
        return int(said[1])
    return errno.ENOSPC if re.search(r"\d+ requested and \d+ written", text) else None  # numpy's tofile
