"""The serving log as a table of interactions: real segments, real Spark."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import datasets, prepare
from jobs.errors import SourceError
from jobs.logged_events import LoggedEvents
from reranker.serving_log.frames import SegmentName
from reranker.serving_log.reading import segments
from reranker.serving_log.records import AnswerRecord, EventsRecord, LoggedEvent, Record, ShownItems, encode
from reranker.serving_log.segments import SegmentWriter
from schemas.config import Config, Paths
from schemas.data_config import Data, Interactions, Items, Split, Users
from schemas.serving_config import Log

DAY = "2026-03-10"
END = datasets.end_of(DAY)
ANSWER = AnswerRecord(
    "r", "u1", END - 50.0, "v", 1, "", 1, [], 0, {}, [], None, None, None,
    ShownItems(["i1"], ["personal"], [1], b"", b""), "personal", [], None, False, 0, 0,
)  # fmt: skip


def write_log(folder: Path, records: Sequence[Record], now: float = END) -> None:
    writer = SegmentWriter(folder, Log(), lambda: now)
    writer.append([encode(record) for record in records])
    writer.close()


def events(*rows: tuple[str, str, str, float]) -> EventsRecord:
    return EventsRecord(END, [LoggedEvent(*row) for row in rows])


def interactions(tmp_path: Path, **fields: Any) -> Interactions:
    return Interactions(path=str(tmp_path / "table.csv"), **fields)


def config(tmp_path: Path, **fields: Any) -> Config:
    return Config(
        paths=Paths(workspace=str(tmp_path / "work"), store=str(tmp_path / "store")),
        data=Data(
            interactions=interactions(tmp_path, **fields),
            items=Items(path=""),
            users=Users(path="", columns=[], segment=""),
        ),
        split=Split(validation_days=1, test_days=1),
    )


def write_table(tmp_path: Path, rows: Sequence[tuple[str, str, str, float]], session: str = "") -> None:
    lines = ["user_id,item_id,event,timestamp,session_id"]
    lines += [f"{user},{item},{event},{int(time)},{session}" for user, item, event, time in rows]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def prepared(config: Config, spark: Any) -> tuple[list[tuple[Any, ...]], bytes, dict[str, Any]]:
    """The interactions with their ids, the bytes of their files, and the report's details."""
    report = prepare.run(config, DAY, spark)
    folder = Path(config.paths.workspace) / DAY / "prepared"
    ids = {
        noun: {
            row[f"{noun}_index"]: row[f"{noun}_id"]
            for file in sorted((folder / f"{noun}s").glob("*.parquet"))
            for row in pq.read_table(file).to_pylist()
        }
        for noun in ("user", "item")
    }
    files = sorted((folder / "interactions").glob("*.parquet"))
    rows = [
        (ids["user"][row["user_index"]], ids["item"][row["item_index"]], row["event"], row["time"], row["device"])
        for file in files
        for row in pq.read_table(file).to_pylist()
    ]
    return sorted(rows, key=str), b"".join(file.read_bytes() for file in files), report.details


TABLE = [("u1", "i1", "view", END - 900_000.0), ("u2", "i2", "purchase", END - 800_000.0)]
LOGGED = [("u1", "i2", "view", END - 700_000.5), ("ü3", "i9", "cart", END - 600_000.0)]


def test_events_of_the_log_become_interactions_beside_those_of_the_table(tmp_path: Path, spark: Any) -> None:
    write_table(tmp_path, TABLE, session="s1")  # the log names none
    write_log(
        tmp_path / "log",
        [
            events(LOGGED[0], ("u1", "i1", "impression", END - 650_000.0)),
            ANSWER,
            EventsRecord(END, [LoggedEvent(*LOGGED[1], request_id="r", position=4, device="phone")]),
            events(("u9", "i9", "view", float(END)), ("u8", "i8", "swipe", END - 5.0), TABLE[0]),
        ],
    )
    rows, _, details = prepared(config(tmp_path, serving_log=str(tmp_path / "log")), spark)
    assert rows == [
        ("u1", "i1", "view", END - 900_000, None),
        ("u1", "i2", "view", END - 700_001, None),
        ("u2", "i2", "purchase", END - 800_000, None),
        ("ü3", "i9", "cart", END - 600_000, "phone"),
    ]
    assert (details["logged"], details["duplicates"]) == (3, 1)
    assert details["logged_left_out"] == {"impression": 1, "swipe": 1}


def test_the_log_gives_the_bytes_that_the_same_rows_in_the_table_give(tmp_path: Path, spark: Any) -> None:
    chance = random.Random(20261126)
    rows = [
        (f"u{chance.randrange(9)}", f"i{chance.randrange(30)}", chance.choice(["view", "cart"]), END - 9e5 + number)
        for number in range(300)
    ]
    (tmp_path / "one").mkdir()
    write_table(tmp_path / "one", rows)
    (tmp_path / "two").mkdir()
    write_table(tmp_path / "two", rows[:100])
    for part in range(4):  # four workers, in no order
        write_log(tmp_path / "log", [events(row) for row in rows[100 + part :: 4]], now=END - chance.random())
    one = prepared(config(tmp_path / "one"), spark)
    two = prepared(config(tmp_path / "two", serving_log=str(tmp_path / "log")), spark)
    assert one[:2] == two[:2]


