"""Times of every kind, read by Spark and by the search for the last day, against the slow obvious version."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import slow_prepare
from pyspark.sql import functions, types

from jobs.columns import seconds
from jobs.errors import SourceError
from jobs.last_day import last_day
from jobs.source_rows import read
from jobs.sources import locate
from schemas.config import Config
from schemas.data_config import Data, Interactions

TIMES = [
    "0", "1", "1772900000", "1772900000.999", " 1772900000 ", "1.7729e9", "99999999999", "100000000000",
    "1772900000123", "99999999999999", "100000000000000", "-1", "+5", ".5", "5.", "1e400", "nan", "inf",
    "0x10", "1_000", "1,000",
    "2026-03-29T01:59:59+01:00", "2026-03-29T03:00:00+02:00",  # Berlin, the second before and after the clocks change
    "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00",  # the same wall clock, an hour apart
    "2026-03-08", "2026-03-08T10:00", "2026-03-08 10:00:00", "2026-03-08T10:00:00.5Z", "2026-03-08T10:00:00,25+00:00",
    "2026-03-08T10:00:00+0530", "2026-03-08T10:00:00-08", "2026-03-08 10:00:00 UTC", "2024-02-29", "2023-02-29",
    "2026-13-01", "2026-03-08T24:30:00", "2026-03-08T10:60", "1969-12-31", "1970-01-01", "2026", "2026-03",
    "08.03.2026", "T10:00", "now", "today", "epoch", "", "-", "2026-03-08T10:00:00+99:00",
    "٣", "2026-03-08T10:00:00 Europe/Berlin",
    "1" * 200_000 + "x",  # of no use, and no reason to be busy for hours
]  # fmt: skip


@pytest.mark.parametrize("unit", ["auto", "seconds", "milliseconds", "iso"])
def test_times_as_text_are_read_as_a_person_would(spark: Any, tmp_path: Path, unit: str) -> None:
    frame = spark.createDataFrame([(n, text) for n, text in enumerate([*TIMES, None])], "n int, text string")
    found = (
        frame.select("n", seconds(functions.col("text"), types.StringType(), unit, "text").alias("s"))
        .sort("n")
        .collect()
    )
    wanted = [slow_prepare.seconds(text, unit) for text in [*TIMES, None]]
    assert dict(zip([*TIMES, None], [row["s"] for row in found], strict=True)) == dict(
        zip([*TIMES, None], wanted, strict=True)
    )
    # The search for the last day reads the same times, without Spark.
    for text, when in zip(TIMES, wanted, strict=False):
        quoted = text.replace('"', '""')
        (tmp_path / "in.csv").write_text(f'timestamp\n"{quoted}"\n')
        config = a_config(Interactions(path=str(tmp_path / "in.csv"), time_unit=unit))  # type: ignore[arg-type]
        if when is None:
            with pytest.raises(SourceError, match="has a time in the column 'timestamp'"):
                last_day(config)
        elif when < 2e11:
            date = datetime.datetime.fromtimestamp(when, datetime.UTC).date()
            assert last_day(config) == date.isoformat()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int32(), 1772900000),
        (pa.int64(), 1772900000999),
        (pa.uint64(), 1772900000),
        (pa.float64(), 1772900000.7),
        (pa.timestamp("ns"), datetime.datetime(2026, 3, 7, 16, 13, 20)),
        (pa.timestamp("us", "America/New_York"), datetime.datetime(2026, 3, 7, 16, 13, 20, tzinfo=datetime.UTC)),
        (pa.large_string(), "2026-03-07T16:13:20"),
    ],
)
def test_times_of_every_type_become_seconds(spark: Any, tmp_path: Path, kind: pa.DataType, value: Any) -> None:
    pq.write_table(pa.table({"timestamp": pa.array([value, None], kind)}), tmp_path / "in.parquet")
    found = read(spark, locate("interactions", str(tmp_path / "in.parquet")))
    column = seconds(found.column("timestamp"), found.kind("timestamp"), "auto", "timestamp")
    assert [row[0] for row in found.frame.select(column).collect()] == [1772900000, None]
    config = a_config(Interactions(path=str(tmp_path / "in.parquet")))
    assert last_day(config) == "2026-03-07"


def test_times_after_today_do_not_choose_the_day(tmp_path: Path) -> None:
    config = a_config(Interactions(path=str(tmp_path / "in.csv")))
    (tmp_path / "in.csv").write_text("timestamp\n2026-03-07T23:59:59Z\n4070908800\n2026-03-08\n")
    assert last_day(config, "2026-03-07") == "2026-03-07"
    assert last_day(config) == "2099-01-01"
    with pytest.raises(SourceError, match="up to today, 2026-03-06; its first is '2026-03-07T23:59:59Z'"):
        last_day(config, "2026-03-06")


def test_a_time_that_no_calendar_has_chooses_no_day(tmp_path: Path) -> None:
    config = a_config(Interactions(path=str(tmp_path / "in.parquet")))
    for known in ([], [1772900000000]):
        times = pa.array([2**62, 2**63 - 1, *known, None], pa.timestamp("ms"))
        pq.write_table(pa.table({"timestamp": times}), tmp_path / "in.parquet")
        if known:
            assert last_day(config) == "2026-03-07"
        else:
            with pytest.raises(SourceError, match="has a time in the column 'timestamp'; its first is"):
                last_day(config)


def test_a_row_of_the_wrong_length_in_other_bytes_than_utf_8_is_passed_over(tmp_path: Path) -> None:
    config = a_config(Interactions(path=str(tmp_path / "in.csv"), time="Zeit der Größe"))
    head = "\ufeffname,Zeit der Größe\nBürste,2026-03-07\n".encode()
    rows = "Bürste,2026-03-09,1\nBürste,2026-03-08\nÖl,7. März\n"
    (tmp_path / "in.csv").write_bytes(head + rows.encode("latin-1"))
    assert last_day(config) == "2026-03-08"
    (tmp_path / "in.csv").write_bytes(head.replace(b"2026-03-07", "7. März".encode()))
    with pytest.raises(SourceError, match=r"its first is '7\. März'"):
        last_day(config)


def test_a_row_may_hold_a_value_of_some_megabytes(tmp_path: Path) -> None:
    rows = [f'2026-03-0{n},"{"x" * n * 1_000_000}"\n' for n in (1, 5, 3)]
    (tmp_path / "in.csv").write_text("timestamp,payload\n" + "".join(rows))
    assert last_day(a_config(Interactions(path=str(tmp_path / "in.csv")))) == "2026-03-05"


def test_rows_that_are_all_longer_than_the_header_are_not_called_none(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("user_id,timestamp\nMüller,2026-03-07,\nu,2026-03-08,\n")
    with pytest.raises(
        SourceError, match=r"no row of .*has as many columns as its header, for example 'Müller,2026-03-07,'"
    ):
        last_day(a_config(Interactions(path=str(tmp_path / "in.csv"))))


def test_a_table_without_rows_says_so_and_not_that_its_times_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("timestamp\n")
    (tmp_path / "cut.csv").write_text("timestamp")
    pq.write_table(pa.table({"timestamp": pa.array([], pa.int64())}), tmp_path / "in.parquet")
    for name in ("in.csv", "cut.csv", "in.parquet"):
        with pytest.raises(SourceError, match="the table of interactions has no rows"):
            last_day(a_config(Interactions(path=str(tmp_path / name))))


def a_config(interactions: Interactions) -> Config:
    return Config(data=Data(interactions=interactions))
