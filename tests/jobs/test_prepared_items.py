"""Items as `prepare` leaves them: prices and stocks that are no numbers, and items that the table does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pytest
from small_tables import DAY, a_config, part, rows, write_csv

from jobs import oddities, prepare
from jobs.errors import SourceError
from jobs.progress import Report
from schemas.config import Config
from schemas.data_config import Interactions, Items, Users


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


class Prepared(NamedTuple):
    """One run, which several tests look at."""

    report: Report
    items: pa.Table


def prepared(config: Config, spark: Any) -> Prepared:
    report = prepare.run(config, DAY, spark)
    return Prepared(report, part(report, config, "items"))


@pytest.fixture(scope="module")
def unreadable(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Of a table of eight items with prices, stocks and days of release of which most cannot be read."""
    folder = tmp_path_factory.mktemp("unreadable")
    prices = ["1.50", "1,50", "€5", "3.5e38", "-1e999", "", "NaN", "-1"]
    stocks = ["out of stock", "no", "n/a", "-1", "0", "", "nan", "2"]
    days = ["2026-03-01", "01.03.2026", "", "NaN", "1955-01-01", "soon", "", ""]
    config = with_items(folder, [])
    lines = [[f"i{n}", *values] for n, values in enumerate(zip(prices, stocks, days, strict=True))]
    write_csv(folder / "items.csv", ["item_id", "price", "stock", "released"], lines)
    return prepared(config, spark)


@pytest.fixture(scope="module")
def with_a_stranger(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Of a table of three items, with words that are not all UTF-8, and interactions with another one only, i001."""
    folder = tmp_path_factory.mktemp("stranger")
    config = with_items(folder, [], item="i001")
    lines = ["item_id,stock,title,category,brand", "1,,Bürste,Haus,", "2,4,B\udcfcrste,Haus,", "3,,,Haus,\udcd6l"]
    (folder / "items.csv").write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    return prepared(config, spark)


@pytest.fixture(scope="module")
def of_1970(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Of tables that lack usual columns, and whose days are numbers, none of them of seconds."""
    folder = tmp_path_factory.mktemp("1970")
    lines = [["u", "i", "20260301", "tv"], ["u", "j", "20260302", "tv"]]
    write_csv(folder / "in.csv", ["user_id", "item_id", "timestamp", "device"], lines)
    write_csv(folder / "items.csv", ["item_id", "title", "released"], [["i", "a", "1995"], ["j", "b", ""]])
    config = a_config(
        folder,
        interactions=Interactions(path=str(folder / "in.csv"), event=""),
        items=Items(path=str(folder / "items.csv"), brand=""),
    )
    return prepared(config, spark)


def test_numbers_of_items_that_cannot_be_read_are_counted_and_promise_nothing(unreadable: Prepared) -> None:
    report, items = unreadable
    assert items["price"].to_pylist() == [1.5, *[None] * 7]
    assert items["in_stock"].to_pylist() == [False, False, False, False, False, True, True, True]
    assert (report.details["unreadable_price"], report.details["unreadable_stock"]) == (4, 2)
    assert not any(name.startswith(("items_unknown", "items_not", "warning_")) for name in report.details)


def test_days_of_release_that_cannot_be_read_are_counted(unreadable: Prepared) -> None:
    assert unreadable.items["released"].to_pylist() == [1772323200, *[None] * 7]
    assert unreadable.report.details["unreadable_released"] == 3


def test_a_column_without_any_day_of_release_is_refused(spark: Any, tmp_path: Path) -> None:
    config = with_items(tmp_path, [])
    (tmp_path / "items.csv").write_text("item_id,released\ni1,01.03.2026\ni2,\n")
    with pytest.raises(
        SourceError, match=r"no released in .* is a time from 1970 on, for example '01\.03\.2026'"
    ) as caught:
        prepare.run(config, DAY, spark)
    assert caught.value.hint == 'write days like 2026-11-21, or set data.items.released to "" for none'


def test_items_whose_words_are_not_utf_8_are_counted(with_a_stranger: Prepared) -> None:
    assert with_a_stranger.items["title"].to_pylist() == ["Bürste", "B\ufffdrste", "", ""]
    assert with_a_stranger.report.details["items_not_utf8"] == 2


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
    with_a_stranger: Prepared,
) -> None:
    report = with_a_stranger.report
    assert (report.rows["items"], report.details["items_unknown"]) == (4, 1)
    assert report.details["warning_items"].startswith("1 of 1 items of the interactions are not in ")


def test_unknown_ids_that_capitals_or_blanks_alone_tell_from_known_ones_are_told_and_not_repaired(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oddities, "_LOOKED_AT", 6)
    config = with_items(tmp_path, [["A1", "", ""], ["b2 ", "", ""], ["Ö3", "", ""], ["d4", "", ""]])
    ids = ["a1", " A1", "b2", "\u00a0ö3\t", "d4", "D-4", "x", "日"]
    lines = [["u", item, "view", "2026-03-01"] for item in ids]
    write_csv(tmp_path / "in.csv", ["user_id", "item_id", "event", "timestamp"], lines)
    (tmp_path / "users.csv").write_text("user_id\nU\n")
    users = Users(path=str(tmp_path / "users.csv"), columns=[], segment="")
    config = msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, users=users))
    report = prepare.run(config, DAY, spark)
    assert (report.rows["items"], report.details["items_unknown"]) == (11, 7)
    assert report.details["warning_item_ids"] == (
        f"4 of 6 items that {tmp_path}/items.csv does not have differ from one it has by capitals or blanks alone, for "
        "example ' A1' from 'A1'; not looked at: 1"
    )
    assert report.details["warning_user_ids"] == (
        f"1 of 1 users that {tmp_path}/users.csv does not have differ from one it has by capitals or blanks alone, for "
        "example 'u' from 'U'"
    )


def test_an_item_without_a_row_is_out_of_stock_where_the_table_tells_stock(with_a_stranger: Prepared) -> None:
    assert in_stock(with_a_stranger) == {"1": True, "2": True, "3": True, "i001": False}


def test_an_item_without_a_row_is_in_stock_where_the_table_tells_none(spark: Any, tmp_path: Path) -> None:
    config = with_items(tmp_path, [["1", "", ""], ["2", "", "4"]], item="i001", stock="")
    assert in_stock(prepared(config, spark)) == {"1": True, "2": True, "i001": True}


def in_stock(found: Prepared) -> dict[str, bool]:
    return dict(rows(found.items, "item_id", "in_stock"))


def test_usual_columns_that_a_table_does_not_have_are_told(of_1970: Prepared) -> None:
    told = of_1970.report.details
    assert told["interactions_without"] == "session_id"
    assert told["items_without"] == "category, price, stock"
    assert "users_without" not in told


def test_days_written_as_numbers_that_are_no_seconds_are_told(of_1970: Prepared) -> None:
    told = of_1970.report.details
    assert told["warning_times"] == "every time in column 'timestamp' is of 1970: see data.interactions.time_unit"
    assert told["warning_released"] == "every day in column 'released' is of 1970: is it no number of seconds?"
