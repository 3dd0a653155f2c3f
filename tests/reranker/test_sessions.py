"""Session state, the same wherever it is kept: embedded and on a real Redis server."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
from mounts import can_mount, on_small_disk
from redis_process import RedisProcess, redis_process

import shortlist
from reranker.errors import SessionsError
from reranker.serving_log.records import LoggedEvent
from reranker.sessions.embedded import EmbeddedSessions
from reranker.sessions.guarded import PAUSE_SECONDS, GuardedSessions
from reranker.sessions.redis_server import RedisSessions
from reranker.sessions.stored import NOTHING, Happened, Limits, Sessions, with_stored
from schemas.messages import RecommendRequest, SessionEvent

NOW = 1_790_000_000.0
LIMITS = Limits(events=5, ttl_seconds=3600.0, impressions=7)
Make = Callable[[Limits], Sessions]


def event(user: str, item: str, seconds_ago: float = 0.0, kind: str = "view") -> LoggedEvent:
    return LoggedEvent(user, item, kind, NOW - seconds_ago)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisProcess]:
    # Not pytest's folder: the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory() as folder, redis_process(Path(folder)) as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Opens empty session state with these limits; once for a test."""
    with ExitStack() as stack:

        def open_(limits: Limits) -> Sessions:
            found: Sessions
            if request.param == "embedded":
                found = EmbeddedSessions(tmp_path / "sessions", limits, max_bytes=64 << 20)
            else:
                server: RedisProcess = request.getfixturevalue("redis_server")
                import redis

                with redis.Redis.from_url(server.url) as client:
                    client.flushall()
                found = RedisSessions(server.url, limits, seconds=30.0)
            stack.callback(found.close)
            return found

        yield open_


@pytest.fixture
def sessions(make: Make) -> Sessions:
    return make(LIMITS)


def items(sessions: Sessions, user: str, now: float = NOW) -> list[str]:
    return [found.item for found in sessions.of(user, now).session]


def test_what_was_added_is_there_oldest_first(sessions: Sessions) -> None:
    sessions.add([event("u", "new", 1.0, "cart"), event("u", "old", 2.5)], NOW)
    assert sessions.of("u", NOW).session == [
        Happened(NOW - 2.5, NOW - 2.5, "old", "view"),
        Happened(NOW - 1.0, NOW - 1.0, "new", "cart"),
    ]


def test_users_have_nothing_to_do_with_each_other(sessions: Sessions) -> None:
    sessions.add([event("u", "a"), event("v", "b"), event("ü\0:v", "c")], NOW)
    assert [items(sessions, user) for user in ("u", "v", "ü\0:v", "w")] == [["a"], ["b"], ["c"], []]


def test_the_longest_ids_are_kept(sessions: Sessions) -> None:
    sessions.add([event("u" * 511, "i" * 511)], NOW)
    assert items(sessions, "u" * 511) == ["i" * 511]


def test_only_the_last_events_are_kept_whatever_their_order_of_arrival(sessions: Sessions) -> None:
    for seconds_ago in (3, 9, 1, 7, 5, 8, 2, 6, 4):
        sessions.add([event("u", f"i{seconds_ago}", seconds_ago)], NOW)
    assert items(sessions, "u") == ["i5", "i4", "i3", "i2", "i1"]


def test_an_event_is_forgotten_after_its_time_to_live(sessions: Sessions) -> None:
    sessions.add([event("u", "old", 10.0), event("u", "new", 0.0)], NOW)
    assert items(sessions, "u", NOW + 3589.9) == ["old", "new"]
    assert items(sessions, "u", NOW + 3590.0) == ["new"]
    assert items(sessions, "u", NOW + 3600.0) == []


def test_an_event_that_comes_twice_is_one(sessions: Sessions) -> None:
    for _ in range(2):
        sessions.add([event("u", "a", 1.0), event("u", "a", 1.0), event("u", "a", 1.0, "cart"), event("u", "a")], NOW)
    assert [(found.event, found.time) for found in sessions.of("u", NOW).session] == [
        ("cart", NOW - 1.0),
        ("view", NOW - 1.0),
        ("view", NOW),
    ]


