"""The files of lists in `candidates`: a task writes one under a name of its own, the driver names the ones that count.

The tasks write the files themselves: a list of 1,000 passes through Spark number by number, which took longer than the
search. A task that ran twice leaves two files, of which the one counts that Spark was told of.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet

from schemas.tables import CANDIDATES

ATTEMPT = "attempt-"
"""Start of the name of a file that a task is writing, or has written and nobody asked for."""


def attempt_in(folder: Path, number: int) -> Path:
    """The path of one more attempt at file `number`."""
    return folder / f"{ATTEMPT}{number:05d}-{secrets.token_hex(8)}"


def open_writer(path: Path) -> pyarrow.parquet.ParquetWriter:
    """Lists of numbers near random: compressing them took longer than writing them."""
    return pyarrow.parquet.ParquetWriter(
        path, CANDIDATES, use_dictionary=False, compression="none", write_statistics=["user_index"]
    )


def name_files(folder: Path, kind: str, attempts: Iterable[tuple[int, str]]) -> None:
    """Give the attempts (number of the file, name) that count their names, and remove the others.

    Args:
        kind: start of the names; files of one kind come from one stage.
    """
    for number, attempt in attempts:
        (folder / attempt).rename(folder / f"{kind}-{number:05d}.parquet")
    for leftover in folder.glob(f"{ATTEMPT}*"):
        leftover.unlink()
