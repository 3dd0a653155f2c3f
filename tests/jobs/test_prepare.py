"""`prepare` against a slow obvious version, on small nasty tables of each format, and on public data."""

from __future__ import annotations

import datetime
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import slow_prepare
from small_tables import DAY, END, HUGE, a_config, extra, part, rows, write_csv

from jobs import datasets, prepare
from jobs.last_day import last_day
from jobs.progress import Report
from schemas.config import Config
from schemas.data_config import Interactions, Items, Split, Users

WIDTH = "the row has the wrong number of columns"


def check_against_slow(report: Report, config: Config, raw: list[dict[str, Any]], **known: Any) -> None:
    """Everything that can be computed by hand equals what the job wrote."""
    slow = slow_prepare.prepare(raw, config, datasets.end_of(report.day), **known)
    interactions = part(report, config, "interactions")
    assert sorted(rows(interactions), key=str) == slow["interactions"]
    assert rows(part(report, config, "items"), "item_index", "item_id", "interactions") == slow["items"]
    assert rows(part(report, config, "users"), "user_index", "user_id", "interactions") == slow["users"]
    has_row = {user for user, is_there in rows(part(report, config, "users"), "user_id", "has_row") if is_there}
    assert has_row == set(known.get("users", ()))
    statuses = dict(slow["statuses"])
    statuses.pop("", None)
    assert extra(report, config, "read") == len(raw)
    assert extra(report, config, "later") == statuses.pop("later", 0)
    assert extra(report, config, "older") == statuses.pop("older", 0)
    assert extra(report, config, "rejected")["interactions"] == statuses
    assert extra(report, config, "duplicates") == slow["duplicates"]
    rejected = rows(part(report, config, "rejected"))
    assert Counter(reason for source, _, reason in rejected if source == "interactions") == statuses
    assert all(isinstance(json.loads(row), dict) for _, row, _ in rejected)
    for file in ds.dataset(Path(config.paths.workspace) / report.day / "prepared" / "interactions").files:
        mine = rows(pq.read_table(file), "user_index", "time", "item_index")
        assert mine == sorted(mine)


def test_csv_with_everything_that_is_nasty_in_csv(spark: Any, tmp_path: Path) -> None:
    good = [
        ["u1", "i1", "view", "1772900000", "s1", "app"],
        ["u1", "i1", "view", "1772900000", "s1", "app"],  # again
        ["u1", "i1", "view", "1772900000.9", "s1", "app"],  # again, within the second
        ["u1", "i1", "view", "1772900000000", "s1", "app"],  # again, in milliseconds
        ["u1", "i1", "view", "1772900000", "s2", "app"],  # another session is another interaction
        [" u1 ", "i,1", "cart", "2026-03-08T10:00:00", "", ""],
        ['say "hi"', "two words", "purchase", "2026-03-08 10:00:00+02:00", "s3", "desk,top"],
        ["Ünïcode-é", "日本", "view", "2026-03-10T23:59:59Z", "", "app"],
        ["e\u0301", "\u00e9", "view", "2026-03-10T01:00:00-05:30", "", ""],  # not normalised: these two differ
        ["\u00e9", "e\u0301", "view", "2026-03-09", "", ""],
        ["007", "7", "view", "2026-03-07", "", ""],
        ["7", "007", "view", "2026-03-07", "", ""],
        ["x" * 511, "7.0", "view", "2026-03-06", "", ""],
        ["\\", "back\\slash", "view", "2026-03-06", "\\", "\\"],
        ["null", "NaN", "view", "2026-03-05", "#", ""],
    ]
    bad = [
        ["", "i1", "view", "1772900000", "", ""],
        ["u1", "", "view", "1772900000", "", ""],
        ["x" * 512, "i1", "view", "1772900000", "", ""],
        ["é" * 256, "i1", "view", "1772900000", "", ""],
        ["u1", "i1", "", "1772900000", "", ""],
        ["u1", "i1", "VIEW", "1772900000", "", ""],
        ["u1", "i1", "view", "", "", ""],
        ["u1", "i1", "view", "yesterday", "", ""],
        ["u1", "i1", "view", "2026-02-30", "", ""],
        ["u1", "i1", "view", "T10:00", "", ""],
        ["u1", "i1", "view", "2026", "", ""],  # a number: seconds, in 1970
        ["u1", "i1", "view", "-5", "", ""],
        ["u1", "i1", "view", "1e300", "", ""],
        ["u1", "i1", "view", "NaN", "", ""],
        ["u1", "i1", "view", "2026-03-11T00:00:00Z", "", ""],  # later
        ["u1", "i1", "view", "2026-03-10T23:00:00-01:00", "", ""],  # later, by its offset
        ["\ufffd", "i1", "view", "1772900000", "", ""],
        ["\udcff", "i1", "view", "1772900000", "", ""],  # a byte that is not UTF-8
    ]
    names = ["event", "user", "item", "when", "s", "device"]
    order = [2, 0, 1, 3, 4, 5]
    config = a_config(
        tmp_path,
        interactions=Interactions(path=str(tmp_path / "in"), user="user", item="item", time="when", session="s"),
    )
    raw = [dict(zip(["user", "item", "event", "when", "s", "device"], row, strict=True)) for row in good + bad]
    lines = [[row[place] for place in order] for row in good + bad]
    (tmp_path / "in").mkdir()
    half = len(lines) // 2
    write_csv(tmp_path / "in" / "a.csv", names, lines[:half], bom="\ufeff", end="\r\n")
    write_csv(
        tmp_path / "in" / "b.csv.gz", names, lines[half:], extra="view,only,three\nview,u,i,1772900000,s,d,seven\n"
    )
    (tmp_path / "in" / "empty.csv").touch()
    (tmp_path / "in" / "_SUCCESS").touch()
    raw += [{"damaged": "view,only,three"}, {"damaged": "…"}]

    report = prepare.run(config, DAY, spark)

    check_against_slow(report, config, raw)
    assert ("interactions", json.dumps({"line": "view,only,three"}, separators=(",", ":")), WIDTH) in rows(
        part(report, config, "rejected")
    )
    longest = next(row for _, row, reason in rows(part(report, config, "rejected")) if "longer" in reason)
    assert json.loads(longest)["user"] in {"x" * 512, "é" * 256}
    assert prepare.run(config, DAY, spark).skipped
    assert last_day(config) == "2026-03-11"


