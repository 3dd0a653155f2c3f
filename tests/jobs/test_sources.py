"""The files of a table: which are read, how they may differ, and what is said of those that cannot be read."""

from __future__ import annotations

import datetime
import gzip
import re
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_tables import DAY, END, HUGE, a_config, extra, part, rows, write_csv

from jobs import prepare
from jobs.errors import SourceError
from jobs.headers import parquet_columns, require_column
from jobs.sources import locate
from schemas.data_config import Interactions, Items, Users


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
    (tmp_path / "wide.csv.gz").write_bytes(gzip.compress(header.encode("utf-16")))
    (tmp_path / "semicolons.csv").write_text(header.replace(",", ";"))
    (tmp_path / "long.csv").write_text(",".join(f"column{n}" for n in range(999)))
    (tmp_path / "days" / "date=2026-03-01").mkdir(parents=True)
    (tmp_path / "bad" / "date=May").mkdir(parents=True)
    (tmp_path / "bad" / "date=May" / "a.csv").write_text(header)
    for name, message in {
        "missing": "is not there: .*missing",
        "*.json": "is not there",
        "folder": "holds no file",
        "what.xlsx": "format of .*what.xlsx cannot be told.* or write the table as one of these",
        "text.parquet": "text.parquet cannot be read as Parquet",
        "zip.csv.gz": "zip.csv.gz cannot be read",
        "cut.csv.gz": "cut.csv.gz cannot be read: Compressed file ended",
        "empty.csv": "has no rows: .*empty.csv is empty",
        "twice.csv": "column 'a' is in the header twice",
        "plain.inter": "is no atomic file",
        "differ": "different columns",
        "types": "column 'user_id' has two types: int64 in .*a.parquet, string in .*b.parquet",
        "zipped.csv": "zipped.csv is compressed by gzip",
        "wide.csv.gz": "wide.csv.gz is not text in UTF-8, perhaps in UTF-16",
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


@pytest.mark.parametrize(
    ("unread", "kind"),
    [
        (pa.array([1], pa.time64("us")), r"time64\[us\]"),
        (pa.array([[1]], pa.list_(pa.time32("s"))), r"list<element: time32\[ms\]>"),
        (pa.array([1.0], pa.float16()), "halffloat"),
        (pa.array([None], pa.decimal256(50, 2)), r"decimal256\(50, 2\)"),
        (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))), "arrow.uuid"),
    ],
)
def test_a_column_on_whose_account_spark_reads_nothing_is_named(tmp_path: Path, unread: pa.Array, kind: str) -> None:
    source = locate("interactions", parts(tmp_path / "in", {}, {"opens": unread}).path)
    with pytest.raises(
        SourceError, match=rf"1\.parquet: column 'opens' is .*{kind}.*, which Spark cannot read"
    ) as caught:
        parquet_columns(source)
    assert caught.value.hint == "write the column as text, or leave it out"


def test_a_file_without_rows_disputes_no_type(spark: Any, tmp_path: Path) -> None:
    interactions = parts(tmp_path / "in", {}, {"user_id": [1], "visit": [1]}, {})
    numbers = tmp_path / "in" / "1.parquet"
    pq.write_table(pq.read_table(numbers).slice(0, 0), numbers)
    report = prepare.run(a_config(tmp_path, interactions=interactions), DAY, spark)
    assert report.rows["interactions"] == 2
    assert "visit" not in parquet_columns(locate("interactions", interactions.path)).names
    for file in (tmp_path / "in").iterdir():
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(SourceError, match="the table of interactions has no rows"):
        prepare.run(a_config(tmp_path / "other", interactions=interactions), DAY, spark)


def test_a_parquet_file_that_spark_cannot_read_is_told_with_the_reason(spark: Any, tmp_path: Path) -> None:
    table = pq.read_table(parts(tmp_path / "in", {}).path)
    (tmp_path / "twice").mkdir()
    pq.write_table(table.append_column("event", table["event"]), tmp_path / "twice" / "a.parquet")
    pq.write_table(table, tmp_path / "brotli.parquet", compression="brotli")
    far = pa.array([2**63 - 1], pa.timestamp("ms"))
    pq.write_table(table.set_column(3, "timestamp", far), tmp_path / "far.parquet")
    for name, message in {
        "twice": "twice/a.parquet: column 'event' is there twice",
        "brotli.parquet": "brotli.parquet is compressed by brotli, which Spark cannot read .*by snappy, gzip or zstd",
        "far.parquet": "far.parquet: a time in milliseconds lies beyond the year 294,247",
    }.items():
        config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / name)))
        with pytest.raises(SourceError) as caught:
            prepare.run(config, DAY, spark)
        assert re.search(message, f"{caught.value} {caught.value.hint}")


