"""Opening an LMDB file that other processes write at the same time: it may grow meanwhile, and the disk may be full."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import lmdb

from prediction_store import durable
from prediction_store.shards import LIB_VERSION

LOCK_FILE: Final = "lock.mdb"
"""LMDB's name for it, in a folder of its own."""
TRIES: Final = 100
"""Against a writer that does nothing but add pages, two in five fail."""
PLACE_BYTES: Final = 64
"""Of a reader in the lock file, and as much as each of the two locks before them takes."""


def open_growing(
    path: str, *, max_readers: int, subdir: bool = True, lock: bool = True, **options: Any
) -> lmdb.Environment:
    """`lmdb.open`, again where the file grew between its being mapped and its first page being read.

    LMDB maps as much as the file says that it uses, and only then begins the transaction in which lmdb reads it.

    Requires: the file is not open in this process already, or LMDB would lose its locks.

    Raises:
        lmdb.Error: as `lmdb.open`; also MapResizedError, where it has grown `TRIES` times.
        DiskError: there is no room for the lock file, or it may not be written.
    """
    if lock:
        # LMDB leaves holes in it and writes through a map: on a full disk that would be a SIGBUS.
        lock_file = Path(path) / LOCK_FILE if subdir else Path(f"{path}-lock")
        durable.allocate(lock_file, lock_bytes(max_readers))
    options |= {"max_readers": max_readers, "subdir": subdir, "lock": lock}
    for _ in range(TRIES - 1):
        try:
            return lmdb.open(path, lib_version=LIB_VERSION, **options)
        except lmdb.MapResizedError:
            continue
    return lmdb.open(path, lib_version=LIB_VERSION, **options)


def lock_bytes(max_readers: int) -> int:
    """The size that LMDB gives to its lock file. Source: mdb_env_setup_locks in mdb.c of LMDB 0.9."""
    return (max_readers + 2) * PLACE_BYTES
