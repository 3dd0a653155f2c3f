"""The rows of an export, and the formats that they are written in."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from jobs.errors import JobError
from jobs.whole_file import whole_file
from schemas.errors import UsageError

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("score", pa.float64()),
        ("base_score", pa.float64()),
        ("rung", pa.string()),
        ("version", pa.string()),
    ]
)
"""The columns of a `Row`, in their order."""
GZIP_LEVEL = 6
"""9, Python's default, takes several times as long for some per cent."""


class Row(msgspec.Struct, frozen=True, gc=False):  # of texts and numbers: nothing for the collector to follow
    """One item of one user's answer, see `schemas.messages.AnsweredItem`."""

    user_id: str
    rank: int
    item_id: str
    title: str
    score: float
    base_score: float
    rung: str
    version: str


Write = Callable[[Sequence[Row]], object]
"""Adds some rows, of which there is one at least."""


def format_of(path: Path) -> Callable[[IO[bytes]], AbstractContextManager[Write]]:
    """What writes rows into a file, by the end of its name. Raises UsageError where that says nothing."""
    for suffix, rows_in in FORMATS.items():
        if path.name.lower().endswith(suffix):
            return rows_in
    raise UsageError(f"{path}: the end of the name says no format; wanted {', '.join(FORMATS)}")


@contextmanager
def new_rows(path: Path) -> Iterator[Write]:
    """Write rows into a file that takes its name when the block ends, and is gone when the block raises.

    Raises:
        UsageError: its name says no format.
        DiskError: the disk is full, or may not be written.
        JobError: a text of a CSV file holds a NUL.
    """
    rows_in = format_of(path)
    with whole_file(path) as file, rows_in(file) as write:
        yield write


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Write]:
    with pyarrow.parquet.ParquetWriter(file, SCHEMA) as writer:
        yield lambda rows: writer.write_batch(_batch(rows))


@contextmanager
def _csv(file: IO[bytes] | gzip.GzipFile) -> Iterator[Write]:
    with pyarrow.csv.CSVWriter(file, SCHEMA) as writer:

        def write(rows: Sequence[Row]) -> None:
            for row in rows:
                if "\0" in row.user_id or "\0" in row.item_id or "\0" in row.title:
                    raise JobError(
                        f"item {row.item_id!r} for user {row.user_id!r}: an id or title holds a NUL, and readers of CSV"
                        " cut off what follows it",
                        hint="export to .parquet or .jsonl",
                    )
            writer.write_batch(_batch(rows))

        yield write


@contextmanager
def _gzipped_csv(file: IO[bytes]) -> Iterator[Write]:
    # Without a name and a time: the same rows are the same bytes.
    with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed, _csv(packed) as write:
        yield write


@contextmanager
def _json_lines(file: IO[bytes]) -> Iterator[Write]:
    encoder = msgspec.json.Encoder()
    yield lambda rows: file.write(encoder.encode_lines(rows))


FORMATS: dict[str, Callable[[IO[bytes]], AbstractContextManager[Write]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".csv.gz": _gzipped_csv,
    ".jsonl": _json_lines,
}


def _batch(rows: Sequence[Row]) -> pa.RecordBatch:
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in SCHEMA]
    return pa.record_batch(columns, schema=SCHEMA)
