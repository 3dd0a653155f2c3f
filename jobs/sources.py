"""Where your own tables lie: their files, format, date partitions and columns. Opens headers only; no Spark.

A path is a file, a folder or a glob. A folder with `date=YYYY-MM-DD` folders in it is partitioned by day, and a
partition's name is taken at its word: rows of another day in it are read with it. Names that begin with a dot or an
underscore are not data.
"""

from __future__ import annotations

import csv
import datetime
import difflib
import gzip
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import SourceError

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".inter": "recbole",
    ".item": "recbole",
    ".user": "recbole",
}
PARTITION = "date"
_PARTITION_NAME = re.compile(rf"{PARTITION}=(.*)")


@dataclass(frozen=True)
class Source:
    """The files of one of your tables, in the order of their names."""

    name: str  # interactions, items or users: the section of the configuration
    path: Path
    format: str
    files: tuple[Path, ...]
    days: tuple[str, ...]  # the partition of each file; empty when there are no partitions

    @property
    def is_partitioned(self) -> bool:
        """True when the files lie in date= folders."""
        return bool(self.days)

    def within(self, day: str, history_days: int) -> Source:
        """Without the partitions after `day`, and those `history_days` or more before it when that is not 0.

        Raises:
            SourceError: nothing is left.
        """
        if not self.is_partitioned:
            return self
        first = ""
        if history_days:
            first = (datetime.date.fromisoformat(day) - datetime.timedelta(days=history_days - 1)).isoformat()
        return self._only({d for d in self.days if first <= d <= day}, f"from {first or 'the beginning'} to {day}")

    def newest(self, day: str) -> Source:
        """Only the newest partition up to `day`.

        Raises:
            SourceError: all partitions are later.
        """
        if not self.is_partitioned:
            return self
        return self._only({max((d for d in self.days if d <= day), default="")}, f"up to {day}")

    def _only(self, days: Collection[str], wanted: str) -> Source:
        kept = [(file, day) for file, day in zip(self.files, self.days, strict=True) if day in days]
        if not kept:
            raise SourceError(
                f"the table of {self.name} has no partition {wanted}: "
                f"{self.path} holds {min(self.days)} to {max(self.days)}",
                hint="choose another --day",
            )
        return replace(self, files=tuple(file for file, _ in kept), days=tuple(day for _, day in kept))

    def fingerprint(self) -> str:
        """Changes when a file comes, goes, or changes a byte: the same tables elsewhere, or touched, are the same.

        Reads every file once, at the speed of the disk.
        """
        facts = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256")
            inside = file.relative_to(self.path) if file != self.path and file.is_relative_to(self.path) else file.name
            facts.update(f"{inside}\0".encode() + digest.digest())
        return facts.hexdigest()[:32]


@dataclass(frozen=True)
class ParquetColumns:
    """The columns of all Parquet files of a source together."""

    names: list[str]
    groups: list[tuple[list[Path], dict[str, pa.DataType | None]]]  # files whose columns have the same types, and those
    disputed: dict[str, str]  # what is wrong with columns whose types have nothing in common
    has_all: bool  # every file has every column


def locate(name: str, path: str, format_: str = "auto") -> Source:
    """The files behind a path of the configuration.

    Raises:
        SourceError: there is nothing at the path, or its format cannot be told.
    """
    root = Path(path)
    if root.is_dir():
        files = sorted(file for file in root.rglob("*") if file.is_file() and not _is_hidden(file, root))
    elif root.exists():
        files = [root]
    else:
        folder = Path(root.anchor or ".")
        files = sorted(file for file in folder.glob(str(root.relative_to(root.anchor))) if file.is_file())
    # A CSV file of no bytes is a day on which nothing was exported.
    if format_ != "parquet":
        files = [file for file in files if file.stat().st_size or _suffix_format(file) == "parquet"] or files[:1]
    if not files:
        folders = not root.is_dir() and any(folder.glob(str(root.relative_to(root.anchor))))
        state = "holds no file" if root.is_dir() else "matches folders only" if folders else "is not there"
        raise SourceError(
            f"the table of {name} {state}: {path}",
            hint=f"set data.{name}.path to the folder that holds them, without a pattern"
            if folders
            else f"set data.{name}.path; the embedded shop is made with: shortlist simulate",
        )
    return Source(name, root, _format(name, files, format_), tuple(files), _partitions(name, files))


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
    """What the headers of all Parquet files of a source say.

    Raises:
        SourceError: a file is not Parquet, or only capitals tell two columns apart.
    """
    seen: dict[str, dict[pa.DataType, Path]] = {}
    schemas = []
    for file in source.files:
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{file} cannot be read as Parquet: {error}") from error
        schemas.append(schema)
        for field in schema:
            seen.setdefault(field.name, {}).setdefault(_plain(field.type), file)
    spelled: dict[str, str] = {}
    for name in seen:
        other = spelled.setdefault(name.lower(), name)
        if other != name:
            raise SourceError(
                f"the table of {source.name} has the columns {other!r} and {name!r}: {source.path}",
                hint="rename one of them: capitals alone do not tell columns apart",
            )
    varied = [name for name, kinds in seen.items() if len(kinds) > 1]
    groups: dict[tuple[pa.DataType | None, ...], list[Path]] = {}
    for file, schema in zip(source.files, schemas, strict=True):
        found = tuple(_plain(schema.field(name).type) if name in schema.names else None for name in varied)
        groups.setdefault(found, []).append(file)
    single = {name: next(iter(kinds)) for name, kinds in seen.items() if len(kinds) == 1}
    disputed = {}
    for name in varied:
        known = [(kind, file) for kind, file in seen[name].items() if not pa.types.is_null(kind)]
        if not any(all(map(test, (kind for kind, _ in known))) for test in _ALIKE) and len(known) > 1:
            disputed[name] = f"column {name!r} has two types: " + ", ".join(f"{k} in {file}" for k, file in known[:2])
    has_all = len({tuple(schema.names) for schema in schemas}) == 1
    alike = [(files, single | dict(zip(varied, found, strict=True))) for found, files in groups.items()]
    return ParquetColumns(list(seen), alike, disputed, has_all)