def test_an_event_from_the_future_counts_as_now(sessions: Sessions) -> None:
    sessions.add([event("u", "a", -86_400.0)], NOW)
    assert [found.time for found in sessions.of("u", NOW).session] == [NOW]
    assert items(sessions, "u", NOW + 3600.0) == []


def test_an_event_from_the_future_that_comes_twice_is_one_and_counts_from_its_first_arrival(sessions: Sessions) -> None:
    ahead, shown = event("u", "a", -30.0), event("u", "b", -30.0, "impression")
    sessions.add([ahead, shown], NOW)
    sessions.add([event("u", "c", -1.0)], NOW + 1.0)
    for later in (2.0, 60.0):  # while it lies in the future, and when it does not any more
        sessions.add([ahead, shown], NOW + later)
    found = sessions.of("u", NOW + 60.0)
    assert [(one.item, one.time) for one in found.session] == [("a", NOW), ("c", NOW + 1.0)]
    assert found.ignored == {"b": 1}
    assert items(sessions, "u", NOW + 3600.0) == ["c"]


def test_events_of_a_clock_that_is_ahead_keep_their_order(sessions: Sessions) -> None:
    sessions.add([event("u", "late", -7.0), event("u", "soon", -6.0), event("u", "past", 1.0)], NOW)
    assert items(sessions, "u") == ["past", "soon", "late"]


def test_an_event_from_the_far_future_pushes_out_none_that_come_after_it(sessions: Sessions) -> None:
    sessions.add([LoggedEvent("u", "a", "view", 32_503_680_000.0)], NOW)  # the year 3000
    for place in range(1, 6):
        sessions.add([LoggedEvent("u", f"i{place}", "view", NOW + place)], NOW + place)
    assert items(sessions, "u", NOW + 5.0) == ["i1", "i2", "i3", "i4", "i5"]


def test_what_came_while_the_clock_was_ahead_is_forgotten_when_it_is_right_again(sessions: Sessions) -> None:
    ahead = NOW + 86_400.0
    wrong = [LoggedEvent("u", f"i{place}", kind, ahead) for place in range(9) for kind in ("view", "impression")]
    sessions.add([event("u", "before", 60.0)], NOW)
    sessions.add([*wrong, LoggedEvent("v", "a", "view", ahead)], ahead)
    assert items(sessions, "v") == []
    assert sessions.of("u", NOW) == NOTHING
    sessions.add([event("u", "after"), event("u", "b", 0.0, "impression")], NOW)
    assert items(sessions, "u") == ["after"]
    assert sessions.of("u", NOW).ignored == {"b": 1}


def test_what_another_host_has_added_counts_though_its_clock_is_a_little_ahead(sessions: Sessions) -> None:
    sessions.add([event("u", "a", -5.0)], NOW + 5.0)
    sessions.add([event("u", "b")], NOW)
    assert items(sessions, "u") == ["b", "a"]


def test_impressions_are_counted_and_are_no_part_of_the_session(sessions: Sessions) -> None:
    sessions.add([event("u", "a", 3.0, "impression"), event("u", "b", 3.0, "impression"), event("u", "c", 2.0)], NOW)
    sessions.add([event("u", "a", 1.0, "impression")], NOW)
    assert sessions.of("u", NOW).ignored == {"a": 2, "b": 1}
    assert items(sessions, "u") == ["c"]
    assert sessions.of("u", NOW + 3598.0).ignored == {"a": 1}
    assert sessions.of("v", NOW).ignored == {}


def test_what_was_shown_counts_until_the_user_does_something_with_it(sessions: Sessions) -> None:
    shown = [event("u", "a", seconds_ago, "impression") for seconds_ago in (9.0, 7.0, 3.0)]
    sessions.add([*shown, event("u", "a", 5.0, "click"), event("u", "b", 4.0, "impression")], NOW)
    assert sessions.of("u", NOW).ignored == {"a": 1, "b": 1}
    sessions.add([event("u", "b", 1.0)], NOW)
    assert sessions.of("u", NOW).ignored == {"a": 1}


