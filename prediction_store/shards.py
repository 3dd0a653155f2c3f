"""LMDB files: written once by one task, in key order, and byte for byte the same whenever the records are.

The only code that opens a version's LMDB for writing: a read-write open of a missing path would make an empty store.
"""

from __future__ import annotations

import secrets
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import lmdb

from prediction_store import contents, durable, layout
from prediction_store.errors import BuildError, DiskError, ShardConflictError
from schemas.record import MAX_KEY_BYTES, is_key

LIB_VERSION: Final = 0
"""The engine of py-lmdb that is used: 0 is LMDB 0.9. Pinned, for the package carries two whose files differ."""
COMMIT_RECORDS: Final = 8192
"""Records in one transaction. Part of the format in effect: another number gives other, equally good bytes."""
MIN_MAP_BYTES: Final = 16 << 20
INDEX_VALUE: Final = struct.Struct("<I")
"""Value in items/index.mdb: the dense index of the item."""


class ShardReport(NamedTuple):
    """What `write_shard` has written."""

    path: Path
    users: int
    bytes: int


def shard_of(key: bytes, shards: int) -> int:
    """The number of the shard that holds a key."""
    return crc32(key) % shards


def write_shard(path: Path, records: Iterable[tuple[bytes, bytes | memoryview]], *, expected_bytes: int) -> ShardReport:
    """Write keys and values into a new LMDB file, and sync it. Sealing the version reads it back.

    The same records with the same `expected_bytes` (rounded up to a power of two) give the same bytes.

    Args:
        records: keys and values in ascending order of the key, each key once.
        expected_bytes: about the sum of all keys and values; four times as much room is made.

    Raises:
        BuildError: a key is empty, too long, twice there or out of order; or there is far more than expected.
        DiskError: the file exists, or the file system refuses; the file is gone then.
    """
    if any(layout.is_version_name(parent.name) for parent in path.absolute().parents):
        raise BuildError(f"writing {path}: that version is sealed")
    if path.exists():
        raise DiskError(f"writing {path}: it exists")
    map_bytes = MIN_MAP_BYTES
    while map_bytes < 4 * expected_bytes:
        map_bytes *= 2
    with durable.translated("writing", path):
        durable.before("write shard", path)
    try:
        count = _write(path, records, map_bytes)
        durable.sync_file(path)
        return ShardReport(path, count, path.stat().st_size)
    except BaseException:
        durable.remove_file(path)
        raise


def commit_shard(attempt: Path, final: Path) -> None:
    """Give a finished attempt its final name. The first complete attempt wins; a later one must be its equal.

    Raises:
        ShardConflictError: another attempt has won, and its bytes differ.
        DiskError: the attempt is not there, or the file system refuses.
    """
    won = durable.link_new(attempt, final)
    if not won and not attempt.samefile(final):
        mine, theirs = contents.sha256_of(attempt), contents.sha256_of(final)
        if mine != theirs:
            raise ShardConflictError(
                f"two attempts at {final.name} differ: {theirs[:12]} was first, {mine[:12]} came now",
                hint="the step that made them gives other results when it is repeated",
            )
    durable.remove_file(attempt)


def copy_shard(finished: Path, target: Path) -> None:
    """Copy a finished shard from another disk, and sync it. Sealing the version reads it back.

    Raises:
        DiskError: the shard is not there, the target is, or the file system refuses; what was written is gone then.
    """
    with durable.translated("reading", finished), finished.open("rb") as source, durable.create(target) as copy:
        shutil.copyfileobj(source, copy, contents.READ_BYTES)


def attempt_at(final: Path) -> Path:
    """A path for one attempt at a shard, its own even when two tasks work on the same one."""
    return layout.attempt_path(final, secrets.token_hex(8))


def open_shard(path: Path) -> lmdb.Environment:
    """Open a finished LMDB file for reading. Requires: its size is as sealed; it is open nowhere in this process.

    Without locks: no lock file, no table of readers, and a read-only file system will do.

    Raises:
        DamagedVersionError: LMDB does not take it for one of its files.
        DiskError: too many files are open, or there is no memory to map it.
    """
    try:
        return lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, readahead=False, max_spare_txns=1,
            lib_version=LIB_VERSION,
        )  # fmt: skip
    except lmdb.Error as error:
        raise contents.unreadable(f"opening {path}: {error}", error.code) from error


def _write(path: Path, records: Iterable[tuple[bytes, bytes | memoryview]], map_bytes: int) -> int:
    count = written = 0
    try:
        # No writemap: a full disk would be a SIGBUS. No sync until the end: nobody sees the file before.
        with lmdb.open(
            str(path), subdir=False, map_size=map_bytes, lock=False, sync=False, metasync=False, lib_version=LIB_VERSION
        ) as shard:
            transaction = shard.begin(write=True)
            try:
                for key, value in records:
                    if not is_key(key):
                        raise BuildError(f"{path.name}: a key of {len(key)} bytes; wanted 1 to {MAX_KEY_BYTES}")
                    # LMDB says no to a duplicate or misplaced key by returning False, and forgets the record.
                    if not transaction.put(key, value, append=True):
                        raise BuildError(f"{path.name}: key {key[:64]!r} is there already or out of order")
                    count += 1
                    if count % COMMIT_RECORDS == 0:
                        transaction.commit()
                        written = durable.start_writing(path, written)  # or the sync at the end would find it all to do
                        transaction = shard.begin(write=True)
                transaction.commit()
            except BaseException:
                transaction.abort()
                raise
            shard.sync(True)
    except lmdb.MapFullError as error:
        raise BuildError(
            f"{path.name}: more than {map_bytes} bytes after {count} records",
            hint="pass the true size of the records as expected_bytes",
        ) from error
    except lmdb.Error as error:
        raise DiskError(f"writing {path}: {error}") from error
    return count
