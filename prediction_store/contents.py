"""What files hold: small documents as a whole, sizes and digests of all others."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from prediction_store.durable import translated
from prediction_store.errors import DamagedVersionError, DiskError, StoreError

READ_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 64 << 20
"""No manifest, history record or report is larger; a file that is, is not one."""

OUT_OF: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Open files or memory: what the process, or the machine, has too little of. It says nothing of the bytes."""


def read_document(path: Path) -> bytes:
    """The bytes of a small regular file; a link is not followed.

    Raises:
        FileNotFoundError: it is not there.
        DiskError: it is something else than a regular file, far too large, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DiskError(f"reading {path}: {error.strerror}") from error
    try:
        return read_descriptor(descriptor, path)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, path: Path) -> bytes:
    """Like `read_document`, of a file that is open already."""
    with translated("reading", path):
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_DOCUMENT_BYTES:
            raise DiskError(f"reading {path}: not a regular file of at most {MAX_DOCUMENT_BYTES} bytes")
        parts = []
        os.lseek(descriptor, 0, os.SEEK_SET)
        while part := os.read(descriptor, READ_BYTES):
            parts.append(part)
        return b"".join(parts)


def size_of(path: Path) -> int | None:
    """Size of a regular file in bytes; None: there is none, or it is a link or a folder."""
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, by reading it from end to end; that also warms the page cache.

    Raises:
        DamagedVersionError: it is not there, or the disk cannot read it.
        DiskError: too many files are open.
    """
    return digest_of(path).hexdigest()


def digest_of(path: Path) -> hashlib._Hash:
    """Like `sha256_of`, as a digest that can be gone on with."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(READ_BYTES))
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
    except OSError as error:
        raise unreadable(f"reading {path}: {error.strerror or error}", error.errno) from error
    return digest


def unreadable(message: str, code: int | None) -> StoreError:
    """The error of a version's file that cannot be read, by the system's code: another try helps with a DiskError."""
    return DiskError(message) if code in OUT_OF else DamagedVersionError(message)
