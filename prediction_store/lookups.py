"""Looking up records in the shards of an open version.

To begin and end a transaction costs LMDB more than to find the record. The files never change, so one transaction is as
good as the next, and all are kept. LMDB lets a reading transaction move between threads but serve one at a time: who
reads borrows a reader, and there come to be as many readers as threads have read at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from zlib import crc32

import lmdb

from prediction_store.errors import DamagedRecordError, ShardNotHeldError
from schemas.record import Candidates
from schemas.record_decoder import Decode, record_decoder

Get = Callable[[bytes], bytes | memoryview | None]
Reader = tuple[list[Get], Decode]
"""What one thread at a time reads with: a transaction in each shard, and a decoder."""


class Lookups:
    """Finds and decodes records. Any number of threads may read at once; none may once a shard is closed."""

    def __init__(self, shards: Sequence[lmdb.Environment | None], *, seed: int, index_bits: int) -> None:
        self._shards = shards
        self._seed, self._index_bits = seed, index_bits
        self._idle: list[Reader] = []

    def read(self, key: bytes) -> Candidates | None:
        """The candidates under a key; None: there are none. The arrays are copies, valid for ever.

        Raises:
            DamagedRecordError: the record, or a page on the way to it, is not as it was written.
            ShardNotHeldError: the user's shard is on other hosts only.
        """
        if not key:
            return None  # LMDB refuses an empty key; with one that is too long it finds nothing
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = self._new_reader()
        gets, decode = reader
        try:
            record = gets[crc32(key) % len(gets)](key)
        except lmdb.Error as error:  # the reader is not put back: LMDB fails whatever follows in its transaction
            raise DamagedRecordError(f"reading the record of {key[:64]!r}: {error}") from error
        except ShardNotHeldError:
            self._idle.append(reader)
            raise
        found = None if record is None else decode(record, key)
        self._idle.append(reader)
        return found

    def _new_reader(self) -> Reader:
        return [*map(_get_of, self._shards)], record_decoder(seed=self._seed, index_bits=self._index_bits)


def _get_of(shard: lmdb.Environment | None) -> Get:
    """What looks up keys in a shard. Where LMDB will begin no transaction, its damage is that of each key there."""
    if shard is None:
        return _not_held
    try:
        return shard.begin(buffers=True).get
    except lmdb.Error as error:
        return partial(_fail, error)


def _fail(error: lmdb.Error, key: bytes) -> None:
    raise error


def _not_held(key: bytes) -> None:
    raise ShardNotHeldError(f"the record of {key[:64]!r} is in a shard that is on other hosts")
