"""What lists are put in order by beside the products: what many have met of late, and what each user has met before.

All of it is counted from the interactions, an older one for less: what many met last month is no longer on everybody's
lips, and who bought a thing every week of last year may have stopped.

Source: Anderson et al. 2014, The dynamics of repeat consumption.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from jobs.datasets import DAY_SECONDS, Dataset
from jobs.decay import UNITS
from jobs.errors import DatasetDamagedError
from jobs.index import inverse
from schemas.tables import TEST

RECENT_DAYS, OWN_DAYS = 2.0, 90.0
"""Half lives: of an interaction of anybody that counts as one of late; of one of the user's own."""
FOLDER = "known"
"""Where a step keeps it, in its draft, as long as it needs it."""
RECENT, STARTS, ENDS, ITEMS, TIMES = "recent.npy", "starts.npy", "ends.npy", "items.bin", "times.bin"


class Known(NamedTuple):
    """Items are dense indexes. All arrays may be mapped."""

    recent: np.ndarray
    """float32[items]: log(1 + the weights of the item's interactions), which halve every RECENT_DAYS."""
    starts: np.ndarray
    """int64[users]"""
    ends: np.ndarray
    """int64[users]: what user u has met is items[starts[u]:ends[u]], in any order."""
    items: np.ndarray
    """uint32[pairs]: an item is there once per user"""
    times: np.ndarray
    """float32[pairs], above 0: log(1 + how often the user has met the item), where a time halves every OWN_DAYS."""


def write_known(prepared: Dataset, order: np.ndarray, folder: Path, *, before: int = TEST + 1) -> Known:
    """What is known of everybody, written into a folder, which is made; read back mapped.

    Read a file of interactions at a time: it holds all there is of its users. Ages are by the newest interaction, so
    that the numbers mean the same for any part of the data.

    Args:
        order: int[items], the item_index of each dense index.
        before: only interactions of the splits before this one count.

    Raises:
        DatasetDamagedError: interactions of one user lie in several files.
    """
    folder.mkdir(exist_ok=True)
    files, items = sorted(prepared.arrow("interactions").files), len(order)
    newest = max((int(when.max(initial=0)) for file in files for when in _counting(file, before, ["time"])), default=0)
    dense_of = inverse(order).astype(np.uint32)
    recent, pairs = np.zeros(items, np.int64), 0
    starts, ends = np.zeros((2, prepared.rows["users"]), np.int64)
    with (folder / ITEMS).open("wb") as of_items, (folder / TIMES).open("wb") as of_times:
        for file in files:
            user, item, weight, when = _counting(file, before, ["user_index", "item_index", "weight", "time"])
            np.add.at(recent, item, _halved(weight, newest - when, RECENT_DAYS))
            user, item, times = _met(user, item, newest - when, items)
            users, first, counts = np.unique(user, return_index=True, return_counts=True)
            if ends[users].any():
                raise DatasetDamagedError(
                    f"{file}: has users whose interactions lie in another file too",
                    hint=f"remove {prepared.path} and run again: shortlist prepare",
                )
            starts[users], ends[users] = pairs + first, pairs + first + counts
            pairs += len(item)
            dense_of[item].tofile(of_items)
            times.tofile(of_times)
    np.save(folder / RECENT, np.log1p(recent[order] / UNITS).astype(np.float32))
    np.save(folder / STARTS, starts)
    np.save(folder / ENDS, ends)
    return open_known(folder)


def open_known(folder: Path) -> Known:
    """What `write_known` has written, mapped."""
    recent, starts, ends = (np.load(folder / name, mmap_mode="r") for name in (RECENT, STARTS, ENDS))
    return Known(recent, starts, ends, _mapped(folder / ITEMS, np.uint32), _mapped(folder / TIMES, np.float32))


def _mapped(path: Path, kind: type) -> np.ndarray:
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)  # no map of nothing


def _counting(file: str, before: int, columns: list[str]) -> list[np.ndarray]:
    """Columns of the interactions in a file that say something and lie before a split."""
    table = pa.parquet.read_table(file, columns=list({*columns, "weight", "split"}), use_threads=False)
    table = table.filter((pa.compute.field("split") < before) & (pa.compute.field("weight") > 0))
    return [table.column(name).to_numpy() for name in columns]


def _met(user: np.ndarray, item: np.ndarray, age: np.ndarray, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(user, item, `Known.times`) of each pair that met, by user; what was met ages ago is left out.

    Args:
        user, item, age: of each interaction; ages in seconds.
        items: how many there are.
    """
    pairs, place = np.unique(user.astype(np.int64) * items + item, return_inverse=True)
    times = np.zeros(len(pairs), np.int64)
    np.add.at(times, place, _halved(1.0, age, OWN_DAYS))
    counts = times > 0
    return *np.divmod(pairs[counts], items), np.log1p(times[counts] / UNITS).astype(np.float32)


def _halved(weight: np.ndarray | float, age: np.ndarray, half_life_days: float) -> np.ndarray:
    """int64[n]: what interactions still weigh, in units. Sums of those do not depend on the order of the additions."""
    return np.rint(weight * np.exp2(-age / (half_life_days * DAY_SECONDS)) * UNITS).astype(np.int64)
