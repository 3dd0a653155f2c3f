"""A host that holds some shards of the users: everything else of a version, and none of the other shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shop_store import MakeVersion, default_lists, small_tower

from prediction_store import durable, history, layout
from prediction_store.check import check
from prediction_store.diff import diff
from prediction_store.errors import DamagedVersionError, PartialVersionError, ShardNotHeldError
from prediction_store.listing import list_versions
from prediction_store.reader import Version
from prediction_store.sample import sample_users
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.pull import pull
from prediction_store.transfer.push import push
from prediction_store.transfer.remote import Remote
from prediction_store.writer import shard_of
from schemas.errors import UsageError
from schemas.held import ShardRange, decode_held, parse_shards

SHARDS = 4
HELD = ShardRange(1, 2, SHARDS)
USERS = {f"user-{n}": [n % 12] for n in range(32)}


@pytest.fixture
def name(root: Path, make_version: MakeVersion, folder: Remote) -> str:
    """A version of four shards with a user tower, in object storage."""
    name = make_version("a", shards=SHARDS, lists=USERS, tower=small_tower(len(USERS), 12, 4))
    push(root, folder, name, flow=Flow())
    return name


@pytest.fixture
def there(tmp_path: Path, folder: Remote, name: str) -> Path:
    """The store of a host that holds the shards 1 and 2."""
    store = tmp_path / "there"
    pull(store, folder, name, flow=Flow(), shards=HELD)
    return store


def test_a_host_holds_its_shards_and_everything_else(root: Path, name: str, there: Path) -> None:
    files = set(layout.files_of(layout.version_path(there, name)))
    elsewhere = {layout.shard_file(0), layout.shard_file(3)}
    assert files == set(layout.files_of(layout.version_path(root, name))) - elsewhere
    assert decode_held((layout.version_path(there, name) / layout.HELD).read_bytes()).shards == HELD
    assert check(there).problems == []
    (here,), (whole,) = list_versions(there, 0), list_versions(root, 0)
    assert here.state == whole.state
    assert here.bytes is not None
    assert whole.bytes is not None
    assert here.bytes < whole.bytes


def test_a_user_of_another_shard_is_no_unknown_user(name: str, there: Path) -> None:
    with Version.open(there, name) as version:
        assert version.held == HELD
        for user, items in USERS.items():
            if shard_of(user.encode(), SHARDS) in HELD.numbers:
                found = version.read(user)
                assert found is not None
                assert found.items.tolist() == items
            else:
                with pytest.raises(ShardNotHeldError, match="is on other hosts"):
                    version.read(user)


def test_a_host_of_some_shards_has_the_tower_of_all_users(name: str, there: Path) -> None:
    wanted = small_tower(len(USERS), 12, 4)
    with Version.open(there, name) as version:
        found = version.user_tower
    assert found is not None
    np.testing.assert_array_equal(found.bases, wanted.bases)
    np.testing.assert_array_equal(found.histories.items, wanted.histories.items)
    np.testing.assert_array_equal(found.tower.matrix, wanted.tower.matrix)


def test_such_a_host_can_cut_over_and_roll_back(
    root: Path, make_version: MakeVersion, there: Path, name: str, folder: Remote
) -> None:
    later = make_version("b", shards=SHARDS, lists=USERS)
    push(root, folder, later, flow=Flow())
    pull(there, folder, later, flow=Flow(), shards=HELD)
    history.cutover(there, name, "ann@host", "its lists are too short for the gates", 1, force=True)
    history.cutover(there, later, "ann@host", "these, too", 2, force=True)
    assert history.rollback(there, "ann@host", "", 3).version == name
    assert check(there).problems == []


def test_a_version_that_is_here_in_part_is_not_pushed(folder: Remote, name: str, there: Path) -> None:
    with pytest.raises(PartialVersionError, match="in part only"):
        push(there, folder, name, flow=Flow())


def test_the_number_of_shards_must_be_the_versions(tmp_path: Path, folder: Remote, name: str) -> None:
    with pytest.raises(PartialVersionError, match="has 4 shards; this host is to hold 0-15/64"):
        pull(tmp_path / "other", folder, name, flow=Flow(), shards=ShardRange(0, 15, 64))


def test_what_is_here_already_is_enough_or_an_error(folder: Remote, name: str, there: Path, root: Path) -> None:
    assert pull(there, folder, name, flow=Flow(), shards=ShardRange(2, 2, SHARDS)).files == 0
    assert pull(root, folder, name, flow=Flow(), shards=HELD).files == 0, "it has them all"
    with pytest.raises(PartialVersionError, match="is here with shards 1-2/4; wanted 0-2/4"):
        pull(there, folder, name, flow=Flow(), shards=ShardRange(0, 2, SHARDS))


def narrow(data: bytes) -> bytes:
    return data.replace(b'"last": 2', b'"last": 1')


def widen(data: bytes) -> bytes:
    return data.replace(b'"last": 2', b'"last": 3')


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (narrow, "is there, and held.json says it is not"),
        (widen, "shard-0003.mdb is not there"),
        (lambda data: data.replace(b'"of": 4', b'"of": 5'), "there are 4 shards"),
        (lambda data: b"{}", "held.json"),
        (lambda data: b"", "held.json"),
    ],
)
def test_a_changed_held_json_is_damage(
    there: Path, name: str, edit_sealed: Callable[..., None], change: Callable[[bytes], bytes], words: str
) -> None:
    edit_sealed(layout.version_path(there, name) / layout.HELD, change)
    with pytest.raises(DamagedVersionError, match=words):
        Version.open(there, name)
    assert check(there).problems != []
    (row,) = list_versions(there, 0)
    assert row.state == "damaged"


def test_without_held_json_the_other_shards_are_missed(there: Path, name: str) -> None:
    path = layout.version_path(there, name)
    path.chmod(0o755)
    durable.remove_file(path / layout.HELD)
    with pytest.raises(DamagedVersionError, match=r"shard-0000\.mdb is not there"):
        Version.open(there, name)


def test_a_whole_version_has_no_held_json(root: Path, make_version: MakeVersion) -> None:
    name = make_version("b")
    with Version.open(root, name) as version:
        assert version.held == ShardRange(0, 1, 2)
        assert all(version.read(user) is not None for user in default_lists(12))
    assert not (layout.version_path(root, name) / layout.HELD).exists()


@pytest.mark.parametrize("words", ["0-64/64", "5-4/64", "0-15", "a-b/c", "0-0/0", " 0-1/2", "0-1/2\n"])
def test_words_that_mean_no_shards_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="wanted FIRST-LAST/ALL"):
        parse_shards(words)


def test_words_for_shards() -> None:
    assert parse_shards("") is None
    assert parse_shards("0-15/64") == ShardRange(0, 15, 64)
    assert str(ShardRange(0, 15, 64)) == "0-15/64"


def test_the_gates_look_at_the_users_that_are_here(there: Path, name: str) -> None:
    with Version.open(there, name) as version:
        users = sample_users(version, 32)
    assert {shard_of(user.encode(), SHARDS) for user in users} == set(HELD.numbers)


def test_versions_held_in_other_shards_are_compared_by_the_users_of_both(
    root: Path, make_version: MakeVersion, there: Path, name: str, folder: Remote
) -> None:
    later = make_version("b", shards=SHARDS, lists=USERS)
    push(root, folder, later, flow=Flow())
    pull(there, folder, later, flow=Flow(), shards=ShardRange(2, 3, SHARDS))
    report = diff(there, name, later)
    of_both = [user for user in USERS if shard_of(user.encode(), SHARDS) == 2]
    assert (report.users_both, report.users_only_a, report.users_only_b) == (len(of_both), 0, 0)
