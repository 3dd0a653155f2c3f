"""The columns of your own tables, from the headers of their files alone: no row is read, and no Spark is needed."""

from __future__ import annotations

import csv
import difflib
import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import SourceError
from jobs.sources import Source, shortened

_MAX_DECIMAL_DIGITS = 38


@dataclass(frozen=True)
class ParquetColumns:
    """The columns of all Parquet files of a source together."""

    names: list[str]
    groups: list[tuple[list[Path], dict[str, pa.DataType | None]]]  # files whose columns have the same types, and those
    disputed: dict[str, str]  # what is wrong with columns whose types have nothing in common
    has_all: bool  # every file has every column
    lacking: dict[str, Path]  # columns that not all of the files have, and the first without


def header(source: Source) -> list[str]:
    """The column names of a text source; `name:type` in atomic files. All files must agree.

    Raises:
        SourceError: a file cannot be read or has no header, a name comes twice, or two files differ.
    """
    first: list[str] = []
    for file in source.files:
        names = _first_row(file, source.format)
        if not names:
            raise SourceError(f"the table of {source.name} has no rows: {file} is empty")
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise SourceError(f"{file}: column {min(twice)!r} is in the header twice")
        if first and names != first:
            raise SourceError(
                f"two files of the table of {source.name} have different columns: "
                f"{source.files[0].name} has {', '.join(first)}; {file} has {', '.join(names)}"
            )
        first = names
    return first


def parquet_columns(source: Source) -> ParquetColumns:
    """What the headers of all Parquet files of a source say. Files without rows say nothing, where others have some.

    Raises:
        SourceError: a file is not Parquet, or has a column of a type that Spark cannot read, whether it is needed or
            not, or a column twice, or is compressed as Spark cannot read it, or only capitals tell two columns apart.
    """
    seen: dict[str, dict[pa.DataType, Path]] = {}
    schemas = _filled_schemas(source)
    for file, schema in schemas.items():
        for field in schema:
            _refuse_unknown_to_spark(file, field.name, field.type)
            seen.setdefault(field.name, {}).setdefault(_plain(field.type), file)
    _refuse_twins(source, seen)
    varied = [name for name, kinds in seen.items() if len(kinds) > 1]
    groups: dict[tuple[pa.DataType | None, ...], list[Path]] = {}
    for file, schema in schemas.items():
        found = tuple(_plain(schema.field(name).type) if name in schema.names else None for name in varied)
        groups.setdefault(found, []).append(file)
    single = {name: next(iter(kinds)) for name, kinds in seen.items() if len(kinds) == 1}
    disputed = {}
    for name in varied:
        known = [(kind, file) for kind, file in seen[name].items() if not pa.types.is_null(kind)]
        if len(known) > 1 and not _are_alike([kind for kind, _ in known]):
            disputed[name] = f"column {name!r} has two types: " + ", ".join(f"{k} in {file}" for k, file in known[:2])
    has_all = len({tuple(schema.names) for schema in schemas.values()}) == 1
    alike = [(files, single | dict(zip(varied, found, strict=True))) for found, files in groups.items()]
    lacking = {name: file for file, schema in reversed(schemas.items()) for name in seen if name not in schema.names}
    return ParquetColumns(list(seen), alike, disputed, has_all, lacking)


def require_column(source: Source, key: str, wanted: str, found: Sequence[str], hint: str = "") -> None:
    """Raise SourceError, with the columns found and the nearest, when the column `wanted` by `key` is not there."""
    if wanted in found:
        return
    near = difflib.get_close_matches(wanted.lower(), [name.lower() for name in found], n=1)
    nearest = next((name for name in found if near and name.lower() == near[0]), "")
    raise SourceError(
        f"the table of {source.name} has no column {wanted!r}: {source.path} has {shortened(', '.join(found))}"
        + (f"; nearest: {nearest!r}" if nearest else ""),
        hint=_separator_hint(source, found) or _field_hint(wanted, found) or hint or f"set data.{source.name}.{key}",
    )


def _open_text(file: Path) -> IO[str]:
    """A text file, unzipped by its suffix, without a byte order mark; U+FFFD where a byte is not UTF-8."""
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return file.open(encoding="utf-8-sig", errors="replace", newline="")


