"""`prepare` against a slow obvious version, on small nasty tables of each format; and each way a table can be wrong."""

from __future__ import annotations

import datetime
import gzip
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

from jobs import datasets, prepare
from jobs.csv_quotes import refuse_open_quotes
from jobs.errors import SourceError, TooManyRejectedError
from jobs.last_day import last_day
from jobs.progress import Report
from jobs.sources import locate
from schemas import tables
from schemas.config import Config, Paths
from schemas.data_config import Data, Interactions, Items, Split, Users
from schemas.errors import ConfigError

DAY = "2026-03-10"
END = datasets.end_of(DAY)
HUGE = 2**53 + 1  # the first whole number that a float cannot hold
WIDTH = "the row has the wrong number of columns"


def a_config(tmp_path: Path, *, split: Split | None = None, **data: Any) -> Config:
    plain = {"items": Items(path=""), "users": Users(path="", columns=[], segment=""), "max_rejected_share": 1.0}
    return Config(
        paths=Paths(workspace=str(tmp_path / "work"), store=str(tmp_path / "store")),
        data=Data(**{**plain, **data}),
        split=split or Split(validation_days=2, test_days=2),
    )


def part(report: Report, config: Config, name: str) -> pa.Table:
    """A part of the prepared dataset, checked for its schema."""
    folder = Path(config.paths.workspace) / report.day / "prepared" / name
    schema = {"interactions": tables.INTERACTIONS, "items": tables.ITEMS, "users": tables.USERS}
    found = pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])
    wanted = schema.get(name, tables.REJECTED)
    assert found.schema.names == wanted.names
    assert found.schema.types == wanted.types
    for field in wanted:
        assert field.nullable or found[field.name].null_count == 0
    assert found.num_rows == report.rows[name]
    return found


def rows(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names or table.column_names), strict=True))


def extra(report: Report, config: Config, name: str) -> Any:
    return datasets.open_dataset(config.paths.workspace, report.day, "prepared").extra(name)


def check_against_slow(report: Report, config: Config, raw: list[dict[str, Any]], **known: Any) -> None:
    """Everything that can be computed by hand equals what the job wrote."""
    slow = slow_prepare.prepare(raw, config, datasets.end_of(report.day), **known)
    interactions = part(report, config, "interactions")
    assert sorted(rows(interactions), key=str) == slow["interactions"]
    assert rows(part(report, config, "items"), "item_index", "item_id", "interactions") == slow["items"]
    assert rows(part(report, config, "users"), "user_index", "user_id", "interactions") == slow["users"]
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


# -- the three formats ------------------------------------------------------------------------------------------------


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
    assert extra(report, config, "left_out") > 0
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


# -- items ------------------------------------------------------------------------------------------------------------


def with_items(tmp_path: Path, lines: list[list[str]], item: str = "i1", stock: str = "stock") -> Config:
    """Interactions with one item, and a table of items."""
    interactions = [["u", item, "view", "2026-03-01"], ["u", item, "view", "2026-03-02"]]
    write_csv(tmp_path / "in.csv", ["user_id", "item_id", "event", "timestamp"], interactions)
    write_csv(tmp_path / "items.csv", ["item_id", "price", "stock"], lines)
    return a_config(
        tmp_path,
        interactions=Interactions(path=str(tmp_path / "in.csv")),
        items=Items(path=str(tmp_path / "items.csv"), stock=stock),
    )


