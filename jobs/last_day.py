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

from jobs.errors import SourceError
from jobs.sources import Source, header, locate, require_column
from schemas.config import Config

_MILLISECONDS_FROM = 1e11  # as in columns.seconds, whose slower twin this is
_END_OF_TIME = 1e11
_ISO = r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)? ?(?:[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?$"


def last_day(config: Config) -> str:
    """The newest date partition of the interactions, else the day of the newest time in them. Malformed times count
    for nothing.

    Raises:
        SourceError: there are no interactions, or none with a time.
    """
    table = config.data.interactions
    source = locate("interactions", table.path, table.format)
    if source.is_partitioned:
        return max(source.days)
    latest = max((_latest(batch, table.time_unit) for batch in _batches(source, table.time)), default=-1)
    if latest < 0:
        raise SourceError(
            f"no interaction in {source.path} has a time in the column {table.time!r}",
            hint="see data.interactions.time and data.interactions.time_unit",
        )
    return datetime.datetime.fromtimestamp(latest, datetime.UTC).date().isoformat()


def _batches(source: Source, column: str) -> Iterator[pa.Array]:
    for file in source.files:
        try:
            yield from _parquet(source, file, column) if source.format == "parquet" else _text(source, file, column)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{file} cannot be read: {error}") from error


def _parquet(source: Source, file: Path, column: str) -> Iterator[pa.Array]:
    with pq.ParquetFile(file) as parquet:
        require_column(source, "time", column, parquet.schema_arrow.names)
        for batch in parquet.iter_batches(columns=[column]):
            yield batch.column(0)


def _text(source: Source, file: Path, column: str) -> Iterator[pa.Array]:
    raw = header(source)
    is_atomic = source.format == "recbole"
    names = [name.rpartition(":")[0] for name in raw] if is_atomic else raw
    require_column(source, "time", column, names)
    wanted = raw[names.index(column)]
    reader = pyarrow.csv.open_csv(
        file,  # unzipped by its suffix
        parse_options=pyarrow.csv.ParseOptions(
            delimiter="\t" if is_atomic else ",",
            quote_char=False if is_atomic else '"',
            newlines_in_values=not is_atomic,
            invalid_row_handler=lambda row: "skip",
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=[wanted], column_types={wanted: pa.binary()}, strings_can_be_null=False
        ),
    )
    for batch in reader:
        try:
            yield batch.column(0).cast(pa.string())
        except pa.ArrowInvalid:  # bytes that are not UTF-8: those cells are no times, the others may be
            yield pa.array([cell.decode("utf-8", "replace") for cell in batch.column(0).to_pylist()], pa.string())


def _latest(times: pa.Array, unit: str) -> int:
    """The newest time of a batch in epoch seconds; -1 when there is none."""
    kind = times.type
    if pa.types.is_timestamp(kind):
        found = (
            times.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False) / 1e6
        )
    elif pa.types.is_date(kind):
        found = times.cast(pa.date32()).cast(pa.int32()).to_numpy(zero_copy_only=False) * 86_400.0
    else:
        series = pd.Series(times.to_numpy(zero_copy_only=False))
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        found = np.full(len(series), np.nan) if unit == "iso" else _scaled(numbers, unit)
        if unit in {"auto", "iso"} and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            found = np.where(np.isnan(found), _iso(series), found)
    found = np.asarray(found, dtype=np.float64)
    found = found[(found >= 0) & (found < _END_OF_TIME)]
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
