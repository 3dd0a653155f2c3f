"""Small tables for `prepare`, and what it has made of them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import datasets
from jobs.progress import Report
from schemas import tables
from schemas.config import Config, Paths
from schemas.data_config import Data, Items, Split, Users

DAY = "2026-03-10"
END = datasets.end_of(DAY)
HUGE = 2**53 + 1  # the first whole number that a float cannot hold


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


def write_csv(
    path: Path, names: list[str], lines: list[list[str]], *, bom: str = "", end: str = "\n", extra: str = ""
) -> None:
    """A CSV file as RFC 4180 has it: quoted where needed, quotes doubled."""

    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n\r') else cell

    text = bom + "".join(",".join(map(quoted, line)) + end for line in [names, *lines]) + extra
    data = text.encode(errors="surrogateescape")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
