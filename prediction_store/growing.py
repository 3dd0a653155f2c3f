"""Opening an LMDB file that other processes may be making larger at the same time."""

from __future__ import annotations

from typing import Any, Final

import lmdb

from prediction_store.shards import LIB_VERSION

TRIES: Final = 100
"""Against a writer that does nothing but add pages, two in five fail."""


def open_growing(path: str, **options: Any) -> lmdb.Environment:
    """`lmdb.open`, again where the file grew between its being mapped and its first page being read.

    LMDB maps as much as the file says that it uses, and only then begins the transaction in which lmdb reads it.

    Raises:
        lmdb.Error: as `lmdb.open`; also MapResizedError, where it has grown `TRIES` times.
    """
    for _ in range(TRIES - 1):
        try:
            return lmdb.open(path, lib_version=LIB_VERSION, **options)
        except lmdb.MapResizedError:
            continue
    return lmdb.open(path, lib_version=LIB_VERSION, **options)
