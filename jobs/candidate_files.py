"""The files of lists in `candidates`: a task writes one under a name of its own, the driver names the ones that count.

The tasks write the files themselves: a list of 1,000 passes through Spark number by number, which took longer than the
search. A task that ran twice leaves two files, of which the one counts that Spark was told of.

They are Arrow's own files: the numbers as they lie in memory. Parquet, uncompressed, took 33 µs to write a list of
1,000 and as long to read one, against 12 and less than 1.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from schemas.tables import CANDIDATES

SUFFIX = ".arrow"
ATTEMPT = "attempt-"
"""Start of the name of a file that a task is writing, or has written and nobody asked for."""


def attempt_in(folder: Path, number: int) -> Path:
    """The path of one more attempt at file `number`."""
    return folder / f"{ATTEMPT}{number:05d}-{secrets.token_hex(8)}"


@contextmanager
def open_writer(path: Path) -> Iterator[pa.ipc.RecordBatchFileWriter]:
    """A new file for batches of CANDIDATES."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, CANDIDATES) as file:
        yield file


def find(folder: Path) -> list[Path]:
    """The files of a part of `candidates`, in the order of their names."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def read(path: Path | str, rows: int) -> Iterator[pa.RecordBatch]:
    """The batches of a file, mapped into memory, at most `rows` users at a time."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)


def read_all(folder: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """Those of all files of a part."""
    for path in find(folder):
        yield from read(path, rows)


def name_files(folder: Path, kind: str, attempts: Iterable[tuple[int, str]]) -> None:
    """Give the attempts (number of the file, name) that count their names, and remove the others.

    Args:
        kind: start of the names; files of one kind come from one stage.
    """
    for number, attempt in attempts:
        (folder / attempt).rename(folder / f"{kind}-{number:05d}{SUFFIX}")
    for leftover in folder.glob(f"{ATTEMPT}*"):
        leftover.unlink()