def test_parquet_partitions_with_64_bit_ids_timestamps_and_dates(spark: Any, tmp_path: Path) -> None:
    raw = []
    dice = random.Random(11)
    for number in range(12):
        day = datetime.date(2026, 3, 1) + datetime.timedelta(days=number)
        midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
        mine = [
            {
                "user_id": dice.choice([HUGE, HUGE - 1, -(2**63), 2**63 - 1, None]),
                "item_id": dice.choice([HUGE, HUGE - 1, HUGE + 1]),
                "event": dice.choice(["view", "cart", "purchase", "wave"]),
                # Some events reach their partition a day late.
                "timestamp": midnight + datetime.timedelta(seconds=dice.randrange(-40_000, 86_400)),
            }
            for _ in range(15)
        ]
        folder = tmp_path / "in? [1]{a}*" / f"date={day}"
        folder.mkdir(parents=True)
        kinds = [pa.int64(), pa.int64(), pa.string(), pa.timestamp("ms", "Europe/Berlin")]
        schema = pa.schema(list(zip(mine[0], kinds, strict=True)))
        pq.write_table(pa.Table.from_pylist(mine, schema), folder / "part.parquet")
        if "2026-03-04" < day.isoformat() <= DAY:
            raw += mine
    for date, kept in (("2026-03-01", "old"), ("2026-03-09", "new"), ("2026-03-11", "future")):
        items = {
            "item_id": pa.array([HUGE, HUGE, 5, None, 6], pa.int64()),
            "title": [f"{kept} a", f"{kept} b", None, "nobody", "six"],
            "category": pa.array([["x", "y"], ["z"], None, [], []], pa.list_(pa.string())),
            "price": [1.5, 2.5, float("nan"), 1.0, -1.0],
            "released": pa.array([None, datetime.date(2026, 1, 2), None, None, None], pa.date32()),
            "stock": pa.array([3, 3, 0, 1, None], pa.int32()),
        }
        (tmp_path / "items" / f"date={date}").mkdir(parents=True)
        pq.write_table(pa.table(items), tmp_path / "items" / f"date={date}" / "all.parquet")
    users = {"user_id": [str(HUGE), "newcomer", "", "newcomer"], "country": ["DE", "FR", "IT", "AT"], "n": [1, 2, 3, 4]}
    pq.write_table(pa.table(users), tmp_path / "users.parquet")
    config = a_config(
        tmp_path,
        interactions=Interactions(path=str(tmp_path / "in? [1]{a}*")),
        items=Items(path=str(tmp_path / "items")),
        users=Users(path=str(tmp_path / "users.parquet"), columns=["country", "n"], segment="country"),
        history_days=6,
    )

    report = prepare.run(config, DAY, spark)

    for row in raw:
        row["timestamp"] = row["timestamp"].timestamp()
    check_against_slow(
        report, config, raw, items={"5": {}, "6": {}, str(HUGE): {}}, users={str(HUGE): {}, "newcomer": {}}
    )
    assert extra(report, config, "older") > 0
    items = {row["item_id"]: row for row in part(report, config, "items").to_pylist()}
    second = items[str(HUGE)]
    assert (second["title"], second["category"], second["price"]) == ("new b", "z", 2.5)
    assert second["released"] == datasets.end_of("2026-01-01")
    assert [items[name]["in_stock"] for name in ("5", "6", str(HUGE))] == [False, True, True]
    assert [items[name]["price"] for name in ("5", "6")] == [None, None]
    assert items[str(HUGE + 1)]["title"] == ""
    people = {row["user_id"]: row for row in part(report, config, "users").to_pylist()}
    assert people["newcomer"]["features"] == ["FR", "2"]
    assert people["newcomer"]["segment"] == "FR"
    assert people[str(HUGE - 1)]["features"] == ["", ""]
    assert extra(report, config, "repeated_ids") == {"items": 1, "users": 1}
    assert (report.details["items_repeated"], report.details["users_repeated"]) == (1, 1)
    assert "left_out" not in report.details
    assert extra(report, config, "rejected")["users"] == {"the user id is missing": 1}
    assert last_day(config) == "2026-03-12"