def test_numbers_of_items_that_cannot_be_read_are_counted_and_promise_nothing(spark: Any, tmp_path: Path) -> None:
    prices = ["1.50", "1,50", "€5", "3.5e38", "-1e999", "", "NaN", "-1"]
    stocks = ["out of stock", "no", "n/a", "-1", "0", "", "nan", "2"]
    config = with_items(tmp_path, [[f"i{n}", *both] for n, both in enumerate(zip(prices, stocks, strict=True))])
    report = prepare.run(config, DAY, spark)
    items = part(report, config, "items")
    assert items["price"].to_pylist() == [1.5, *[None] * 7]
    assert items["in_stock"].to_pylist() == [False, False, False, False, False, True, True, True]
    assert (report.details["unreadable_price"], report.details["unreadable_stock"]) == (4, 2)
    assert not any(name.startswith(("items_", "warning_")) for name in report.details)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["i1", "1,50", "3"], "no price in .*items.csv is a number, for example '1,50': column 'price'"),
        (["i1", "1.50", "available"], "no stock in .*items.csv is a number, for example 'available': column 'stock'"),
    ],
)
def test_a_column_of_items_without_any_number_is_refused(
    spark: Any, tmp_path: Path, line: list[str], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        prepare.run(with_items(tmp_path, [line, ["i2", "", ""]]), DAY, spark)


def test_items_that_the_table_does_not_know_are_counted_and_a_table_of_others_is_told(
    spark: Any, tmp_path: Path
) -> None:
    report = prepare.run(with_items(tmp_path, [["1", "", ""], ["2", "", ""]], item="i001"), DAY, spark)
    assert (report.rows["items"], report.details["items_unknown"]) == (3, 1)
    assert report.details["warning_items"].startswith("1 of 1 items of the interactions are not in ")


@pytest.mark.parametrize(("stock", "is_in_stock"), [("stock", False), ("", True)])
def test_an_item_without_a_row_is_out_of_stock_where_the_table_tells_stock(
    spark: Any, tmp_path: Path, stock: str, is_in_stock: bool
) -> None:
    config = with_items(tmp_path, [["1", "", ""], ["2", "", "4"]], item="i001", stock=stock)
    items = part(prepare.run(config, DAY, spark), config, "items")
    found = dict(zip(items["item_id"].to_pylist(), items["in_stock"].to_pylist(), strict=True))
    assert found == {"1": True, "2": True, "i001": is_in_stock}


# -- what is refused --------------------------------------------------------------------------------------------------


def test_too_many_malformed_rows_stop_the_run_and_nothing_is_left_visible(spark: Any, tmp_path: Path) -> None:
    lines = [["u", "i", "view", str(END - 5 * 86_400 + n)] for n in range(8)]
    lines += [["", "i", "view", "1772900000"], ["u", "i", "gone", "1772900000"]]
    write_csv(tmp_path / "in.csv", ["user_id", "item_id", "event", "timestamp"], lines)
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in.csv")), max_rejected_share=0.19)
    with pytest.raises(TooManyRejectedError) as caught:
        prepare.run(config, DAY, spark)
    assert caught.value.exit_code == 1
    assert "2 of 10 rows" in str(caught.value)
    assert '1 rows: the user id is missing, for example {"user_id":null,"item_id":"i"' in str(caught.value)
    assert "max_rejected_share" in caught.value.hint
    assert not [path for path in (tmp_path / "work" / DAY).iterdir() if not path.name.endswith(".lock")]

    raised = a_config(tmp_path, interactions=config.data.interactions, max_rejected_share=0.2)
    report = prepare.run(raised, DAY, spark)
    assert (report.rows["interactions"], report.rows["rejected"]) == (8, 2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has no rows"),
        ([["", "i", "view", "1"], ["u", "i", "?", "1"]], "no interaction of .* takes part .* 1 the event type has no"),
        ([["u", "i", "view", "2030-01-01"]], "no interaction of .* takes part in the run: 1 later"),
        (
            [["u", "i", "view", "2026-03-10"]],
            "left to train on: .* has 0 .* split 1, and they are of 2026-03-10 to .*raise data.history_days where",
        ),
    ],
)
def test_a_table_without_a_usable_row_is_refused(
    spark: Any, tmp_path: Path, lines: list[list[str]], message: str
) -> None:
    write_csv(tmp_path / "in.csv", ["user_id", "item_id", "event", "timestamp"], lines)
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in.csv")))
    with pytest.raises(SourceError, match=message) as caught:
        prepare.run(config, DAY, spark)
    assert ("--day" in caught.value.hint) == ("later" in message)
    assert not (tmp_path / "work" / DAY / "prepared").exists()


def test_a_k_core_filter_that_leaves_nothing_is_refused(spark: Any, tmp_path: Path) -> None:
    write_csv(
        tmp_path / "in.csv", ["user_id", "item_id", "timestamp"], [["u", "i", "2026-03-01"], ["u", "j", "2026-03-02"]]
    )
    interactions = Interactions(path=str(tmp_path / "in.csv"), event="")
    config = a_config(tmp_path, interactions=interactions, min_user_interactions=2, min_item_interactions=2)
    with pytest.raises(SourceError, match="k-core filter leaves no interaction of 2"):
        prepare.run(config, DAY, spark)