def test_impressions_are_bounded(sessions: Sessions) -> None:
    sessions.add([event("u", f"i{place}", 100.0 - place, "impression") for place in range(20)], NOW)
    assert sessions.of("u", NOW).ignored == {f"i{place}": 1 for place in range(13, 20)}
    sessions.add([event("u", "click")], NOW)
    assert items(sessions, "u") == ["click"]


def test_random_events_give_what_a_plain_list_gives(make: Make) -> None:
    limits = Limits(events=6, ttl_seconds=100.0, impressions=9)
    sessions, chance, now = make(limits), random.Random(20261126), NOW
    kept: dict[str, dict[tuple[float, str, str], float]] = {}  # what makes an event the same, and when it counts
    sent: list[LoggedEvent] = []
    for _ in range(300):
        now += chance.randrange(20)
        batch = [
            LoggedEvent(
                f"u{chance.randrange(4)}",
                f"i{chance.randrange(3)}",
                chance.choice(["view", "click", "impression"]),
                now - chance.randrange(-20, 120) - chance.random(),
            )
            for _ in range(chance.randrange(4))
        ]
        batch += [again for again in sent[-20:] if again.time > now - 60.0 and chance.random() < 0.2]
        sent += batch
        sessions.add(batch, now)
        for added in batch:
            kept.setdefault(added.user, {}).setdefault((added.time, added.item, added.event), min(added.time, now))
        for user in {added.user for added in batch}:
            everything = sorted((time, one) for one, time in kept[user].items() if time > now - 100.0)
            shown = [one for one in everything if one[1][2] == "impression"][-9:]
            happened = [one for one in everything if one[1][2] != "impression"][-6:]
            kept[user] = {one: time for time, one in (*shown, *happened)}
        for number in range(4):
            left = sorted((time, one) for one, time in kept.get(f"u{number}", {}).items() if time > now - 100.0)
            own = [one for one in left if one[1][2] != "impression"]
            found = sessions.of(f"u{number}", now)
            assert [(one.time, one.item, one.event) for one in found.session] == [(time, *one[1:]) for time, one in own]
            seen = [one for one in left if one[1][2] == "impression"]
            unanswered = [one[1] for time, one in seen if not any(one[1] == two[1] and time <= at for at, two in own)]
            assert found.ignored == {item: unanswered.count(item) for item in unanswered}


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


