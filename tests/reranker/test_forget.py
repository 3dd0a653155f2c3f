"""`shortlist forget`: users go from the log, and nothing else does."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from asgi_client import AsgiClient
from serving_shop import Shop

import shortlist
from prediction_store import durable, layout, locks
from prediction_store.errors import DiskError
from reranker.app import create_app
from reranker.errors import LogBusyError
from reranker.forget import Forgotten, forget
from reranker.serving_log.reading import read_log, segments
from reranker.serving_log.records import AnswerRecord, EventsRecord, LoggedEvent, Record, ShownItems, encode
from reranker.serving_log.segments import SegmentWriter
from schemas.config import Config
from schemas.config_file import load_config
from schemas.errors import FormatError
from schemas.serving_config import Log

NOW = 1_790_000_000.0


def answer(user: str) -> AnswerRecord:
    shown = ShownItems(["a", "b"], ["personal"] * 2, [1, 2], b"", b"")
    return AnswerRecord(
        f"r-{user}", user, NOW, "v", 1, "s", 2, [], 0, {}, [], None, None, None,
        shown, "personal", [], None, False, 0, 0,
    )  # fmt: skip


def events(*users: str) -> EventsRecord:
    return EventsRecord(NOW, [LoggedEvent(user, "a", "view", NOW, f"r-{user}", 1) for user in users])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(None, [f"paths.events={tmp_path / 'events'}", f"paths.store={tmp_path / 'store'}"], environ={})


def log(config: Config, *records: Record) -> Path:
    """The segment with these records."""
    folder = Path(config.paths.events)
    before = {*segments(folder)}
    folder.mkdir(exist_ok=True)
    writer = SegmentWriter(folder, Log(), time.time)  # servers remove old segments by the real clock
    writer.append([encode(record) for record in records])
    writer.close()
    (added,) = {*segments(folder)} - before
    return added


def logged(config: Config) -> list[Record]:
    return [*read_log(Path(config.paths.events), pytest.fail)]


def test_what_a_user_asked_and_did_goes_and_all_else_stays_as_it_was(config: Config) -> None:
    log(config, answer("ann"), answer("bob"), events("ann", "bob", "ann"), events("ann"), answer("ann"), events("bob"))
    found = forget(config, {"ann"})
    assert found == Forgotten(answers=2, events=3, segments=1)
    assert logged(config) == [answer("bob"), events("bob"), events("bob")]
    assert forget(config, {"ann"}) == Forgotten()


def test_several_users_go_at_once_from_all_segments(config: Config) -> None:
    for user in ("ann", "bob", "çid"):
        log(config, answer(user), events(user, "dan"))
    assert forget(config, {"ann", "çid"}) == Forgotten(answers=2, events=2, segments=2)
    assert sorted(map(repr, logged(config))) == sorted(
        map(repr, [answer("bob"), events("bob", "dan"), *[events("dan")] * 2])
    )


def test_a_segment_without_them_is_not_touched_even_where_their_id_is_part_of_another(config: Config) -> None:
    segment = log(config, answer("anna"), events("hann", "r-ann"))
    before = segment.stat()
    assert forget(config, {"ann"}) == Forgotten()
    after = segment.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_torn_tail_goes_with_the_segment_that_is_written_anew(config: Config) -> None:
    segment = log(config, answer("ann"), answer("bob"), events("ann"))
    segment.write_bytes(segment.read_bytes()[:-1])
    found = forget(config, {"ann"})
    assert (found.answers, found.events, found.torn_bytes > 0) == (1, 0, True)
    assert b"ann" not in segment.read_bytes()
    assert logged(config) == [answer("bob")]


def test_on_a_full_disk_the_segment_stays_and_what_a_killed_run_began_goes(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = log(config, answer("ann"), answer("bob"))
    begun = layout.temporary_path(segment, "dead")
    begun.write_bytes(b"ann")

    def full(step: str, path: Path) -> None:
        if step == "sync file":
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable, "before", full)
        with pytest.raises(DiskError, match="No space left"):
            forget(config, {"ann"})
    assert [path.name for path in Path(config.paths.events).iterdir()] == [segment.name]
    assert logged(config) == [answer("ann"), answer("bob")]
    assert forget(config, {"ann"}).answers == 1


def test_what_no_shortlist_wrote_is_refused_and_stays(config: Config) -> None:
    segment = log(config, answer("ann"))
    writer = SegmentWriter(segment.parent, Log(), time.time)
    writer.append([b"\x93\xa3ann\x01\x02"])
    writer.close()
    with pytest.raises(FormatError, match="cannot be read"):
        forget(config, {"ann"})


def test_two_do_not_work_on_one_log(config: Config) -> None:
    log(config, answer("ann"))
    alone = locks.lock(Path(config.paths.events), exclusive=True)
    assert alone is not None
    with pytest.raises(LogBusyError, match="another shortlist forget"):
        forget(config, {"ann"})
    locks.unlock(alone)
    assert forget(config, {"ann"}).answers == 1


def test_a_server_that_runs_keeps_its_segment_and_loses_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.publish("a")
    argv = ["forget", "u0", "--set", f"paths.store={shop.root}"]
    ended = log(shop.config(f"paths.events={shop.root / 'events'}"), answer("u0"), answer("u1"))
    view = {"user": "u0", "item": "a01", "event": "view"}
    with AsgiClient(create_app(shop.config())) as client:
        assert client.post("/v1/events", {"events": [view, {**view, "user": "u1"}]}).status == 200
        assert shortlist.run(argv) == 1
        said = capsys.readouterr()
        assert "taken out of the log: answers 1, events 0; written anew: segments 1" in said.out
        assert f"version {shop.current()} has a list of theirs" in said.out
        assert "append to 1 segment that" in said.err
        assert b"u0" not in ended.read_bytes()
        assert client.post("/v1/events", {"events": [view]}).status == 200
    assert shortlist.run([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["answers"], found["events"], found["in_use"]) == (0, 2, [])
    left = [
        event.user for record in read_log(shop.root / "events", pytest.fail) for event in getattr(record, "events", [])
    ]
    assert left == ["u1"]


@pytest.mark.parametrize("user", ["", "\udcff"], ids=["empty", "not UTF-8"])
def test_what_can_be_no_id_is_told(config: Config, capsys: pytest.CaptureFixture[str], user: str) -> None:
    log(config, answer("ann"))
    places = [f"paths.{name}={getattr(config.paths, name)}" for name in ("events", "store")]
    assert shortlist.run(["forget", user, "--set", places[0], "--set", places[1]]) == 2
    assert "can be no user's id" in capsys.readouterr().err
    assert logged(config) == [answer("ann")]


def test_where_there_is_no_log_nothing_is_taken_out(config: Config) -> None:
    assert forget(config, {"ann"}) == Forgotten()


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ({"store": "nowhere"}, "there is no store at {}/nowhere\n  next: set paths.store"),
        ({"store": "store", "events": "copy"}, "there is no log at {}/copy\n  next: set paths.events"),
    ],
)
def test_a_log_that_is_not_where_it_is_looked_for_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], places: dict[str, str], told: str
) -> None:
    """Or nobody would know that nothing has been taken out."""
    (tmp_path / "store" / "versions").mkdir(parents=True)
    options = [f"--set=paths.{name}={tmp_path / place}" for name, place in places.items()]
    assert shortlist.run(["forget", "ann", *options]) == 1
    assert told.format(tmp_path) in capsys.readouterr().err
    assert shortlist.run(["forget", "ann", f"--set=paths.store={tmp_path / 'store'}"]) == 0


def test_what_a_killed_run_began_goes_also_when_its_segment_has_gone(config: Config) -> None:
    segment = log(config, answer("ann"), answer("bob"))
    begun = layout.temporary_path(segment, "dead")
    segment.rename(begun)
    assert forget(config, {"ann"}) == Forgotten()
    assert not begun.exists()