def lines_with(**mended: str) -> str:
    """A CSV file of 300 interactions; `line100="…"` is that line of the file instead of the one that belongs there."""
    lines = ["user_id,item_id,event,timestamp,device"]
    lines += [f"u{n % 9},i{n % 9},view,{END - 8 * 86_400 + n},app" for n in range(300)]
    for name, line in mended.items():
        lines[int(name.removeprefix("line")) - 1] = line
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz"])
@pytest.mark.parametrize(
    ("mended", "message"),
    [
        ({"line100": 'u,i,view,1772900000,"app'}, "in.csv.*: the quote that opens a value in line 100 is not closed"),
        ({"line100": '"u,i,view,1772900000,app'}, "line 100 is not closed"),
        ({"line301": 'u,i,view,1772900000,"app'}, "line 301 is not closed"),
        ({"line100": 'u,i,view,1,"app', "line200": 'u,i,view,1,"app'}, "line 100 is not closed"),
        ({"line100": '"u,i,view,1,app', "line200": '"u,i,view,1,app'}, "line 100 is not closed"),
        ({"line100": 'u,i,view,1,"app', "line200": 'u,i,view,1,app"'}, "101 of 300 rows of .* are malformed"),
    ],
)
def test_lines_lost_in_quotes_that_stay_open_stop_the_run(
    spark: Any, tmp_path: Path, name: str, mended: dict[str, str], message: str
) -> None:
    text = lines_with(**mended).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / name)), max_rejected_share=0.05)
    with pytest.raises(SourceError, match=message):
        prepare.run(config, DAY, spark)