@pytest.mark.parametrize(
    "url",
    [
        "http://example", "redis://example/0?ssl=true", "redis://example:x", "rediss://example/0?ssl_cert_reqs=some",
        "redis://:secret/secret@example:6379/0", "redis://ann:secret#secret@example", "redis://:secret\u2100@example",
    ],
)  # fmt: skip
def test_a_redis_url_that_is_none_is_an_error_and_no_server_starts_with_it(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("redis")
    with pytest.raises(SessionsError, match="redis_url"):
        RedisSessions(url, LIMITS, seconds=1.0)
    redis = ["--set", "sessions.backend=redis", "--set", f"sessions.redis_url={url}"]
    assert shortlist.run(["serve", "--port", "0", "--set", f"paths.store={tmp_path}", *redis]) == 1
    said = capsys.readouterr().err
    assert "sessions.redis_url" in said
    assert "secret" not in said


def test_what_redis_refuses_is_said_without_whom_it_is_about(redis_server: RedisProcess) -> None:
    import redis

    sessions = RedisSessions(redis_server.url, LIMITS, seconds=30.0)
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(SessionsError) as refused:
                sessions.add([event("ann", "a")], NOW)
        finally:
            client.config_set("maxmemory", "0")
        for kind in (b"session", b"shown"):
            client.set(b"shortlist:1:%b:bob" % kind, "of another program")
        client.zadd(b"shortlist:1:session:eve", {b"of another program": NOW})
    assert "used memory > 'maxmemory'" in refused.value.message
    assert "ann" not in refused.value.message
    with pytest.raises(SessionsError) as unread:
        sessions.of("bob", NOW)
    assert "wrong kind of value" in unread.value.message
    assert "bob" not in unread.value.message
    with pytest.raises(SessionsError, match="reading a session from Redis"):
        sessions.of("eve", NOW)
    sessions.close()


def test_what_is_full_is_read_all_the_same(tmp_path: Path) -> None:
    guarded = GuardedSessions(
        lambda: EmbeddedSessions(tmp_path, LIMITS, max_bytes=1 << 20, first_map_bytes=1 << 20), lambda: None
    )
    guarded.add([event("ann", "a")], NOW)
    with pytest.raises(SessionsError, match="fill all"):
        guarded.add([event(f"u{number}", "x" * 500) for number in range(3000)], NOW)
    assert items(guarded, "ann") == ["a"]
    guarded.close()


def test_without_redis_requests_go_on_without_a_session_and_writing_fails() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_process(Path(folder)) as server,
        structlog.testing.capture_logs() as logged,
    ):
        failures: list[int] = []
        clock = [0.0]
        guarded = GuardedSessions(
            lambda: RedisSessions(server.url, LIMITS, seconds=30.0), lambda: failures.append(1), lambda: clock[0]
        )
        guarded.add([event("u", "a")], NOW)
        assert items(guarded, "u") == ["a"]
        server.kill()
        assert items(guarded, "u") == []
        assert guarded.of("u", NOW) == NOTHING
        assert len(failures) == 1, "for a while nobody tries again"
        for _ in range(3):
            with pytest.raises(SessionsError):
                guarded.add([event("u", "b")], NOW)
            clock[0] += PAUSE_SECONDS
            assert items(guarded, "u") == []
        assert [str(line["reason"]).split()[0] for line in logged] == ["reading", "writing"], "each reason once"
        server.start()
        clock[0] += PAUSE_SECONDS
        guarded.add([event("u", "c")], NOW)
        assert items(guarded, "u") == ["c"]
        guarded.close()


def seen(item: str, kind: str = "view", time: float | None = None) -> SessionEvent:
    return SessionEvent(item=item, event=kind, time=time)


def happened(item: str, kind: str = "view", time: float = 0.0, sent: float | None = None) -> Happened:
    return Happened(time, time if sent is None else sent, item, kind)


def test_the_stored_session_comes_before_the_requests_own_and_nothing_counts_twice() -> None:
    request = RecommendRequest(user="u", session=[seen("b", time=2.0), seen("a")])
    merged = with_stored(request, [happened("a", time=1.0), happened("b", time=2.0), happened("b", "cart", 2.0)], 10)
    assert merged.session == [seen("a", time=1.0), seen("b", "cart", 2.0), seen("b", time=2.0), seen("a")]
    assert with_stored(request, [], limit=10) is request


@pytest.mark.parametrize("stored", [[], [happened("c", time=1.0)]])
def test_an_impression_that_a_request_brings_is_no_part_of_its_session(stored: list[Happened]) -> None:
    request = RecommendRequest(user="u", session=[seen("a", "impression"), seen("b")])
    merged = with_stored(request, stored, limit=2)
    assert merged.session == [*(seen(one.item, time=one.sent) for one in stored), seen("b")]


def test_a_stored_event_from_the_future_is_the_requests_own_by_the_time_that_was_sent() -> None:
    request = RecommendRequest(user="u", session=[seen("a", time=9.0)])
    stored = [happened("a", time=5.0, sent=9.0), happened("b", time=5.0, sent=9.0), happened("a", time=9.0, sent=10.0)]
    merged = with_stored(request, stored, limit=10)
    assert merged.session == [seen("b", time=5.0), seen("a", time=9.0), seen("a", time=9.0)]


@pytest.mark.parametrize(("limit", "kept"), [(2, []), (3, ["d"]), (4, ["c", "d"]), (9, ["a", "c", "d"])])
def test_beyond_the_limit_the_oldest_stored_events_give_way(limit: int, kept: list[str]) -> None:
    request = RecommendRequest(user="u", session=[seen("x"), seen("y")])
    stored = [happened(item, time=place) for place, item in enumerate(["a", "c", "d"])]
    assert [one.item for one in with_stored(request, stored, limit).session] == [*kept, "x", "y"]
