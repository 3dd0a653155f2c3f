"""Where your own tables lie: their files, format and date partitions. `headers` has their columns. No Spark.

A path is a file, a folder or a glob. A folder with `date=YYYY-MM-DD` folders in it is partitioned by day, and a
partition's name is taken at its word: rows of another day in it are read with it. Names that begin with a dot or an
underscore are not data.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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


def locate(name: str, path: str, format_: str = "auto") -> Source:
    """The files behind a path of the configuration.

    Raises:
        SourceError: there is nothing at the path, not all of it can be read, or its format cannot be told.
    """
    root = Path(path)
    try:
        files = sorted(_below(root) if root.is_dir() else [root] if root.exists() else _matching(root))
        for file in files:
            file.open("rb").close()
    except OSError as error:  # what is passed over may be a day
        raise SourceError(
            f"the table of {name} cannot be read: {error.filename}: {error.strerror}",
            hint="let this user read all of it, and remove links that lead nowhere",
        ) from error
    # A CSV file of no bytes is a day on which nothing was exported.
    if format_ != "parquet":
        files = [file for file in files if file.stat().st_size or _suffix_format(file) == "parquet"] or files[:1]
    if not files and not root.is_dir() and any(_matching(root, is_wanted=Path.is_dir)):
        raise SourceError(
            f"the table of {name} matches folders only: {path}",
            hint=f"set data.{name}.path to the folder that holds them, without a pattern",
        )
    if not files:
        none = "" if name == "interactions" else ', or to "" for none'
        raise SourceError(
            f"the table of {name} {'holds no file' if root.is_dir() else 'is not there'}: {path}",
            hint=f"set data.{name}.path{none}; the embedded shop is made with: shortlist simulate",
        )
    return Source(name, root, _format(name, files, format_), tuple(files), _partitions(name, files))


def shortened(text: str) -> str:
    """What a message shows of a text that may be of any length."""
    return text if len(text) <= 300 else text[:300] + "…"


def _below(root: Path) -> Iterator[Path]:
    """The files in a folder and the folders in it, those that it links to too; what is hidden is passed over.

    Raises:
        OSError: a folder cannot be looked into, or a link leads nowhere, or back.
    """

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        files = (Path(folder, name) for name in names if not _is_hidden(name))
        yield from (file for file in files if stat.S_ISREG(file.stat().st_mode))


def _matching(pattern: Path, is_wanted: Callable[[Path], bool] = Path.is_file) -> Iterator[Path]:
    return filter(is_wanted, Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor))))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _suffix_format(file: Path) -> str | None:
    return next((kind for suffix, kind in SUFFIXES.items() if file.name.lower().endswith(suffix)), None)


def _format(name: str, files: Sequence[Path], wanted: str) -> str:
    if wanted != "auto":
        return wanted
    kinds = {_suffix_format(file): file for file in files}
    if None in kinds:
        raise SourceError(
            f"the format of {kinds[None]} cannot be told from its name; known are {', '.join(SUFFIXES)}",
            hint=f"set data.{name}.format, or write the table as one of these",
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