def require_column(source: Source, key: str, wanted: str, found: Sequence[str], hint: str = "") -> None:
    """Raise SourceError, with the columns found and the nearest, when the column `wanted` by `key` is not there."""
    if wanted in found:
        return
    near = difflib.get_close_matches(wanted.lower(), [name.lower() for name in found], n=1)
    nearest = next((name for name in found if near and name.lower() == near[0]), "")
    raise SourceError(
        f"the table of {source.name} has no column {wanted!r}: {source.path} has {shortened(', '.join(found))}"
        + (f"; nearest: {nearest!r}" if nearest else ""),
        hint=_separator_hint(source, found) or hint or f"set data.{source.name}.{key}",
    )


def open_text(file: Path) -> IO[str]:
    """A text file, unzipped by its suffix, without a byte order mark; U+FFFD where a byte is not UTF-8."""
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return file.open(encoding="utf-8-sig", errors="replace", newline="")


def _separator_hint(source: Source, found: Sequence[str]) -> str:
    others = [noun for sign, noun in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")) if sign in found[0]]
    if source.format != "csv" or len(found) > 1 or not others:
        return ""
    return f"the columns look separated by {others[0]}; wanted commas"


def shortened(text: str) -> str:
    """What a message shows of a text that may be of any length."""
    return text if len(text) <= 300 else text[:300] + "…"


def _refuse_other_bytes(file: Path) -> None:
    """Raise SourceError when a text file begins as none does: with what a terminal had better not be shown."""
    with file.open("rb") as opened:
        first = opened.read(64)
    if first.startswith(b"\x1f\x8b"):
        if file.suffix != ".gz":
            raise SourceError(f"{file} is compressed by gzip", hint="call it .csv.gz")
    elif file.suffix != ".gz" and (first.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first):
        raise SourceError(f"{file} is not text in UTF-8, perhaps in UTF-16", hint="save it as UTF-8")


def _first_row(file: Path, format_: str) -> list[str]:
    try:
        _refuse_other_bytes(file)
        with open_text(file) as lines:
            if format_ == "recbole":
                line = next(lines, "").rstrip("\r\n")
                return line.split("\t") if line else []
            return next((row for row in csv.reader(lines) if row), [])  # Spark passes over empty lines, too
    except (OSError, EOFError, csv.Error) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type as Spark sees it: however text is laid out, it is text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) else kind


_ALIKE = (
    lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
    lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
    lambda kind: pa.types.is_timestamp(kind) and kind.tz is None,
)
"""Types of one kind Spark brings together, whatever their width or unit."""


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(root).parts)


def _suffix_format(file: Path) -> str | None:
    return next((kind for suffix, kind in SUFFIXES.items() if file.name.lower().endswith(suffix)), None)


def _format(name: str, files: Sequence[Path], wanted: str) -> str:
    if wanted != "auto":
        return wanted
    kinds = {_suffix_format(file): file for file in files}
    if None in kinds:
        raise SourceError(
            f"the format of {kinds[None]} cannot be told from its name; known are {', '.join(SUFFIXES)}",
            hint=f"set data.{name}.format",
        )
    if len(kinds) > 1:
        raise SourceError(f"the table of {name} mixes formats: " + ", ".join(str(file) for file in kinds.values()))
    return str(next(iter(kinds)))


def _partitions(name: str, files: Sequence[Path]) -> tuple[str, ...]:
    days = [_partition(file) for file in files]
    if not any(days):
        return ()
    if not all(days):
        raise SourceError(
            f"the table of {name} is partitioned, and {files[days.index('')]} lies outside the partitions"
        )
    return tuple(days)


def _partition(file: Path) -> str:
    for folder in reversed(file.parent.parts):
        found = _PARTITION_NAME.fullmatch(folder)
        if found:
            try:
                return datetime.date.fromisoformat(found[1]).isoformat()
            except ValueError:
                raise SourceError(f"{file}: the partition {folder} is not {PARTITION}=YYYY-MM-DD") from None
    return ""
