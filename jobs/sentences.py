"""The sentence vectors of items: each distinct text is encoded once and kept from night to night.

`<workspace>/sentences/<encoder id>/` holds Parquet files of (SHA-256 of the text, vector). They are only ever added
to, each whole under its final name; a file that cannot be read is removed and its texts are encoded again. What is
being written has a hidden name and is locked: what is not locked has been left by a killed process, and goes.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from jobs import progress
from jobs.datasets import Dataset
from jobs.encoder import Encoder
from jobs.features import Sentences
from prediction_store import locks
from prediction_store.errors import DiskError

FOLDER = "sentences"
PART = 1024
"""Texts encoded between two files: as much work as a kill can cost."""


@dataclass(frozen=True)
class Texts:
    """What a sentence encoder makes of the texts of a catalogue."""

    encoder: str
    vectors: np.ndarray
    """float16[items, dimensions] by item_index"""

    def said(self) -> Sentences:
        """What model.json says of them."""
        return Sentences(self.encoder, self.vectors.shape[1])


def read_texts(workspace: str | Path, prepared: Dataset, encoder: Encoder) -> Texts:
    """The texts of the prepared items; encodes those that no night before has met."""
    items = prepared.arrow("items").to_table(["item_index", "title", "category"]).sort_by("item_index")
    return Texts(encoder.id, sentence_vectors(workspace, item_texts(items), encoder))


def item_texts(items: pa.Table) -> list[str]:
    """What the encoder reads of each item: the title and the category; "" for neither.

    The category makes items of MovieLens 100K that nobody has met a quarter easier to find.
    """
    both = zip(items["title"].to_pylist(), items["category"].to_pylist(), strict=True)
    return [". ".join(part for part in parts if part) for parts in both]


def sentence_vectors(workspace: str | Path, texts: Sequence[str], encoder: Encoder) -> np.ndarray:
    """float16[len(texts), encoder.dimensions]; zeros for an empty text. Shows a bar where there is much to encode."""
    column = pa.array(texts, pa.string()).dictionary_encode()
    distinct = column.dictionary.to_pylist()
    found = np.zeros((len(distinct), encoder.dimensions), dtype=np.float16)
    folder = Path(workspace) / FOLDER / encoder.id
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    digests = [hashlib.sha256(text.encode()).digest() for text in distinct]
    is_missing = np.array([text != "" for text in distinct], dtype=bool)
    _fill(folder, pa.array(digests, pa.binary(32)), found, is_missing)
    missing = np.flatnonzero(is_missing)
    with progress.bar("sentences", len(missing)) as bar:
        for rows in np.split(missing, range(PART, len(missing), PART)):
            if len(rows):
                found[rows] = encoder.encode([distinct[row] for row in rows])
                _keep(folder, [digests[row] for row in rows], found[rows])
                bar.advance(len(rows))
    return found[column.indices.to_numpy()]


def _fill(folder: Path, digests: pa.Array, found: np.ndarray, is_missing: np.ndarray) -> None:
    """Put the vectors that are kept into `found`, and say in `is_missing` that they are there."""
    width = found.shape[1]
    for path in sorted(folder.glob("*.parquet")):
        try:
            kept = pa.parquet.read_table(path, page_checksum_verification=True).combine_chunks()
            vectors = np.frombuffer(b"".join(kept["vector"].to_pylist()), dtype=np.float16).reshape(len(kept), width)
        except (OSError, ValueError, KeyError):  # Arrow's own errors are ValueErrors
            path.unlink(missing_ok=True)
            continue
        place = pa.compute.index_in(digests, kept["digest"].combine_chunks())
        rows = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
        found[rows] = vectors[place.drop_null().to_numpy()]
        is_missing[rows] = False


def _keep(folder: Path, digests: Sequence[bytes], vectors: np.ndarray) -> None:
    """Add a file. Its name comes from its texts: two runs that encode the same write the same."""
    columns = {
        "digest": pa.array(digests, pa.binary(32)),
        "vector": pa.array([row.tobytes() for row in vectors], pa.binary(2 * vectors.shape[1])),
    }
    aside, lock = _locked(folder)
    try:
        pa.parquet.write_table(pa.table(columns), aside, use_dictionary=False, write_page_checksum=True)
        with aside.open("rb") as handle:
            os.fsync(handle.fileno())
        aside.replace(folder / f"{hashlib.sha256(b''.join(digests)).hexdigest()[:16]}.parquet")
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        locks.unlock(lock)


def _locked(folder: Path) -> tuple[Path, int]:
    """A new file to be written, and the lock on it."""
    while True:
        path = folder / f".{secrets.token_hex(8)}"  # no process number: in two containers it is often the same
        path.touch(exist_ok=False)
        lock = locks.lock(path, exclusive=True)
        if lock is not None:  # else another process has swept it already
            return path, lock


def _sweep(folder: Path) -> None:
    for path in folder.glob(".*"):
        with suppress(DiskError, OSError):  # of a user whose files are not ours
            lock = locks.lock(path, exclusive=True)
            if lock is not None:
                try:
                    path.unlink()
                finally:
                    locks.unlock(lock)
