"""Quotes in CSV files: those that stay open stop the run, and those that mean nothing are text."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from small_tables import DAY, END, a_config, extra, part, rows

from jobs import prepare
from jobs.csv_quotes import refuse_open_quotes
from jobs.errors import SourceError
from jobs.last_day import last_day
from jobs.sources import locate
from schemas.data_config import Interactions, Items


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


def test_a_csv_file_may_begin_with_empty_lines(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\n\n" + lines_with())
    config = a_config(tmp_path, interactions=Interactions(path=str(tmp_path / "in.csv")))
    assert last_day(config) == "2026-03-03"
    report = prepare.run(config, DAY, spark)
    assert (extra(report, config, "read"), report.rows["rejected"]) == (300, 0)
