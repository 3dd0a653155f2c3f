"""The last day in your data, without Spark: what `--day` means when it is left out."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from jobs.datasets import DAY_SECONDS, end_of
from jobs.errors import SourceError
from jobs.headers import header, require_column
from jobs.sources import Source, locate
from schemas.config import Config

# As in `columns`, which reads the same times, by Spark.
_MILLISECONDS_FROM = 1e11
_END_OF_TIME = 1e11
_LONGEST_ROW = 1 << 25
"""Of a CSV file, in bytes, about."""
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_ISO = r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)? ?(?:[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?$"


def last_day(config: Config, today: str | None = None) -> str:
    """The newest date partition of the interactions, else the day of the newest time in them. Malformed times do not
    count, nor do times and partitions after `today`: one wrong clock must not choose the day.

    Raises:
        SourceError: there are no interactions, or none with a time.
    """
    table = config.data.interactions
    source = locate("interactions", table.path, table.format)
    if source.is_partitioned:
        days = [day for day in source.days if today is None or day <= today]
        if not days:
            raise SourceError(
                f"every partition of {source.path} lies in the future: {min(source.days)} to {max(source.days)}"
            )
        return max(days)
    before = _END_OF_TIME if today is None else end_of(today)
    rows, latest, example = 0, -1, None
    misfits: list[str] = []
    for batch in _batches(source, table.time, misfits):
        rows += len(batch)
        latest = max(latest, _latest(batch, table.time_unit, before))
        example = example if example is not None else _first(batch)
    if not rows and misfits:
        raise SourceError(
            f"no row of {source.path} has as many columns as its header, for example {misfits[0]!r}",
            hint="write one value for each column, those with a comma in quotes",
        )
    if not rows:
        raise SourceError(f"the table of interactions has no rows: {source.path}")
    if latest < 0:
        raise SourceError(
            f"no interaction in {source.path} has a time in the column {table.time!r}"
            + (f" up to today, {today}" if today else "")
            + (f"; its first is {_shown(example, source)!r}" if example is not None else ""),
            hint="wanted seconds or milliseconds since 1970, or 2026-11-21T18:30:00Z; "
            "see data.interactions.time and data.interactions.time_unit",
        )
    return datetime.datetime.fromtimestamp(latest, datetime.UTC).date().isoformat()


def _batches(source: Source, column: str, misfits: list[str]) -> Iterator[pa.Array]:
    """The times; of the rows passed over, because they have another number of columns, `misfits` gets the first."""
    is_parquet = source.format == "parquet"
    for file in source.files:
        try:
            yield from _parquet(source, file, column) if is_parquet else _text(source, file, column, misfits)
        except (pa.ArrowException, OSError) as error:
            hint = "a row is longer than 32 MB: say the --day" if "straddling" in str(error) else ""
            raise SourceError(f"{file} cannot be read: {error}", hint=hint) from error


def _parquet(source: Source, file: Path, column: str) -> Iterator[pa.Array]:
    with pq.ParquetFile(file) as parquet:
        require_column(source, "time", column, parquet.schema_arrow.names)
        for batch in parquet.iter_batches(columns=[column]):
            yield batch.column(0)


def _text(source: Source, file: Path, column: str, misfits: list[str]) -> Iterator[pa.Array]:
    def skip(row: pyarrow.csv.InvalidRow) -> str:
        if not misfits:
            misfits.append(_shown(row.text, source))
        return "skip"

    raw = header(source)
    is_atomic = source.format == "recbole"
    names = [name.rpartition(":")[0] for name in raw] if is_atomic else raw
    require_column(source, "time", column, names)
    wanted = raw[names.index(column)]
    reader = pyarrow.csv.open_csv(
        file,  # unzipped by its suffix
        # Any bytes are Latin-1: of a row to skip that is not UTF-8 Arrow would print a stack trace, and stop.
        read_options=pyarrow.csv.ReadOptions(encoding="latin-1", column_names=raw, block_size=_LONGEST_ROW),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter="\t" if is_atomic else ",",
            quote_char=False if is_atomic else '"',
            newlines_in_values=not is_atomic,
            invalid_row_handler=skip,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=[wanted], column_types={wanted: pa.string()}, strings_can_be_null=False
        ),
    )
    for place, batch in enumerate(reader):
        yield batch.column(0)[0 if place else 1 :]  # without the header


def _first(batch: pa.Array) -> object:
    """The first value that is there; a time as text, for Python has none beyond the year 9999."""
    found = batch.drop_null()[:1]
    return next(iter((found.cast(pa.string()) if pa.types.is_temporal(found.type) else found).to_pylist()), None)


def _shown(example: object, source: Source) -> str:
    """The beginning of a value, for a message."""
    text = str(example)
    return (text if source.format == "parquet" else text.encode("latin-1").decode("utf-8", "replace"))[:40]


def _latest(times: pa.Array, unit: str, before: float) -> int:
    """The newest time of a batch that is earlier than `before`, in epoch seconds; -1 when there is none."""
    kind = times.type
    if pa.types.is_timestamp(kind):
        found = times.cast(pa.int64()).to_numpy(zero_copy_only=False) / _PER_SECOND[kind.unit]
    elif pa.types.is_date(kind):
        found = times.cast(pa.date32()).cast(pa.int32()).to_numpy(zero_copy_only=False) * float(DAY_SECONDS)
    else:
        series = pd.Series(times.to_numpy(zero_copy_only=False))
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        found = np.full(len(series), np.nan) if unit == "iso" else _scaled(numbers, unit)
        if unit in {"auto", "iso"} and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            found = np.where(np.isnan(found), _iso(series), found)
    found = np.asarray(found, dtype=np.float64)
    found = found[(found >= 0) & (found < before)]
    return int(found.max()) if len(found) else -1


def _scaled(numbers: np.ndarray, unit: str) -> np.ndarray:
    in_milliseconds = numbers >= _MILLISECONDS_FROM if unit == "auto" else unit == "milliseconds"
    return np.floor(np.where(in_milliseconds, numbers / 1000.0, numbers))


def _iso(series: pd.Series) -> np.ndarray:
    text = series.astype(str).str.strip()
    text = text.where(text.str.match(_ISO), None)
    text = text.str.replace("UTC", "Z").str.replace(",", ".").str.replace(r" (?=[Zz+-])", "", regex=True)
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    return (parsed - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(dtype=np.float64, na_value=np.nan)
