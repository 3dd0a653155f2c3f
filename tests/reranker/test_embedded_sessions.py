"""Session state in a file that processes share: how it grows, what it forgets, and what may happen to it."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from mounts import can_mount, on_small_disk
from session_state import LIMITS, NOW, event, items

from reranker.errors import SessionsError
from reranker.serving_log.records import LoggedEvent
from reranker.sessions.embedded import EmbeddedSessions, file_name
from reranker.sessions.stored import NOTHING, Limits


def _add(folder: str, user: str, count: int) -> None:
    sessions = EmbeddedSessions(Path(folder), LIMITS, max_bytes=256 << 20, first_map_bytes=1 << 20)
    for number in range(count):
        sessions.add([event(f"{user}{number}", "x" * 500, place) for place in range(5)], NOW)
    sessions.close()


def test_what_one_process_adds_another_sees_also_when_the_file_has_grown(tmp_path: Path) -> None:
    mine = EmbeddedSessions(tmp_path, LIMITS, max_bytes=256 << 20, first_map_bytes=1 << 20)
    mine.add([event("mine", "a")], NOW)
    spawn = multiprocessing.get_context("spawn")
    others = [spawn.Process(target=_add, args=(str(tmp_path), user, 700)) for user in ("a", "b")]
    for other in others:
        other.start()
    for other in others:
        other.join()
        assert other.exitcode == 0
    for user in ("a", "b"):
        assert all(len(mine.of(f"{user}{number}", NOW).session) == 5 for number in range(700))
    assert items(mine, "mine") == ["a"]
    mine.add([event("mine", "b")], NOW)
    assert items(mine, "mine") == ["a", "b"]
    mine.close()


def _add_until_killed(folder: str, begin: float, started: multiprocessing.synchronize.Event) -> None:
    sessions = EmbeddedSessions(Path(folder), LIMITS, max_bytes=64 << 20)
    now = begin
    while True:
        now += 0.001
        sessions.add([LoggedEvent(f"u{number}", f"{now:.3f}", "view", now) for number in range(50)], now)
        started.set()


def test_a_process_that_is_killed_while_it_writes_stops_nobody_and_leaves_all_of_a_call_or_none(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    mine = EmbeddedSessions(tmp_path, LIMITS, max_bytes=64 << 20)
    for round_ in range(5):
        begin, started = NOW + 100.0 * round_, spawn.Event()
        other = spawn.Process(target=_add_until_killed, args=(str(tmp_path), begin, started))
        other.start()
        assert started.wait(60)
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
        other.join()
        mine.add([LoggedEvent("mine", f"i{round_}", "view", begin)], begin)
        assert items(mine, "mine", begin) == [f"i{number}" for number in range(round_ + 1)]
        found = [items(mine, f"u{number}", begin) for number in range(50)]
        assert found == [found[0]] * 50
        assert found[0]
    mine.close()


def test_the_file_does_not_hold_users_who_have_gone(tmp_path: Path) -> None:
    sessions = EmbeddedSessions(tmp_path, Limits(events=5, ttl_seconds=100.0), max_bytes=64 << 20)
    now = NOW
    for number in range(3000):  # ten a minute live at a time, 3,000 come by
        now += 10.0
        sessions.add([LoggedEvent(f"u{random.Random(number).random()}", "i", "view", now)], now)
        assert sessions.users() < 30
    sessions.close()


def test_a_file_that_is_full_makes_room_of_what_has_expired_and_else_says_so(tmp_path: Path) -> None:
    sessions = EmbeddedSessions(tmp_path, LIMITS, max_bytes=1 << 20, first_map_bytes=1 << 20)

    def add(number: int, now: float) -> None:
        sessions.add([LoggedEvent(f"u{number}", "x" * 500, "view", now - place) for place in range(5)], now)

    with pytest.raises(SessionsError, match="fill all"):
        for number in range(10_000):
            add(number, NOW)
    assert len(sessions.of("u0", NOW).session) == 5
    for number in range(100):
        add(number, NOW + 7200.0)
    assert len(sessions.of("u99", NOW + 7200.0).session) == 5
    sessions.close()


def test_the_file_never_grows_beyond_its_limit_however_often_it_is_full(tmp_path: Path) -> None:
    most = 2 << 20
    sessions = EmbeddedSessions(tmp_path, Limits(events=50, ttl_seconds=300.0), max_bytes=most)
    now, dice, outcomes = NOW, random.Random(7), list[bool]()
    for number in range(3000):  # it has room for half of what comes in five minutes
        now += 0.5
        events = [LoggedEvent(f"u{dice.randrange(800)}", f"{number}-{place}" * 50, "view", now) for place in range(5)]
        try:
            sessions.add(events, now)
            outcomes.append(True)
        except SessionsError:
            outcomes.append(False)
    (file,) = tmp_path.glob("*.mdb")
    assert file.stat().st_size <= most
    assert set(outcomes[-600:]) == {True, False}, "what has expired makes room, over and over"
    sessions.add([LoggedEvent("last", "i", "view", now + 1200.0)], now + 1200.0)
    assert items(sessions, "last", now + 1200.0) == ["i"]
    sessions.close()


@pytest.mark.parametrize("value", [b"", b"cut", b"12345678", b"12345678\x92\x90", b"12345678\x92\x91\x94\xa1\xff"])
def test_what_is_damaged_of_one_user_is_nothing_until_the_next_event_and_harms_nobody_else(
    tmp_path: Path, value: bytes
) -> None:
    sessions = EmbeddedSessions(tmp_path, LIMITS, max_bytes=1 << 20, first_map_bytes=1 << 20)
    sessions.add([event("ann", "a"), event("bob", "b")], NOW)
    with sessions._environment.begin(write=True) as transaction:
        transaction.put(b"ann", value)
    assert sessions.of("ann", NOW) == NOTHING
    assert items(sessions, "bob") == ["b"]
    sessions.add([event("bob", "c")], NOW)  # which looks at all users, for what has expired
    sessions.add([event("ann", "d")], NOW)
    assert (items(sessions, "ann"), items(sessions, "bob")) == (["d"], ["b", "c"])
    sessions.close()


def test_a_file_that_is_damaged_says_so_and_once_it_is_removed_another_is_begun(tmp_path: Path) -> None:
    sessions = EmbeddedSessions(tmp_path, LIMITS, max_bytes=64 << 20)
    sessions.add([event("ann", "a")], NOW)
    file = tmp_path / file_name(tmp_path)
    with file.open("r+b") as opened:
        opened.write(random.Random(1).randbytes(8192))  # over the pages that LMDB reads first
    with pytest.raises(SessionsError):
        sessions.add([event("ann", "b")], NOW)
    with pytest.raises(SessionsError):
        sessions.add([event("ann", "b")], NOW)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(file, other / file_name(other))
    with pytest.raises(SessionsError, match=r"not an LMDB file \(remove it"):
        EmbeddedSessions(other, LIMITS, max_bytes=64 << 20)
    file.unlink()
    sessions.add([event("ann", "c")], NOW)
    assert items(sessions, "ann") == ["c"]
    sessions.close()


def test_a_file_of_an_earlier_boot_is_removed_unread(tmp_path: Path) -> None:
    old = tmp_path / "sessions-1-00000000-0000-0000-0000-000000000000.mdb"
    old.write_bytes(b"torn")
    (tmp_path / "notes.txt").write_text("mine")
    EmbeddedSessions(tmp_path, LIMITS, max_bytes=1 << 20, first_map_bytes=1 << 20).close()
    assert not old.exists()
    assert (tmp_path / "notes.txt").exists()


def test_a_copy_of_the_folder_begins_anew_for_the_file_was_written_while_it_was_copied(tmp_path: Path) -> None:
    sessions = EmbeddedSessions(tmp_path / "store", LIMITS, max_bytes=64 << 20)
    sessions.add([event("u", "a")], NOW)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    copied = EmbeddedSessions(tmp_path / "copy", LIMITS, max_bytes=64 << 20)
    assert items(copied, "u") == []
    assert len(list((tmp_path / "copy").glob("*.mdb"))) == 1
    copied.close()
    sessions.close()
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = EmbeddedSessions(tmp_path / "moved", LIMITS, max_bytes=64 << 20)
    assert items(moved, "u") == ["a"]
    moved.close()


@pytest.mark.parametrize("writes", [False, True])
def test_a_folder_that_comes_in_place_of_another_is_used_by_all_workers(tmp_path: Path, writes: bool) -> None:
    folder = tmp_path / "sessions"
    mine = EmbeddedSessions(folder, LIMITS, max_bytes=64 << 20)
    mine.add([event("mine", "before")], NOW)
    folder.rename(tmp_path / "lost")
    folder.mkdir()
    other = multiprocessing.get_context("spawn").Process(target=_add, args=(str(folder), "other", 1))
    other.start()
    other.join()
    assert other.exitcode == 0
    if writes:
        mine.add([event("mine", "after")], NOW)
    assert items(mine, "mine", NOW + 2.0) == ["after"] * writes
    assert len(items(mine, "other0", NOW + 2.0)) == 5
    mine.close()


def test_while_the_folder_is_gone_what_is_open_is_read_and_nothing_is_taken(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    sessions = EmbeddedSessions(tmp_path / "store" / "sessions", LIMITS, max_bytes=64 << 20)
    sessions.add([event("u", "before")], NOW)
    (tmp_path / "store").rename(tmp_path / "lost")
    assert items(sessions, "u", NOW + 2.0) == ["before"]
    with pytest.raises(SessionsError, match="store is not there"):
        sessions.add([event("u", "lost")], NOW + 2.0)
    (tmp_path / "store").mkdir()
    sessions.add([event("u", "after")], NOW + 2.0)
    assert items(sessions, "u", NOW + 2.0) == ["after"]
    sessions.close()


def test_state_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SessionsError, match="opening the sessions"):
        EmbeddedSessions(tmp_path / "file", LIMITS, max_bytes=1 << 20)


@pytest.mark.skipif(not can_mount(), reason="no mount namespaces for this user")
def test_on_a_full_disk_the_state_is_not_opened_and_is_when_there_is_space(tmp_path: Path) -> None:
    code = (
        "from reranker.errors import SessionsError\nfrom reranker.sessions.embedded import EmbeddedSessions\n"
        "from reranker.sessions.stored import Limits\n"
        "def users():\n"
        "    limits = Limits(events=5, ttl_seconds=9.0)\n"
        "    try: sessions = EmbeddedSessions(Path(sys.argv[1]), limits, max_bytes=1 << 20)\n"
        "    except SessionsError as error: return error.message.split(': ')[-1]\n"
        "    found = sessions.users(); sessions.of('ann', 0.0); sessions.close(); return found\n"
        "users(); next(Path(sys.argv[1]).glob('*-lock')).unlink()\n"
        "ballast = fill(sys.argv[1])\nprint(users())\nballast.unlink()\nprint(users())\n"
    )
    done = on_small_disk(tmp_path, code)
    assert done.stdout.splitlines() == ["No space left on device (free some space and run it again)", "0"], (
        done.returncode,
        done.stderr,
    )