def test_times_are_read_as_spark_writes_them(spark: Any, tmp_path: Path) -> None:
    when = ["2026-03-01 12:00:00", "2026-03-02 12:00:00", "1850-01-01 00:00:00"]
    written = spark.createDataFrame(
        [(f"u{n}", "i", "view", day) for n, day in enumerate(when)], "u string, i string, e string, t string"
    )
    written.selectExpr("u user_id", "i item_id", "e event", "cast(t AS timestamp) timestamp").write.parquet(
        str(tmp_path / "in")
    )
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in")))
    report = prepare.run(config, DAY, spark)
    assert part(report, config, "interactions")["time"].to_pylist() == [END - 9.5 * 86_400, END - 8.5 * 86_400]
    assert extra(report, config, "rejected")["interactions"] == {"the time cannot be read, or is before 1970": 1}


def test_a_needed_column_that_one_of_the_files_has_lost_is_told_with_the_file(spark: Any, tmp_path: Path) -> None:
    interactions = parts(tmp_path / "in", *[{"visit": ["v"]}] * 99, {})  # a session is not needed
    interactions = msgspec.structs.replace(interactions, session="visit")
    renamed = pq.read_table(tmp_path / "in" / "7.parquet").rename_columns({"event": "event_type"})
    pq.write_table(renamed.slice(0, 0), tmp_path / "in" / "7.parquet")
    config = a_config(tmp_path, interactions=interactions, max_rejected_share=0.05)
    assert prepare.run(config, DAY, spark).rows["interactions"] == 99
    pq.write_table(renamed, tmp_path / "in" / "7.parquet")
    with pytest.raises(SourceError, match=r"in/7\.parquet has no column 'event', and other files of .* have"):
        prepare.run(config, DAY, spark)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_folders_within_a_day_are_read_and_their_names_are_no_columns(spark: Any, tmp_path: Path, suffix: str) -> None:
    for n, hour in enumerate(("00", "13")):
        folder = tmp_path / "in" / "date=2026-03-01" / f"hour={hour}"
        folder.mkdir(parents=True)
        table = {"user_id": [f"u{n}"], "item_id": ["i"], "event": ["view"], "timestamp": ["2026-03-01"]}
        if suffix == "csv":
            write_csv(folder / "a.csv", list(table), [[f"u{n}", "i", "view", "2026-03-01"]])
        else:
            pq.write_table(pa.table(table), folder / "a.parquet")
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in"), device="hour"))
    with pytest.raises(SourceError, match="no column 'hour'"):
        prepare.run(config, DAY, spark)
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in")))
    assert prepare.run(config, DAY, spark).rows["users"] == 2


def test_the_column_without_a_name_that_pandas_writes_is_none_of_those_that_are_not_there(
    spark: Any, tmp_path: Path
) -> None:
    lines = [[str(n), f"u{n}", "i", "2026-03-01"] for n in range(3)]
    write_csv(tmp_path / "in.csv", ["", "user_id", "item_id", "timestamp"], lines)
    write_csv(tmp_path / "items.csv", ["", "item_id"], [["0", "i"]])
    nothing = dict.fromkeys(("title", "category", "brand", "price", "released", "stock"), "")
    config = a_config(
        tmp_path,
        interactions=Interactions(path=str(tmp_path / "in.csv"), event="", session="", device=""),
        items=Items(path=str(tmp_path / "items.csv"), **nothing),
    )
    report = prepare.run(config, DAY, spark)
    assert set(rows(part(report, config, "interactions"), "session_id", "device")) == {(None, None)}
    columns = ("title", "category", "brand", "price", "released", "in_stock")
    assert rows(part(report, config, "items"), *columns) == [("", "", "", None, None, True)]


def test_columns_that_only_capitals_tell_apart_are_refused(spark: Any, tmp_path: Path) -> None:
    config = a_config(tmp_path, interactions=parts(tmp_path / "in", {"USER_ID": ["u"]}))
    with pytest.raises(SourceError, match="has the columns 'user_id' and 'USER_ID'"):
        prepare.run(config, DAY, spark)


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


def test_a_field_in_a_column_is_to_be_a_column_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(SourceError, match=r"no column 'actor\.id': .* has ts, actor") as caught:
        require_column(locate("interactions", str(tmp_path / "a.csv")), "user", "actor.id", ["ts", "actor"])
    assert caught.value.hint == "write what is in 'actor' as columns of their own"