def test_quotes_that_mean_nothing_are_no_open_quotes(spark: Any, tmp_path: Path) -> None:
    devices = ['5" app', '"5" app', '"two ""apps"""', '"app" ', '""']
    text = lines_with(**{f"line{n + 100}": f"u,i,view,{END - 9 * 86_400 + n},{d}" for n, d in enumerate(devices)})
    (tmp_path / "in.csv").write_text("\ufeff" + text)
    (tmp_path / "items.csv").write_text('item_id,title\ni1,"two\nlines"\n')
    config = a_config(
        tmp_path,
        interactions=Interactions(path=str(tmp_path / "in.csv")),
        items=Items(path=str(tmp_path / "items.csv")),
    )
    report = prepare.run(config, DAY, spark)
    assert (extra(report, config, "read"), report.rows["rejected"]) == (300, 0)
    assert "two\nlines" in part(report, config, "items")["title"].to_pylist()
    found = {row[0] for row in rows(part(report, config, "interactions"), "device")}
    assert found == {'5" app', '"5" app', 'two "apps"', "app", None}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_quotes_are_followed_from_chunk_to_chunk(monkeypatch: Any, tmp_path: Path, size: int) -> None:
    monkeypatch.setattr("jobs.csv_quotes._CHUNK", size)
    for text, line in (
        ('a,b\n1,"two\nlines"\n"3","4"', 0),
        ('a,b\n1,"say ""hi"""\n2,"\n', 3),
        ('a\r\n"b\r\n"c\r\n', 2),
        ('a\n5",5"\n', 0),
        ('a\n"5" tv\n', 0),
    ):
        (tmp_path / "in.csv").write_text(text)
        source = locate("items", str(tmp_path / "in.csv"))
        if line:
            with pytest.raises(SourceError, match=f"in line {line} is not closed"):
                refuse_open_quotes(source)
        else:
            refuse_open_quotes(source)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": pa.array([1.0])}, "id column 'user_id' is double; wanted text or integers"),
        ({"item_id": pa.array([True])}, "id column 'item_id' is boolean"),
        ({"timestamp": pa.array([b"1"])}, "time column 'timestamp' is binary"),
        ({"event": pa.array([b"view"])}, "column 'event' is binary; wanted text"),
        ({"timestamp": None, "TimeStamp": pa.array([1])}, "no column 'timestamp': .* nearest: 'TimeStamp'"),
        ({"event": None}, "no column 'event'"),
    ],
)
def test_a_column_that_cannot_be_meant_is_refused(
    spark: Any, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    plain = {"user_id": ["u"], "item_id": ["i"], "event": ["view"], "timestamp": [1]}
    wanted = {name: values for name, values in {**plain, **columns}.items() if values is not None}
    pq.write_table(pa.table(wanted), tmp_path / "in.parquet")
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in.parquet")))
    with pytest.raises(SourceError, match=message):
        prepare.run(config, DAY, spark)


def test_a_default_event_without_a_weight_is_a_usage_error(spark: Any, tmp_path: Path) -> None:
    write_csv(tmp_path / "in.csv", ["user_id", "item_id", "timestamp"], [["u", "i", "1"]])
    config = a_config(
        tmp_path, interactions=Interactions(path=str(tmp_path / "in.csv"), event="", default_event="click")
    )
    with pytest.raises(ConfigError, match="'click', which is not in event_weights: view, cart, purchase"):
        prepare.run(config, DAY, spark)


def test_files_that_cannot_be_read_are_named(spark: Any, tmp_path: Path) -> None:
    header = "user_id,item_id,event,timestamp\n"
    whole = gzip.compress((header + "u,i,view,1772500000\n" * 20_000).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.parquet").write_text("not parquet")
    (tmp_path / "zip.csv.gz").write_text("not gzip")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    (tmp_path / "plain.inter").write_text("user item\n")
    (tmp_path / "what.xlsx").write_text("?")
    (tmp_path / "folder").mkdir()
    (tmp_path / "differ").mkdir()
    (tmp_path / "differ" / "a.csv").write_text(header)
    (tmp_path / "differ" / "b.csv").write_text("item_id,user_id\n1,2\n")
    (tmp_path / "types").mkdir()
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "types" / "a.parquet")
    pq.write_table(pa.table({"user_id": ["1"]}), tmp_path / "types" / "b.parquet")
    (tmp_path / "zipped.csv").write_bytes(gzip.compress(header.encode()))
    (tmp_path / "wide.csv").write_text(header, encoding="utf-16")
    (tmp_path / "semicolons.csv").write_text(header.replace(",", ";"))
    (tmp_path / "long.csv").write_text(",".join(f"column{n}" for n in range(999)))
    (tmp_path / "days" / "date=2026-03-01").mkdir(parents=True)
    (tmp_path / "bad" / "date=May").mkdir(parents=True)
    (tmp_path / "bad" / "date=May" / "a.csv").write_text(header)
    for name, message in {
        "missing": "is not there: .*missing",
        "*.json": "is not there",
        "folder": "holds no file",
        "what.xlsx": "format of .*what.xlsx cannot be told",
        "text.parquet": "text.parquet cannot be read as Parquet",
        "zip.csv.gz": "zip.csv.gz cannot be read",
        "cut.csv.gz": "cut.csv.gz cannot be read: Compressed file ended",
        "empty.csv": "has no rows: .*empty.csv is empty",
        "twice.csv": "column 'a' is in the header twice",
        "plain.inter": "is no atomic file",
        "differ": "different columns",
        "types": "column 'user_id' has two types: int64 in .*a.parquet, string in .*b.parquet",
        "zipped.csv": "zipped.csv is compressed by gzip",
        "wide.csv": "wide.csv is not text in UTF-8, perhaps in UTF-16",
        "semicolons.csv": "no column 'user_id'.* wanted commas",
        "long.csv": "column0, .{200,300}…",
        "days/date=*": "matches folders only: .*without a pattern",
        "bad": "the partition date=May is not date=YYYY-MM-DD",
    }.items():
        config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / name)))
        with pytest.raises(SourceError) as caught:
            prepare.run(config, DAY, spark)
        assert re.search(message, f"{caught.value} {caught.value.hint}")
    (tmp_path / "good.csv").write_text(header + "u,i,view,2026-03-01\n")
    (tmp_path / "items.csv").write_text("item_id,name\ni,a\n")
    good = Interactions(path=str(tmp_path / "good.csv"))
    for key, wrong in {
        "users.path": {"users": Users(path=str(tmp_path / "missing"))},
        "items.title": {"items": Items(path=str(tmp_path / "items.csv"), title="naem")},
        "interactions.session": {"interactions": Interactions(path=good.path, session="visit")},
    }.items():
        with pytest.raises(SourceError) as caught:
            prepare.run(a_config(tmp_path, **{"interactions": good, **wrong}), DAY, spark)
        assert str(caught.value.hint).startswith(f'set data.{key}, or to "" for none')