def test_a_day_is_made_anew_when_its_events_change_and_not_when_later_ones_come(tmp_path: Path, spark: Any) -> None:
    write_table(tmp_path, TABLE)
    write_log(tmp_path / "log", [events(LOGGED[0])])
    settings = config(tmp_path, serving_log=str(tmp_path / "log"))
    assert not prepare.run(settings, DAY, spark).skipped
    write_log(tmp_path / "log", [events(("u1", "i5", "view", END + 5.0)), ANSWER])
    assert prepare.run(settings, DAY, spark).skipped
    write_log(tmp_path / "log", [events(LOGGED[1])])
    assert not prepare.run(settings, DAY, spark).skipped


def logged(tmp_path: Path, since: int = 0) -> LoggedEvents:
    return LoggedEvents.open(config(tmp_path, serving_log=str(tmp_path / "log")), since, END)


def test_the_fingerprint_does_not_depend_on_how_events_lie_in_segments(tmp_path: Path) -> None:
    found = []
    for number, parts in enumerate([[LOGGED], [LOGGED[::-1]], [LOGGED[1:], LOGGED[:1]], [LOGGED, LOGGED[:1]]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for place, part in enumerate(parts):
            write_log(folder / "log", [events(*part)], now=END + place)
        found.append(logged(folder).fingerprint())
    assert found[0] == found[1] == found[2] != found[3]


def test_what_is_written_after_the_log_was_measured_is_not_read(tmp_path: Path) -> None:
    write_log(tmp_path / "log", [events(LOGGED[0])])
    log = logged(tmp_path)
    before = log.fingerprint()
    write_log(tmp_path / "log", [events(LOGGED[1])], now=END + 1.0)
    (first, _) = segments(tmp_path / "log")
    first.write_bytes(first.read_bytes() + b"more that is being written")
    assert log.fingerprint() == before
    assert log.write(tmp_path / "rows") == 1


def test_events_before_the_history_are_left_out(tmp_path: Path) -> None:
    write_log(tmp_path / "log", [events(*LOGGED)])
    assert [event.user for event in logged(tmp_path, since=END - 650_000).events()] == ["ü3"]


def test_ids_that_prepare_refuses_are_left_out_and_counted(tmp_path: Path) -> None:
    """What stands in the log cannot be mended, so it must not stop the night."""
    write_log(
        tmp_path / "log", [events(*LOGGED, ("u\ufffd", "i1", "view", END - 5.0), ("u1", "\ufffd", "view", END - 5.0))]
    )
    log = logged(tmp_path)
    assert [event.user for event in log.events()] == ["u1", "ü3"]
    assert log.left_out == {"ids that are not UTF-8": 2}


def test_a_torn_tail_is_counted_and_all_before_it_is_read(tmp_path: Path) -> None:
    write_log(tmp_path / "log", [events(LOGGED[0]), events(LOGGED[1])])
    (segment,) = segments(tmp_path / "log")
    segment.write_bytes(segment.read_bytes()[:-1])
    log = logged(tmp_path)
    assert [event.user for event in log.events()] == ["u1"]
    assert log.left_out["torn bytes"] > 0


def test_a_segment_with_a_damaged_header_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    for place, row in enumerate(LOGGED):
        write_log(tmp_path / "log", [events(row)], now=END + place)
    (first, _) = segments(tmp_path / "log")
    data = b"\0" + first.read_bytes()[1:]
    first.write_bytes(data)
    log = logged(tmp_path)
    assert [event.user for event in log.events()] == ["ü3"]
    assert log.left_out == {"torn bytes": len(data)}


def test_a_segment_that_is_removed_while_the_log_is_measured_is_none_of_it(tmp_path: Path) -> None:
    write_log(tmp_path / "log", [events(*LOGGED)])
    (segment,) = segments(tmp_path / "log")
    # Its name is listed, and there is nothing to measure: as when it goes in between.
    (tmp_path / "log" / str(SegmentName(0, "0" * 16, 1))).symlink_to("nowhere")
    log = logged(tmp_path)
    assert [*log.sizes] == [segment]
    assert [event.user for event in log.events()] == ["u1", "ü3"]


def test_a_log_that_is_not_there_or_loses_a_segment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not there"):
        logged(tmp_path / "nowhere")
    write_log(tmp_path / "log", [events(LOGGED[0])])
    log = logged(tmp_path)
    segments(tmp_path / "log")[0].unlink()
    with pytest.raises(SourceError, match="is gone"):
        log.fingerprint()


def test_the_log_of_a_store_that_the_first_night_has_yet_to_make_is_empty(tmp_path: Path) -> None:
    settings = config(tmp_path, serving_log=str(tmp_path / "store/events"))
    assert not [*LoggedEvents.open(settings, 0, END).events()]


def test_a_log_without_events_adds_nothing(tmp_path: Path, spark: Any) -> None:
    write_table(tmp_path, TABLE)  # and no server has written anything
    rows, _, details = prepared(config(tmp_path, serving_log=str(tmp_path / "log")), spark)
    assert [row[0] for row in rows] == ["u1", "u2"]
    assert details["logged"] == 0
    assert details["warning_serving_log"].endswith(f"there is no folder {tmp_path / 'log'} yet; wanted its path")
