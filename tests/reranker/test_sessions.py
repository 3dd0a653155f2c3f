"""Session state, the same wherever it is kept: embedded and on a real Redis server."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis_process import RedisProcess, redis_process
from session_state import LIMITS, NOW, event, items

import shortlist
from reranker.errors import SessionsError
from reranker.serving_log.records import LoggedEvent
from reranker.sessions.embedded import EmbeddedSessions
from reranker.sessions.redis_server import RedisSessions
from reranker.sessions.stored import NOTHING, Happened, Limits, Sessions
from schemas.errors import ConfigError

Make = Callable[[Limits], Sessions]


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
    with pytest.raises(ConfigError, match="redis_url"):
        RedisSessions(url, LIMITS, seconds=1.0)
    redis = ["--set", "sessions.backend=redis", "--set", f"sessions.redis_url={url}"]
    assert shortlist.run(["serve", "--port", "0", "--set", f"paths.store={tmp_path}", *redis]) == 2
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
    assert "used memory > 'maxmemory'" in refused.value.message
    assert "ann" not in refused.value.message
    with pytest.raises(SessionsError) as unread:
        sessions.of("bob", NOW)
    assert "wrong kind of value" in unread.value.message
    assert "bob" not in unread.value.message
    sessions.close()


def test_what_another_program_has_put_among_the_events_in_redis_counts_for_nothing(redis_server: RedisProcess) -> None:
    import redis

    sessions = RedisSessions(redis_server.url, LIMITS, seconds=30.0)
    sessions.add([event("eve", "abc"), event("eve", "def", 0.0, "impression")], NOW)
    with redis.Redis.from_url(redis_server.url) as client:
        for kind, item in ((b"session", b"abc"), (b"shown", b"def")):
            key = b"shortlist:1:%b:eve" % kind
            [ours] = client.zrange(key, 0, -1)
            client.zadd(key, {b"of another program": NOW, ours.replace(item, b"\xff\xfe\xfd"): NOW})
    found = sessions.of("eve", NOW)
    assert ([one.item for one in found.session], found.ignored) == (["abc"], {"def": 1})
    sessions.close()