def test_atomic_files_split_per_user_after_a_k_core_filter(spark: Any, tmp_path: Path) -> None:
    dice = random.Random(4)
    raw = [
        {
            "user_id": f"u{min(dice.randrange(20), dice.randrange(20))}",
            "item_id": f"i{min(dice.randrange(25), dice.randrange(25))}",
            "timestamp": str(1_700_000_000 + dice.randrange(40)),  # many ties
            "event": dice.choice(["click", "click", "click", "look"]),  # a look says nothing
        }
        for _ in range(290)
    ]
    lines = ["user_id:token\titem_id:token\ttimestamp:float\tevent:token"] + ["\t".join(row.values()) for row in raw]
    (tmp_path / "x.inter").write_bytes(("\r\n".join([*lines, 'u1\t"i1', "u1\ti1\tx\ty\tz", ""]) + "\r\n").encode())
    raw += [{"damaged": "short"}, {"damaged": "long"}]
    (tmp_path / "x.item").write_text(
        "item_id:token\tname:token_seq\tclass:token_seq\tprice:float\ni0\tThe First\tComedy Drama\t2.5\nnever\t\t\t\n"
    )
    config = a_config(
        tmp_path,
        interactions=Interactions(
            path=str(tmp_path / "x.inter"),
            event_weights={"click": 2.0, "look": 0.0},
            consumed_events=["click"],
        ),
        items=Items(path=str(tmp_path / "x.item"), title="name", category="class"),
        min_user_interactions=7,
        min_item_interactions=6,
        split=Split(strategy="per_user", validation_per_user=2, test_per_user=3),
    )

    report = prepare.run(config, "2024-01-01", spark)

    check_against_slow(report, config, raw, items={"i0": {}, "never": {}})
    items = {row["item_id"]: row for row in part(report, config, "items").to_pylist()}
    assert (items["i0"]["title"], items["i0"]["category"], items["i0"]["price"]) == ("The First", "Comedy", 2.5)
    assert items["never"]["interactions"] == 0
    assert report.rows["users"] < 20 <= report.rows["items"]
    assert report.details["left_out"] == extra(report, config, "left_out") > 0
    assert {row[0] for row in rows(part(report, config, "interactions"), "split")} == {0, 1, 2}
    assert last_day(config) == "2023-11-14"


def test_the_same_rows_in_other_files_and_order_give_the_same_dataset(spark: Any, tmp_path: Path) -> None:
    dice = random.Random(8)
    mine = [
        {"user_id": dice.randrange(30), "item_id": dice.randrange(30), "timestamp": END - dice.randrange(9 * 86_400)}
        for _ in range(300)
    ]
    found = []
    for name, pieces in (("one", 1), ("many", 7)):
        dice.shuffle(mine)
        folder = tmp_path / name / "[in] *%20"  # such names exist
        folder.mkdir(parents=True)
        for piece in range(pieces):
            pq.write_table(pa.Table.from_pylist(mine[piece::pieces]), folder / f"{piece}.parquet")
        config = a_config(tmp_path / name, interactions=Interactions(path=str(folder), event=""))
        report = prepare.run(config, DAY, spark)
        found.append([part(report, config, p).to_pydict() for p in ("interactions", "items", "users")])
    assert found[0] == found[1]