def test_a_csv_file_may_begin_with_empty_lines(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\n\n" + lines_with())
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in.csv")))
    assert last_day(config) == "2026-03-03"
    report = prepare.run(config, DAY, spark)
    assert (extra(report, config, "read"), report.rows["rejected"]) == (300, 0)


def test_a_day_without_a_partition_is_refused(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "in" / "date=2026-04-01").mkdir(parents=True)
    write_csv(tmp_path / "in" / "date=2026-04-01" / "a.csv", ["user_id"], [["u"]])
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in")))
    with pytest.raises(
        SourceError, match=r"no partition from the beginning to 2026-03-10: .* 2026-04-01 to 2026-04-01"
    ):
        prepare.run(config, DAY, spark)


def parts(folder: Path, *tables: dict[str, Any]) -> Interactions:
    """Parquet files of one table, each with columns beside the ids and the time."""
    folder.mkdir()
    for n, table in enumerate(tables):
        plain = {"user_id": [f"u{n}"], "item_id": ["i"], "event": ["view"], "timestamp": [END - 9 * 86_400 + n]}
        pq.write_table(pa.table({**plain, **table}), folder / f"{n}.parquet")
    return Interactions(path=str(folder))


def test_parquet_files_may_differ_in_types_that_mean_the_same(spark: Any, tmp_path: Path) -> None:
    when = datetime.datetime(2026, 3, 1, 12)
    alike = [
        {"user_id": pa.array([1], pa.int32()), "device": pa.array([None], pa.null())},
        {"user_id": pa.array([HUGE]), "device": ["app"], "timestamp": pa.array([when], pa.timestamp("ms"))},
        {"user_id": pa.array([3]), "timestamp": pa.array([when], pa.timestamp("ns")), "a.b": [1]},
        {"user_id": pa.array([4], pa.int16()), "device": pa.array(["app"]).dictionary_encode()},
    ]
    alike = [{"timestamp": pa.array([when], pa.timestamp("us")), **table} for table in alike]
    config = a_config(tmp_path, interactions=parts(tmp_path / "in", *alike))
    report = prepare.run(config, DAY, spark)
    users = {index: name for index, name, _ in rows(part(report, config, "users"), "user_index", "user_id", "segment")}
    found = part(report, config, "interactions")
    assert {(users[u], device) for u, device in rows(found, "user_index", "device")} == {
        ("1", None),
        (str(HUGE), "app"),
        ("3", None),
        ("4", "app"),
    }
    assert set(found["time"].to_pylist()) == {int(when.replace(tzinfo=datetime.UTC).timestamp())}


def test_parquet_types_are_only_asked_of_columns_that_are_read(spark: Any, tmp_path: Path) -> None:
    unread = parts(tmp_path / "unread", {"qty": [1], "a.b": [1.5]}, {"qty": ["1"], "a.b": [True]})
    report = prepare.run(a_config(tmp_path, interactions=unread), DAY, spark)
    assert report.rows["interactions"] == 2
    read = parts(tmp_path / "read", {"device": [1]}, {"device": ["app"]})
    with pytest.raises(
        SourceError, match=r"'device' has two types: int64 in .*0\.parquet, string in .*1\.parquet"
    ) as caught:
        prepare.run(a_config(tmp_path / "other", interactions=read), DAY, spark)
    assert "one type in all files" in caught.value.hint


def test_columns_that_only_capitals_tell_apart_are_refused(spark: Any, tmp_path: Path) -> None:
    config = a_config(tmp_path, interactions=parts(tmp_path / "in", {"USER_ID": ["u"]}))
    with pytest.raises(SourceError, match="has the columns 'user_id' and 'USER_ID'"):
        prepare.run(config, DAY, spark)


# -- real data --------------------------------------------------------------------------------------------------------


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


# -- writing the tables -----------------------------------------------------------------------------------------------


def write_csv(
    path: Path, names: list[str], lines: list[list[str]], *, bom: str = "", end: str = "\n", extra: str = ""
) -> None:
    """A CSV file as RFC 4180 has it: quoted where needed, quotes doubled."""

    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n\r') else cell

    text = bom + "".join(",".join(map(quoted, line)) + end for line in [names, *lines]) + extra
    data = text.encode(errors="surrogateescape")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_what_a_folder_links_to_is_read_as_if_it_lay_there(tmp_path: Path) -> None:
    table, elsewhere = tmp_path / "table", tmp_path / "elsewhere"
    for folder in (table / "date=2026-01-01", elsewhere):
        folder.mkdir(parents=True)
        (folder / "part.csv").write_text("user_id,item_id,time\n")
    (table / "date=2026-01-02").symlink_to(elsewhere)
    (table / ".hidden").symlink_to("nowhere")
    assert locate("interactions", str(table)).days == ("2026-01-01", "2026-01-02")
    for link, reason in (("nowhere", "No such file or directory"), (table, "Too many levels of symbolic links")):
        (elsewhere / "other").symlink_to(link)
        with pytest.raises(SourceError, match=f"cannot be read: .*date=2026-01-02.*: {reason}"):
            locate("interactions", str(table))
        (elsewhere / "other").unlink()


def test_a_table_is_known_by_its_bytes_and_not_by_its_place_or_age(tmp_path: Path) -> None:
    for folder, text in (("here", "user_id\n1\n"), ("there", "user_id\n1\n"), ("changed", "user_id\n2\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.csv").write_text(text)
    here, there, changed = (
        locate("users", str(tmp_path / folder)).fingerprint() for folder in ("here", "there", "changed")
    )
    assert here == there != changed
