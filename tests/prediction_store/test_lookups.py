"""Looking up with kept transactions, against the obvious way: one transaction for each record."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from prediction_store.errors import DamagedRecordError
from prediction_store.lookups import Lookups
from prediction_store.shards import open_shard, shard_of, write_shard
from schemas.record import Candidates, decode_record, encode_record

SEED, BITS, SHARDS, USERS = 77, 20, 3, 900
KEYS = [b"u%04d" % user for user in range(USERS)]
STRANGERS = [b"", b"nobody", b"x" * 511, b"x" * 512, b"\xff", b"u0001\0"]


def items_of(user: int) -> list[int]:
    """Some users have nothing, most have a page of their own."""
    return [] if user % 10 == 0 else list(range(user, user + 600 + user % 7))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three shards of all users."""
    written = [tmp_path / f"{shard}.mdb" for shard in range(SHARDS)]
    for shard, path in enumerate(written):
        members = [(user, key) for user, key in enumerate(KEYS) if shard_of(key, SHARDS) == shard]
        write_shard(path, ((key, record(user, key)) for user, key in members), expected_bytes=1 << 20)
    return written


def record(user: int, key: bytes) -> bytes:
    items = items_of(user)
    scores = np.linspace(2, user / USERS, len(items))
    return encode_record(key, items, scores, made_at=5, user_row=user, seed=SEED, index_bits=BITS)


@pytest.fixture
def shards(paths: list[Path]) -> Iterator[list[lmdb.Environment]]:
    opened = [open_shard(path) for path in paths]
    yield opened
    for shard in opened:
        shard.close()


def read_slowly(shards: list[lmdb.Environment], key: bytes) -> Candidates | None:
    """The obvious way."""
    if not 1 <= len(key) <= 511:
        return None
    try:
        with shards[shard_of(key, len(shards))].begin() as transaction:
            value = transaction.get(key)
    except lmdb.Error as error:
        raise DamagedRecordError(f"reading the record of {key[:64]!r}: {error}") from error
    return None if value is None else decode_record(value, key, seed=SEED, index_bits=BITS)


def outcome(read: Callable[[], Candidates | None]) -> Any:
    try:
        found = read()
    except DamagedRecordError as error:
        return error.message
    return found and (found.items.tobytes(), found.scores.tobytes(), found.made_at, found.user_row)


def test_every_user_is_found_and_nobody_else(shards: list[lmdb.Environment]) -> None:
    lookups = Lookups(shards, seed=SEED, index_bits=BITS)
    for key in [*KEYS, *STRANGERS]:
        assert outcome(lambda: lookups.read(key)) == outcome(lambda: read_slowly(shards, key)), key  # noqa: B023


def test_threads_that_read_at_once_do_not_disturb_each_other(shards: list[lmdb.Environment]) -> None:
    lookups = Lookups(shards, seed=SEED, index_bits=BITS)
    wanted = {key: outcome(lambda: read_slowly(shards, key)) for key in KEYS}  # noqa: B023
    wrong: list[bytes] = []
    start = threading.Barrier(8)

    def read_all(seed: int) -> None:
        start.wait()
        for user in np.random.default_rng(seed).integers(0, USERS, 3000):
            key = KEYS[user]
            if outcome(lambda: lookups.read(key)) != wanted[key]:  # noqa: B023
                wrong.append(key)

    threads = [threading.Thread(target=read_all, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_damaged_page_of_the_tree_is_damage_for_its_users_and_nobody_else(paths: list[Path]) -> None:
    """LMDB fails everything that follows an error in a transaction, and the transactions here are kept."""
    for path in paths:
        path.write_bytes(with_a_child_that_is_nowhere(path.read_bytes()))
    shards = [open_shard(path) for path in paths]
    lookups = Lookups(shards, seed=SEED, index_bits=BITS)
    found = {key: outcome(lambda: lookups.read(key)) for key in [*KEYS, *KEYS]}  # noqa: B023
    assert found == {key: outcome(lambda: read_slowly(shards, key)) for key in KEYS}  # noqa: B023
    damaged = [key for key, what in found.items() if isinstance(what, str)]
    assert 0 < len(damaged) < USERS
    for shard in shards:
        shard.close()


def with_a_child_that_is_nowhere(shard: bytes) -> bytes:
    """The shard, with a page number in its root that is far beyond the end of the file."""
    data = bytearray(shard)
    (root,) = (at for at in range(0, len(data), 4096) if is_branch(data[at : at + 4096]))
    (node,) = struct.unpack_from("<H", data, root + 16)  # where the first child stands in the page
    struct.pack_into("<H", data, root + node + 2, 0x7FFF)  # the middle of its page number
    return bytes(data)


def is_branch(page: bytearray) -> bool:
    return struct.unpack_from("<H", page, 10) == (0x01,)


def test_a_shard_damaged_while_it_is_open_is_damage_for_its_users_and_nobody_else(
    shards: list[lmdb.Environment], paths: list[Path]
) -> None:
    """A thread that reads for the first time begins a transaction, and LMDB will not: its file is not so long."""
    last_page = struct.pack("<Q", 1 << 40)
    descriptor = os.open(paths[0], os.O_WRONLY)
    for meta in (0, 4096):
        os.pwrite(descriptor, last_page, meta + 136)
    os.close(descriptor)
    lookups = Lookups(shards, seed=SEED, index_bits=BITS)
    for key in [*KEYS, *KEYS]:
        if shard_of(key, SHARDS) == 0:
            with pytest.raises(DamagedRecordError, match="MAP_RESIZED"):
                lookups.read(key)
        else:
            assert outcome(lambda: lookups.read(key)) == outcome(lambda: read_slowly(shards, key))  # noqa: B023


def test_a_damaged_record_spoils_no_other(paths: list[Path]) -> None:
    (path, *_) = paths
    data = bytearray(path.read_bytes())
    key = next(key for key in KEYS[5:] if shard_of(key, SHARDS) == 0 and items_of(int(key[1:])))
    data[data.index(record(int(key[1:]), key)) + 100] ^= 1
    path.write_bytes(data)
    shards = [open_shard(path) for path in paths]
    lookups = Lookups(shards, seed=SEED, index_bits=BITS)
    with pytest.raises(DamagedRecordError, match="does not match its checksum"):
        lookups.read(key)
    others = [other for other in KEYS if other != key]
    assert all(lookups.read(other) is not None for other in others)
    for shard in shards:
        shard.close()
