"""Shards: the same bytes every time, nothing dropped in silence, the first complete attempt wins."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import lmdb
import pytest

from prediction_store.errors import BuildError, DamagedVersionError, DiskError, ShardConflictError
from prediction_store.shards import (
    COMMIT_RECORDS,
    attempt_at,
    commit_shard,
    copy_shard,
    open_shard,
    shard_of,
    write_shard,
)

MANY = [(b"%07d" % number, bytes([number % 251]) * (number % 4000)) for number in range(2 * COMMIT_RECORDS + 10)]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    expected = sum(len(key) + len(value) for key, value in MANY)
    first = write_shard(tmp_path / "a.mdb", MANY, expected_bytes=expected)
    second = write_shard(tmp_path / "b.mdb", iter(MANY), expected_bytes=expected)
    assert (first.users, first.bytes) == (len(MANY), second.bytes)
    assert (tmp_path / "a.mdb").read_bytes() == (tmp_path / "b.mdb").read_bytes()


def test_every_record_can_be_read_back(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.mdb", MANY, expected_bytes=1 << 26)
    with open_shard(tmp_path / "a.mdb") as shard, shard.begin() as transaction:
        assert list(transaction.cursor()) == MANY


def test_reading_needs_no_lock_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.mdb", MANY[:10], expected_bytes=0)
    open_shard(tmp_path / "a.mdb").close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mdb"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([b"a", b"a"], "there already or out of order"),
        ([b"b", b"a"], "there already or out of order"),
        ([b""], "key of 0 bytes"),
        ([b"x" * 512], "key of 512 bytes"),
    ],
)
def test_a_key_that_lmdb_would_drop_or_refuse_stops_the_build(tmp_path: Path, keys: list[bytes], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        write_shard(tmp_path / "a.mdb", [(key, b"value") for key in keys], expected_bytes=0)
    assert not list(tmp_path.iterdir())


def test_far_more_records_than_expected_stop_the_build(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="more than 16777216 bytes"):
        write_shard(tmp_path / "a.mdb", ((b"%07d" % i, bytes(4000)) for i in range(10_000)), expected_bytes=1)
    assert not list(tmp_path.iterdir())


def test_an_error_while_reading_the_records_leaves_nothing(tmp_path: Path) -> None:
    def records() -> object:
        yield b"a", b"1"
        raise RuntimeError("the input ended badly")

    with pytest.raises(RuntimeError, match="ended badly"):
        write_shard(tmp_path / "a.mdb", records(), expected_bytes=0)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_never_written_into(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.mdb", [(b"a", b"1")], expected_bytes=0)
    before = (tmp_path / "a.mdb").read_bytes()
    with pytest.raises(DiskError, match="it exists"):
        write_shard(tmp_path / "a.mdb", [(b"b", b"2")], expected_bytes=0)
    assert (tmp_path / "a.mdb").read_bytes() == before


def test_nothing_is_written_into_a_sealed_version(tmp_path: Path) -> None:
    folder = tmp_path / "20260101T000000Z-00000000/candidates"
    folder.mkdir(parents=True)
    with pytest.raises(BuildError, match="that version is sealed"):
        write_shard(folder / "shard-0009.mdb", [], expected_bytes=0)


def test_a_full_disk_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    """A limit on the size of files fails LMDB's write the way a full disk does."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            write_shard(tmp_path / "a.mdb", MANY, expected_bytes=1 << 26)
        except DiskError:
            status = 0 if not list(tmp_path.iterdir()) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_of_two_equal_attempts_the_first_wins_and_both_succeed(tmp_path: Path) -> None:
    final = tmp_path / "shard-0000.mdb"
    first, second = attempt_at(final), attempt_at(final)
    assert first != second
    for attempt in (first, second):
        write_shard(attempt, MANY[:10], expected_bytes=0)
        commit_shard(attempt, final)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0000.mdb"]


def test_two_attempts_that_differ_stop_the_build(tmp_path: Path) -> None:
    final = tmp_path / "shard-0000.mdb"
    for count, attempt in ((10, tmp_path / "one.mdb"), (11, tmp_path / "two.mdb")):
        write_shard(attempt, MANY[:count], expected_bytes=0)
    commit_shard(tmp_path / "one.mdb", final)
    with pytest.raises(ShardConflictError, match="differ"):
        commit_shard(tmp_path / "two.mdb", final)


def test_a_finished_shard_that_is_not_there_is_said_by_its_name(tmp_path: Path) -> None:
    finished, target = tmp_path / "finished.mdb", tmp_path / "shard-0000.mdb"
    with pytest.raises(DiskError, match=f"reading {finished}: No such file"):
        copy_shard(finished, target)
    with pytest.raises(DiskError, match=f"linking {target}: No such file"):
        commit_shard(finished, target)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_shard_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(DamagedVersionError):
        open_shard(tmp_path / "a.mdb")


def test_shards_are_of_the_pinned_format(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.mdb", [], expected_bytes=0)
    with open_shard(tmp_path / "a.mdb") as shard:
        assert shard.lib_version()[:2] == (0, 9)
    assert (tmp_path / "a.mdb").read_bytes()[16:24].hex() == "dec0efbe01000000"
    assert lmdb.version(lib_version=0)[:2] == (0, 9)


def test_where_a_key_lives_never_changes() -> None:
    assert shard_of(b"123456789", 9999) == 0xCBF43926 % 9999  # the check value that CRC-32 is known by
