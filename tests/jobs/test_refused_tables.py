"""Tables that can be read and not be used: what `prepare` says of each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_tables import DAY, END, a_config, write_csv

from jobs import prepare
from jobs.errors import SourceError, TooManyRejectedError
from schemas.data_config import Interactions
from schemas.errors import ConfigError


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
    assert "(20.0%, allowed are 19.0%): 1 rows: the event type has no weight, for example" in str(caught.value)
    assert caught.value.message.isprintable()  # what is not is escaped on a terminal
    assert "max_rejected_share" in caught.value.hint
    assert not [path for path in (tmp_path / "work" / DAY).iterdir() if not path.name.endswith(".lock")]

    raised = a_config(tmp_path, interactions=config.data.interactions, max_rejected_share=0.2)
    report = prepare.run(raised, DAY, spark)
    assert (report.rows["interactions"], report.rows["rejected"]) == (8, 2)


@pytest.mark.parametrize(
    ("line", "reason", "hint"),
    [
        (["", "i", "view", "2026-03-01"], "user id is missing", "a column that names every visitor, such as a cookie"),
        (["u", "i", "view", str(END * 10**9)], "time cannot be read", "or as seconds or milliseconds since 1970, see"),
    ],
)
def test_the_most_frequent_reason_has_its_own_remedy(
    spark: Any, tmp_path: Path, line: list[str], reason: str, hint: str
) -> None:
    lines = [["u", "i", "view", "2026-03-01"], line, line, ["u", "i", "", "2026-03-01"]]
    write_csv(tmp_path / "in.csv", ["user_id", "item_id", "event", "timestamp"], lines)
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in.csv")), max_rejected_share=0.05)
    with pytest.raises(TooManyRejectedError, match=f": 2 rows: .*{reason}.*; 1 rows: the event type is") as caught:
        prepare.run(config, DAY, spark)
    assert hint in caught.value.hint
    assert "raise data.max_rejected_share" in caught.value.hint


def test_event_types_without_a_weight_are_named(spark: Any, tmp_path: Path) -> None:
    kinds = ["view", *["click"] * 3, *["a" * 100] * 2, "b", "c", "d", "e"]
    lines = [["u", f"i{n}", kind, "2026-03-01"] for n, kind in enumerate(kinds)]
    write_csv(tmp_path / "in.csv", ["user_id", "item_id", "event", "timestamp"], lines)
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in.csv")), max_rejected_share=0.05)
    with pytest.raises(TooManyRejectedError) as caught:
        prepare.run(config, DAY, spark)
    assert f"list 'click', '{'a' * 40}', 'b', 'c', 'd', … in data.interactions.event_weights" in caught.value.hint


def test_a_file_without_a_row_that_can_be_used_is_told_though_few_enough_rows_are_malformed(
    spark: Any, tmp_path: Path
) -> None:
    names = ["user_id", "item_id", "event", "timestamp"]
    folder = tmp_path / "a table"
    folder.mkdir()
    good = [["u", f"i{n}", "view", f"2026-03-0{1 + n % 8}"] for n in range(90)]
    write_csv(folder / "1.csv", names, [*good, ["", "i", "view", "2026-03-01"]])
    write_csv(folder / "2.csv", names, [["u", "i", "view", "09.03.2026"], ["u", "i", "view", "9.3."], ["u"]])
    write_csv(folder / "3.csv", names, [["u", "i", "view", "2026-04-01"]])
    config = a_config(tmp_path, interactions=Interactions(path=str(folder)), max_rejected_share=0.05)
    report = prepare.run(config, DAY, spark)
    assert report.rows["rejected"] == 4
    assert report.details["warning_interactions_files"] == (
        f"1 file of {folder} has no row that can be used: {folder}/2.csv, 3 rows, most often: "
        "the time cannot be read, or is before 1970"
    )


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


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"user_id": pa.array([1.0])},
            r"id column 'user_id' of .*parquet is double; wanted text or integers.*astype\('Int64'\)",
        ),
        ({"item_id": pa.array([True])}, "id column 'item_id' of .*parquet is boolean"),
        ({"timestamp": pa.array([b"1"])}, "time column 'timestamp' of .*parquet is binary"),
        ({"event": pa.array([b"view"])}, "column 'event' of .*parquet is binary; wanted text"),
        (
            {"event": pa.array([[{"name": "view"}]])},
            r"column 'event' of .*parquet is array<struct<name:string>>; wanted text",
        ),
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
    with pytest.raises(SourceError) as caught:
        prepare.run(config, DAY, spark)
    assert re.search(message, f"{caught.value} {caught.value.hint}")


def test_a_default_event_without_a_weight_is_a_usage_error(spark: Any, tmp_path: Path) -> None:
    write_csv(tmp_path / "in.csv", ["user_id", "item_id", "timestamp"], [["u", "i", "1"]])
    config = a_config(
        tmp_path, interactions=Interactions(path=str(tmp_path / "in.csv"), event="", default_event="click")
    )
    with pytest.raises(ConfigError, match="'click', which is not in event_weights: view, cart, purchase"):
        prepare.run(config, DAY, spark)
