"""The survey against an obvious one: every record of a shard decoded by itself, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest

from prediction_store.shards import open_shard, shard_of, write_shard
from prediction_store.survey import MAX_PROBLEMS, Survey, Wanted
from schemas.errors import DamagedRecordError
from schemas.record import WIDE, decode_record, encode_record
from schemas.record_checker import MAX_RECORDS

SEED, USERS, ITEMS, SHARDS = 77, 700, 5000, 2
KEYS = [key for key in (b"user-%04d" % user for user in range(2 * USERS)) if shard_of(key, SHARDS) == 0][:USERS]


def wanted(bits: int = 20) -> Wanted:
    return Wanted(SHARDS, SEED, bits, n_items=ITEMS, n_users=USERS)


def record(user: int, bits: int = 20) -> bytes:
    """Every tenth list is empty; the others have 1 to 900 items."""
    items = np.arange(0 if user % 10 == 0 else user % 9 * 100 + 1) + user
    scores = np.linspace(1, -user, items.size)
    return encode_record(KEYS[user], items, scores, made_at=5, user_row=user, seed=SEED, index_bits=bits)


def write(path: Path, bits: int = 20) -> Path:
    write_shard(path, ((key, record(user, bits)) for user, key in enumerate(KEYS)), expected_bytes=1 << 22)
    return path


def survey_slowly(file: str, shard: lmdb.Environment, wanted: Wanted) -> tuple[int, int, int, list[bytes], list[str]]:
    """The obvious way: records, lists, list items, first keys and all problems."""
    records = lists = list_items = 0
    keys, problems = [b""], []
    with shard.begin() as transaction:
        for key, value in transaction.cursor():
            records += 1
            if key <= keys[-1]:
                problems.append(f"key {key!r} is out of order")
            keys.append(key)
            try:
                key.decode("utf-8")
            except UnicodeDecodeError:
                problems.append(f"key {key!r} is not UTF-8")
            if shard_of(key, wanted.shards) != 0:
                problems.append(f"key {key!r} belongs into shard {shard_of(key, wanted.shards)}")
            try:
                found = decode_record(value, key, seed=wanted.seed, index_bits=wanted.index_bits)
            except DamagedRecordError as error:
                problems.append(error.message)
                continue
            if found.user_row >= wanted.n_users:
                problems.append(f"key {key!r} has user row {found.user_row} of {wanted.n_users}")
            lists += found.items.size > 0
            list_items += found.items.size
            if found.items.size and found.items.max() >= wanted.n_items:
                problems.append(f"key {key!r} has item {found.items.max()} of {wanted.n_items}")
    return records, lists, list_items, keys[1:2], [f"{file}: {problem}" for problem in problems]


def assert_both_find_the_same(path: Path, wanted: Wanted) -> list[str]:
    """The problems."""
    with open_shard(path) as shard:
        survey = Survey(wanted)
        survey.add("a.mdb", shard, 0)
        *counts, problems = survey_slowly("a.mdb", shard, wanted)
    assert [survey.records, survey.lists, survey.list_items, survey.first_keys] == counts
    assert (survey.n_problems, survey.problems) == (len(problems), problems[:MAX_PROBLEMS])
    return problems


@pytest.mark.parametrize("bits", [20, 24, WIDE])
def test_a_sound_shard_has_no_problems(tmp_path: Path, bits: int) -> None:
    assert assert_both_find_the_same(write(tmp_path / "a.mdb", bits), wanted(bits)) == []


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1}, {"n_items": 5}, {"n_items": USERS + 99}, {"n_users": 5}, {"n_users": USERS - 1}, {"shards": 3},
        {"index_bits": 24},
    ],
    ids=str,
)  # fmt: skip
def test_records_of_another_version_are_told(tmp_path: Path, other: dict[str, int]) -> None:
    assert assert_both_find_the_same(write(tmp_path / "a.mdb"), wanted()._replace(**other))


def test_an_empty_shard_has_nothing(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.mdb", [], expected_bytes=0)
    assert assert_both_find_the_same(tmp_path / "a.mdb", wanted()) == []


Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "another user": lambda key: key[:-1] + bytes([key[-1] ^ 1]),
    "out of order": lambda key: b"zzzz" + key[4:],
    "not UTF-8": lambda key: b"\xff" + key[1:],
    "a broken character": lambda key: key[:-1] + b"\xc3",
    "a line feed": lambda key: b"\n" + key[1:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("user", [0, MAX_RECORDS - 1, MAX_RECORDS, USERS - 1])
def test_a_damaged_key_is_told(tmp_path: Path, damage: Damage, user: int) -> None:
    path = write(tmp_path / "a.mdb")
    data = path.read_bytes()
    path.write_bytes(data.replace(KEYS[user], damage(KEYS[user])))
    assert assert_both_find_the_same(path, wanted())


def test_a_flipped_bit_anywhere_in_a_record_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mdb")
    whole = path.read_bytes()
    random = np.random.default_rng(20261125)
    for user in [0, MAX_RECORDS - 1, MAX_RECORDS, USERS - 1, *random.integers(0, USERS, 20).tolist()]:
        value = record(user)
        data = bytearray(whole)
        data[data.index(value) + int(random.integers(0, len(value)))] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(data)
        assert len(assert_both_find_the_same(path, wanted())) == 1
