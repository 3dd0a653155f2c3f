"""Read every record of a shard: what is counted here is all that the sealing of a version and the checker believe.

Records are checked some dozens at a time. When anything about them is not as it must be, they are looked at one by one,
to say which and what.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import lt
from typing import Final, NamedTuple

import lmdb
import numpy as np

from prediction_store.errors import DamagedRecordError
from prediction_store.shards import shard_of
from schemas.record import decode_record
from schemas.record_checker import MAX_RECORDS, RecordChecker

MAX_PROBLEMS: Final = 10
"""Problems that are listed; the rest is only counted."""

Data = bytes | memoryview


class Wanted(NamedTuple):
    """What the records of a version have to agree with."""

    shards: int
    seed: int
    index_bits: int
    n_items: int
    n_users: int


class Survey:
    """What stands in the records of one shard, or of several together."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.records = 0
        self.lists = 0
        """Records whose list is not empty."""
        self.list_items = 0
        self.first_keys: list[bytes] = []
        """The first key of each shard that has one."""
        self.problems: list[str] = []
        self.n_problems = 0
        self._checker = RecordChecker(seed=wanted.seed, index_bits=wanted.index_bits)

    def add(self, file: str, shard: lmdb.Environment, number: int) -> None:
        """Read a shard from end to end: order, place and content of each record."""
        before = b""
        with shard.begin(buffers=True) as transaction:
            for keys, records in _batches(transaction):
                if not before:
                    self.first_keys.append(keys[0])
                if not self._count_if_right(keys, records, before, number):
                    self._look_closely(file, keys, records, before, number)
                self.records += len(keys)
                before = keys[-1]

    def _count_if_right(self, keys: list[bytes], records: list[Data], before: bytes, number: int) -> bool:
        """Count the lists of a batch and return True, if nothing at all is wrong with it."""
        wanted = self.wanted
        found = self._checker.check(keys, records)
        if found is None or found.highest_user_row >= wanted.n_users or found.highest_item >= wanted.n_items:
            return False
        is_in_order = all(map(lt, [before, *keys[:-1]], keys))
        is_in_place = all(shard_of(key, wanted.shards) == number for key in keys)
        if not (is_in_order and is_in_place and _is_utf8(b"\n".join(keys))):  # no character spans a line feed
            return False
        self.lists += int(np.count_nonzero(found.lengths))
        self.list_items += int(found.lengths.sum())
        return True

    def _look_closely(self, file: str, keys: list[bytes], records: list[Data], before: bytes, number: int) -> None:
        wanted = self.wanted
        for key, record in zip(keys, records, strict=True):
            if key <= before:
                self._note(file, f"key {key[:64]!r} is out of order")
            before = key
            if not _is_utf8(key):
                self._note(file, f"key {key[:64]!r} is not UTF-8")
            if shard_of(key, wanted.shards) != number:
                self._note(file, f"key {key[:64]!r} belongs into shard {shard_of(key, wanted.shards)}")
            try:
                candidates = decode_record(record, key, seed=wanted.seed, index_bits=wanted.index_bits)
            except DamagedRecordError as error:
                self._note(file, error.message)
                continue
            if candidates.user_row >= wanted.n_users:
                self._note(file, f"key {key[:64]!r} has user row {candidates.user_row} of {wanted.n_users}")
            length = candidates.items.size
            self.list_items += length
            self.lists += length > 0
            if length and int(candidates.items.max()) >= wanted.n_items:
                self._note(file, f"key {key[:64]!r} has item {candidates.items.max()} of {wanted.n_items}")

    def _note(self, file: str, what: str) -> None:
        self.n_problems += 1
        if self.n_problems <= MAX_PROBLEMS:
            self.problems.append(f"{file}: {what}")


def _batches(transaction: lmdb.Transaction) -> Iterator[tuple[list[bytes], list[Data]]]:
    """Keys and records in their order. The records look into the mapped file: for use before the transaction ends."""
    keys: list[bytes] = []
    records: list[Data] = []
    for key, record in transaction.cursor():
        keys.append(bytes(key))
        records.append(record)
        if len(keys) == MAX_RECORDS:
            yield keys, records
            keys, records = [], []
    if keys:
        yield keys, records


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
