"""The sample: always the same users, of as few shards as it takes."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pytest
from shop_store import MakeVersion

from prediction_store.reader import Version
from prediction_store.sample import read_lists, sample_users, sample_users_of_both

USERS = [f"user-{number}" for number in range(200)] + ["ünï", "用户"]


def slow_sample(users: list[str], n: int, shards: int) -> list[str]:
    ordered = sorted(users, key=lambda user: crc32(user.encode()))
    for last in range(shards):
        found = [user for user in ordered if crc32(user.encode()) % shards <= last]
        if len(found) >= n:
            break
    return found[:n]


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("n", [1, 20, 60, 150, 1000])
def test_the_sample_is_the_users_of_the_lowest_hash(root: Path, make_version: MakeVersion, n: int, shards: int) -> None:
    with Version.open(root, make_version("a", lists={user: [1] for user in USERS}, shards=shards)) as version:
        assert sample_users(version, n) == slow_sample(USERS, n, shards)


def test_only_the_shards_that_it_takes_are_looked_through(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    keys = Version.keys
    monkeypatch.setattr(Version, "keys", lambda version, shard: looked.append(shard) or keys(version, shard))
    with Version.open(root, make_version("a", lists={user: [1] for user in USERS}, shards=7)) as version:
        sample_users(version, 40)
    assert looked == [0, 1]


def test_two_versions_have_the_same_sample_but_for_who_has_come_or_gone(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a", lists={user: [1] for user in USERS})
    b = make_version("b", lists={user: [2] for user in USERS[20:]})
    with Version.open(root, a) as first, Version.open(root, b) as second:
        one, other = sample_users(first, 50), sample_users(second, 50)
        both = sample_users_of_both(first, second, 50)
    assert [user for user in one if user in USERS[20:]] == other[: sum(user in USERS[20:] for user in one)]
    assert both == one, "whoever is in the second is in the first, too"


def test_lists_of_users_who_have_no_record_are_left_out(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a")) as version:
        lists = read_lists(version, ["cy", "nobody", "ann"])
    assert [(user, candidates.items.tolist()) for user, candidates in lists] == [("cy", [0]), ("ann", list(range(12)))]


def test_a_shard_gives_its_keys_in_order(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a", lists={user: [1] for user in USERS}, shards=2)) as version:
        for shard in range(2):
            keys = list(version.keys(shard))
            assert keys == sorted(user.encode() for user in USERS if crc32(user.encode()) % 2 == shard)