def test_a_day_that_is_not_over_ends_with_its_newest_interaction(spark: Any, tmp_path: Path) -> None:
    """So a whole day is held out, whenever the day is run, and running it again without new rows does nothing."""
    path, hour = tmp_path / "events.csv", 3600
    names, end = ["user_id", "item_id", "event", "timestamp"], END - 9 * hour
    lines = [["ann", f"i{age}", "view", str(end - 1 - age * hour)] for age in (0, 23, 24, 47, 48, 60)]
    write_csv(path, names, lines)
    config = a_config(
        tmp_path,
        interactions=Interactions(path=str(path), session="", device=""),
        split=Split(validation_days=1, test_days=1),
    )

    def splits() -> dict[str, int]:
        return dict(rows(part(report, config, "interactions"), "item_index", "split"))

    def run(*, is_over: bool) -> Report:
        return prepare.run(config, DAY, spark, is_over=is_over)

    report = run(is_over=False)
    assert report.details["known_until"] == "2026-03-10T15:00:00Z"
    assert datasets.known_until(datasets.open_dataset(config.paths.workspace, DAY, "prepared")) == end
    by_age = dict(zip((0, 23, 24, 47, 48, 60), (2, 2, 1, 1, 0, 0), strict=True))
    index = {item: number for number, item in rows(part(report, config, "items"), "item_index", "item_id")}
    assert splits() == {index[f"i{age}"]: name for age, name in by_age.items()}
    assert run(is_over=False).skipped
    report = run(is_over=True)
    assert not report.skipped
    assert "known_until" not in report.details
    assert datasets.known_until(datasets.open_dataset(config.paths.workspace, DAY, "prepared")) == END
    assert splits()[index["i23"]] == 1


def test_a_day_on_which_nothing_has_happened_yet_knows_the_day_before(spark: Any, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    times = (END - 86_400 - 5, END - 4 * 86_400)
    write_csv(path, ["user_id", "item_id", "event", "timestamp"], [["ann", "a", "view", str(time)] for time in times])
    config = a_config(
        tmp_path,
        interactions=Interactions(path=str(path), session="", device=""),
        split=Split(validation_days=1, test_days=1),
    )
    prepare.run(config, DAY, spark, is_over=False)
    assert datasets.known_until(datasets.open_dataset(config.paths.workspace, DAY, "prepared")) == END - 86_400


def test_other_files_are_read_once_pandas_has_written_them_as_the_page_says(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sales = ["date;customer;article;quantity;price", "01.03.2026 18:30;7;007;2,5;1.234,50", "02.03.2026 09:00;7;08;1;2"]
    (tmp_path / "sales.csv").write_text("\n".join([*sales, "02.03.2026 09:01;7;007;-2,5;-1.234,50"]))
    event = {"item": {"id": "007", "title": "Bürste", "tags": ["Haus", "Bad"]}, "user": {"id": 7}}
    (tmp_path / "events.jsonl").write_text(json.dumps(event, ensure_ascii=False) + "\n" + json.dumps(event) + "\n")
    page = Path(__file__, "../../../docs/your-data.md").resolve().read_text()
    (code,) = re.findall("```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    config = a_config(
        tmp_path,
        interactions=Interactions(
            path="sales.parquet",
            user="customer",
            item="article",
            time="time",
            event="",
            default_event="sale",
            event_weights={"sale": 1.0},
        ),
        items=Items(path="events.parquet", item="item.id", title="item.title", category="item.tags"),
    )
    assert last_day(config) == "2026-03-02"
    report = prepare.run(config, DAY, spark)
    assert rows(part(report, config, "items"), "item_id", "title", "category") == [
        ("007", "Bürste", "Haus"),
        ("08", "", ""),
    ]
    times = [
        datetime.datetime(2026, 3, 1, 18, 30, tzinfo=datetime.UTC),
        datetime.datetime(2026, 3, 2, 9, tzinfo=datetime.UTC),
    ]
    assert rows(part(report, config, "interactions"), "time") == [(int(time.timestamp()),) for time in times]
    assert report.details["warning_consumed_events"] == (
        "data.interactions.consumed_events names purchase, which no event can be: event_weights lists sale"
    )


EXAMPLES = {
    "ml-100k": ("1998-04-22", (943, 1682, 100_000), None),
    "online-retail": ("2011-12-09", (4334, 3791, 396_337), ["2011-11-01", "2011-11-15"]),
    "deskdrop": ("2017-02-28", (1895, 2987, 72_312), ["2017-01-18", "2017-02-01"]),
}
"""The last day; users, items and rows; the first days of validation and test."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_reads_its_public_data(spark: Any, tmp_path: Path, real_data: Any, example: str) -> None:
    config = real_data(example, tmp_path)
    day, counts, boundaries = EXAMPLES[example]
    assert last_day(config) == day
    report = prepare.run(config, day, spark)
    assert (report.rows["users"], report.rows["items"], extra(report, config, "read")) == counts
    assert report.rows["rejected"] == 0
    assert report.rows["interactions"] + extra(report, config, "duplicates") == counts[2]
    if boundaries:
        times = [extra(report, config, name) for name in ("validation_from", "test_from")]
        assert [datetime.datetime.fromtimestamp(time, datetime.UTC).date().isoformat() for time in times] == boundaries
    else:
        held_out = 5 * counts[0]
        assert extra(report, config, "split") == {
            "train": counts[2] - 2 * held_out,
            "validation": held_out,
            "test": held_out,
        }
