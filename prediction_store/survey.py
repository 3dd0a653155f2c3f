"""Read every record of a shard: what the sealing of a version and the checker both do, and believe nothing but."""

from __future__ import annotations

from typing import Final

import lmdb

from prediction_store.shards import shard_of
from schemas.errors import DamagedRecordError
from schemas.record import decode_record

MAX_PROBLEMS: Final = 10
"""Problems listed per shard; the rest is only counted."""


class Survey:
    """What stands in the records of one shard, or of several together."""

    def __init__(self) -> None:
        self.records = 0
        self.lists = 0
        """Records whose list is not empty."""
        self.list_items = 0
        self.first_keys: list[bytes] = []
        """The first key of each shard that has one."""
        self.problems: list[str] = []
        self.n_problems = 0

    def add(
        self, file: str, shard: lmdb.Environment, *, number: int, shards: int, seed: int, index_bits: int,
        n_items: int, n_users: int,
    ) -> None:  # fmt: skip
        """Read the shard from end to end: order, place and content of each record."""
        before = b""
        with shard.begin(buffers=True) as transaction:
            for raw_key, value in transaction.cursor():
                key = bytes(raw_key)
                if key <= before:
                    self._note(file, f"key {key[:64]!r} is out of order")
                if not before:
                    self.first_keys.append(key)
                before = key
                self.records += 1
                if not _is_utf8(key):
                    self._note(file, f"key {key[:64]!r} is not UTF-8")
                if shard_of(key, shards) != number:
                    self._note(file, f"key {key[:64]!r} belongs into shard {shard_of(key, shards)}")
                try:
                    candidates = decode_record(value, key, seed=seed, index_bits=index_bits)
                except DamagedRecordError as error:
                    self._note(file, error.message)
                    continue
                if candidates.user_row >= n_users:
                    self._note(file, f"key {key[:64]!r} has user row {candidates.user_row} of {n_users}")
                length = candidates.items.size
                self.list_items += length
                self.lists += length > 0
                if length and int(candidates.items.max()) >= n_items:
                    self._note(file, f"key {key[:64]!r} has item {candidates.items.max()} of {n_items}")

    def _note(self, file: str, what: str) -> None:
        self.n_problems += 1
        if self.n_problems <= MAX_PROBLEMS:
            self.problems.append(f"{file}: {what}")


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
