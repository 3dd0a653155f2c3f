"""What all users do with each item, counted in a file that the workers of one host share: a count-min sketch.

An item has a cell in each of ROWS rows, by the hash of its id, and its count is the least of them: other items may fall
into the same cells, and only make a count too high. So there need be no list of items, no version, and no room for more
of them. A cell holds a count and the time of it, and is worth half after every HALF_LIFE_SECONDS.

A user counts once for an item within a half life, as far as the places go that remember who has counted: nobody can
look like many. Two workers that count into one cell at the same instant may lose one of the two; a lock would cost
every event more than that is worth. Nothing here has to survive a power cut.

Source: Cormode and Muthukrishnan 2005, An improved data stream summary: the count-min sketch and its applications.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from prediction_store import durable
from prediction_store.errors import StoreError
from reranker.arrays import Positions
from reranker.errors import SessionsError

HALF_LIFE_SECONDS: Final = 6 * 3600.0
ROWS: Final = 2
CELLS: Final = 1 << 16
"""Of a row: with 10,000 items on the move, one in fifty shares both of its cells."""
PLACES: Final = 1 << 16
"""Pairs of a user and an item that are remembered; a later one takes the place of an earlier one."""
QUIET_SECONDS: Final = 8 * HALF_LIFE_SECONDS
"""An item that nobody has met for so long is as good as new when somebody does."""
BYTES: Final = ROWS * CELLS * 24 + PLACES * 8
FILE: Final = "trending-2.counts"
"""In the folder of the sessions; the number is that of the format."""
EARLIER: Final = "trending-1.counts"


class _Opened(NamedTuple):
    file: tuple[int, int]
    """Device and inode."""
    is_writable: bool
    cells: memoryview[float]
    """[ROWS * CELLS * 2]: count and time of each"""
    pairs: memoryview[int]
    """[PLACES]: hashes of who has counted for what"""
    since: memoryview[float]
    """[ROWS * CELLS]: when the first of what has counted since the last QUIET_SECONDS without anything did"""


class DecayedCounts:
    """The counts of one host, in a folder. Any number of threads and processes may use them.

    The file is made for the first event. Where it has been removed, the next one begins anew.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._opened: _Opened | None = None

    def add(self, user: str, item: str, now: float) -> None:
        """Count that a user has done something with an item, unless that has been counted within this half life.

        Raises:
            SessionsError: the file cannot be made.
        """
        opened = self._opened
        if opened is None or not opened.is_writable:
            opened = self._opened = self._make()
        window = int(now // HALF_LIFE_SECONDS)
        pair = _hash(f"{len(user)} {user} {item} {window}".encode()) or 1
        place = pair % PLACES
        if opened.pairs[place] == pair:
            return
        opened.pairs[place] = pair
        for at in _cells_of(_hash(item.encode())):
            count, time = opened.cells[2 * at], opened.cells[2 * at + 1]
            if not (count > 0.0 and -HALF_LIFE_SECONDS < now - time < QUIET_SECONDS):
                opened.since[at] = now
            opened.cells[2 * at], opened.cells[2 * at + 1] = 1.0 + _left(count, now - time), now

    def of(self, cells: Positions, now: float) -> npt.NDArray[np.float64]:
        """float64[n]: the counts of items, by their cells (see `cells_of`), as they are worth now.

        Where there is no file, or none that can be read, nothing has been counted.
        """
        self._follow()
        opened = self._opened
        if opened is None:
            return np.zeros(cells.shape[1])
        counts, times = np.asarray(opened.cells).reshape(-1, 2).T
        age = now - times
        with np.errstate(invalid="ignore", over="ignore"):
            left = counts * np.exp2(-np.maximum(age, 0.0) / HALF_LIFE_SECONDS)
            left[~((age > -HALF_LIFE_SECONDS) & np.isfinite(left) & (left > 0.0))] = 0.0
        found: npt.NDArray[np.float64] = left[cells[0]]
        for row in cells[1:]:
            np.minimum(found, left[row], out=found)
        return found

    def since(self, cells: Positions) -> npt.NDArray[np.float64]:
        """float64[n]: when items that count, by their cells, began to, in epoch seconds; of what `of` has looked at."""
        opened = self._opened
        if opened is None:
            return np.zeros(cells.shape[1])
        # Who shares a cell can only have begun earlier there.
        latest = np.asarray(opened.since)[cells].max(axis=0)
        found: npt.NDArray[np.float64] = np.where(np.isfinite(latest) & (latest > 0.0), latest, 0.0)
        return found

    def _follow(self) -> None:
        """Open the file that others use, where that is another one than before."""
        try:
            facts = self._path.stat()
            if self._opened is None or self._opened.file != (facts.st_dev, facts.st_ino):
                self._opened = self._map(os.O_RDONLY)
        except OSError:
            self._opened = None

    def _make(self) -> _Opened:
        try:
            durable.make_last_folder(self._folder)
            self._folder.joinpath(EARLIER).unlink(missing_ok=True)
            opened = self._map(os.O_RDWR | os.O_CREAT)
        except (StoreError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise SessionsError(f"opening {self._path}: {why}") from error
        assert opened is not None, "it has its full length"
        return opened

    def _map(self, flags: int) -> _Opened | None:
        """None: it is shorter than it should be, for its maker is at work or was killed. Raises OSError."""
        file = os.open(self._path, flags | os.O_CLOEXEC, 0o644)
        try:
            is_writable = flags & os.O_RDWR != 0
            if is_writable:
                os.posix_fallocate(file, 0, BYTES)  # to write what a full disk has no room for would be a SIGBUS
            facts = os.fstat(file)
            if facts.st_size < BYTES:
                return None
            mapped = mmap.mmap(file, BYTES, access=mmap.ACCESS_WRITE if is_writable else mmap.ACCESS_READ)
        finally:
            os.close(file)
        whole, end, last = memoryview(mapped), ROWS * CELLS * 16, BYTES - ROWS * CELLS * 8
        cells, pairs, since = whole[:end].cast("d"), whole[end:last].cast("Q"), whole[last:].cast("d")
        return _Opened((facts.st_dev, facts.st_ino), is_writable, cells, pairs, since)


def cells_of(items: Sequence[str]) -> Positions:
    """int64[ROWS, n]: where the counts of items stand."""
    hashes = (_hash(item.encode()) for item in items)
    found = np.fromiter((at for each in hashes for at in _cells_of(each)), np.int64, ROWS * len(items))
    return found.reshape(-1, ROWS).T.copy()


def _cells_of(number: int) -> tuple[int, int]:
    return number % CELLS, CELLS + (number >> 32) % CELLS


def _hash(text: bytes) -> int:
    """64 bits."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _left(count: float, age: float) -> float:
    """What a count of so many seconds ago is worth. One from far ahead was made while the clock was wrong."""
    is_sound = 0.0 < count < math.inf and age > -HALF_LIFE_SECONDS
    return count * 0.5 ** (max(age, 0.0) / HALF_LIFE_SECONDS) if is_sound else 0.0