def _separator_hint(source: Source, found: Sequence[str]) -> str:
    others = [noun for sign, noun in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")) if sign in found[0]]
    if source.format != "csv" or len(found) > 1 or not others:
        return ""
    return f"the columns look separated by {others[0]}; wanted commas"


def _field_hint(wanted: str, found: Sequence[str]) -> str:
    outer, dot, _ = wanted.partition(".")
    return f"write what is in {outer!r} as columns of their own" if dot and outer in found else ""


def _refuse_other_bytes(file: Path) -> None:
    """Raise SourceError when a text file begins as none does: with what a terminal had better not be shown."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
        first = opened.read(64)
    if first.startswith(b"\x1f\x8b"):
        raise SourceError(f"{file} is compressed by gzip", hint="call it .csv.gz, and compress it once")
    if first.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first:
        raise SourceError(f"{file} is not text in UTF-8, perhaps in UTF-16", hint="save it as UTF-8")


def _first_row(file: Path, format_: str) -> list[str]:
    try:
        _refuse_other_bytes(file)
        with _open_text(file) as lines:
            if format_ == "recbole":
                line = next(lines, "").rstrip("\r\n")
                return line.split("\t") if line else []
            return next((row for row in csv.reader(lines) if row), [])  # Spark passes over empty lines, too
    except (OSError, EOFError, csv.Error) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error


def _filled_schemas(source: Source) -> dict[Path, pa.Schema]:
    """The schema of each Parquet file that has rows; of the first one, where none has."""
    schemas, filled = {}, {}
    for file in source.files:
        try:
            with pq.ParquetFile(file) as parquet:
                schemas[file], rows = parquet.schema_arrow, parquet.metadata
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{file} cannot be read as Parquet: {error}") from error
        _refuse_twice(file, schemas[file].names)
        if rows.num_rows:
            _refuse_compression(file, rows.row_group(0))
            filled[file] = schemas[file]
    return filled or dict(list(schemas.items())[:1])


def _refuse_twice(file: Path, names: list[str]) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SourceError(f"{file}: column {min(twice)!r} is there twice", hint="rename one of them, or leave it out")


def _refuse_compression(file: Path, group: pq.RowGroupMetaData) -> None:
    """Raise SourceError when the file is compressed by what Spark 4.3 does not bring along."""
    for place in range(group.num_columns):
        codec = group.column(place).compression.lower()
        if codec in {"brotli", "lzo"}:
            raise SourceError(
                f"{file} is compressed by {codec}, which Spark cannot read", hint="compress it by snappy, gzip or zstd"
            )


def _refuse_twins(source: Source, names: Iterable[str]) -> None:
    """Raise SourceError when only capitals tell two columns apart."""
    spelled: dict[str, str] = {}
    for name in names:
        other = spelled.setdefault(name.lower(), name)
        if other != name:
            raise SourceError(
                f"the table of {source.name} has the columns {other!r} and {name!r}: {source.path}",
                hint="rename one of them: capitals alone do not tell columns apart",
            )


def _refuse_unknown_to_spark(file: Path, name: str, kind: pa.DataType) -> None:
    """Raise SourceError when a column, or what is in it, has a type for which Spark 4.3 reads none of the file."""
    kinds = [kind]
    while kinds:
        part = kinds.pop()
        if pa.types.is_nested(part):
            kinds += [part.field(place).type for place in range(part.num_fields)]
        is_wide = pa.types.is_decimal(part) and part.precision > _MAX_DECIMAL_DIGITS
        if is_wide or pa.types.is_time(part) or pa.types.is_float16(part) or part == pa.uuid():
            raise SourceError(
                f"{file}: column {name!r} is {kind}, which Spark cannot read",
                hint="write the column as text, or leave it out",
            )


def _are_alike(kinds: Sequence[pa.DataType]) -> bool:
    """True when Spark brings these types together: they are of one kind, whatever their width or unit."""
    tests = (
        lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
        lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
        lambda kind: pa.types.is_timestamp(kind) and kind.tz is None,
    )
    return any(all(map(is_of_kind, kinds)) for is_of_kind in tests)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type as Spark sees it: however text is laid out, it is text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) else kind
