"""What lists are put in order by beside the products: what many have met of late, and what each user has met before.

All of it is counted from the interactions, an older one for less: what many met last month is no longer on everybody's
lips, and who bought a thing every week of last year may have stopped.

Source: Anderson et al. 2014, The dynamics of repeat consumption.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from jobs.datasets import Dataset
from jobs.decay import UNITS, halved
from jobs.errors import DatasetDamagedError
from jobs.index import inverse
from schemas.tables import TEST

RECENT_DAYS, OWN_DAYS = 2.0, 90.0
"""Half lives: of an interaction of anybody that counts as one of late; of one of the user's own."""
LATE_ITEMS = 500
"""How many of the items met most of late every list may take."""
FOLDER = "known"
"""Where a step keeps it, in its draft, as long as it needs it."""
RECENT, LATE, STARTS, ENDS = "recent.npy", "late.npy", "starts.npy", "ends.npy"
ITEMS, TIMES, DROPPED = "items.bin", "times.bin", "dropped.bin"


class Known(NamedTuple):
    """Items are dense indexes. All arrays may be mapped."""

    recent: np.ndarray
    """float32[items]: log(1 + the weights of the item's interactions), which halve every RECENT_DAYS."""
    late: np.ndarray
    """uint32[n]: up to LATE_ITEMS items, the highest `recent` first; those where it is 0 are not among them."""
    starts: np.ndarray
    """int64[users]"""
    ends: np.ndarray
    """int64[users]: what user u has met is items[starts[u]:ends[u]], in any order."""
    items: np.ndarray
    """uint32[pairs]: an item is there once per user"""
    times: np.ndarray
    """float32[pairs]: log(1 + how often the user has met the item), where a time halves every OWN_DAYS."""
    is_dropped: np.ndarray
    """bool[pairs]: the user has consumed the item and must not be offered it again; its `times` may be 0."""


def write_known(
    prepared: Dataset, order: np.ndarray, folder: Path, *, before: int = TEST + 1, drop_consumed: bool = False
) -> Known:
    """What is known of everybody, written into a folder, which is made; read back mapped.

    Read a file of interactions at a time: it holds all there is of its users. Ages are by the newest interaction, so
    that the numbers mean the same for any part of the data.

    Args:
        order: int[items], the item_index of each dense index.
        before: only interactions of the splits before this one count.
        drop_consumed: the policy is to offer nothing again that was consumed; else nothing is dropped.

    Raises:
        DatasetDamagedError: interactions of one user lie in several files.
    """
    folder.mkdir(exist_ok=True)
    files, items = sorted(prepared.arrow("interactions").files), len(order)
    newest = max((int(_counting(file, before).time.max(initial=0)) for file in files), default=0)
    dense_of = inverse(order).astype(np.uint32)
    recent, pairs = np.zeros(items, np.int64), 0
    starts, ends = np.zeros((2, prepared.rows["users"]), np.int64)
    names = (ITEMS, TIMES, DROPPED)
    with contextlib.ExitStack() as stack:
        written = [stack.enter_context((folder / name).open("wb")) for name in names]
        for file in files:
            events = _counting(file, before, drop_consumed=drop_consumed)
            np.add.at(recent, events.item, halved(events.weight, newest - events.time, RECENT_DAYS))
            user, item, *said = _met(events, newest, items)
            users, first, counts = np.unique(user, return_index=True, return_counts=True)
            if ends[users].any():
                raise DatasetDamagedError(
                    f"{file}: has users whose interactions lie in another file too",
                    hint=f"remove {prepared.path} and run again: shortlist prepare",
                )
            starts[users], ends[users] = pairs + first, pairs + first + counts
            pairs += len(item)
            for values, to in zip((dense_of[item], *said), written, strict=True):
                values.tofile(to)
    of_late = np.log1p(recent[order] / UNITS).astype(np.float32)
    late = np.argsort(-of_late, kind="stable")[:LATE_ITEMS]
    np.save(folder / RECENT, of_late)
    np.save(folder / LATE, late[of_late[late] > 0].astype(np.uint32))
    np.save(folder / STARTS, starts)
    np.save(folder / ENDS, ends)
    return open_known(folder)


def open_known(folder: Path) -> Known:
    """What `write_known` has written, mapped."""
    arrays = (np.load(folder / name, mmap_mode="r") for name in (RECENT, LATE, STARTS, ENDS))
    kinds = {ITEMS: np.uint32, TIMES: np.float32, DROPPED: np.bool_}
    return Known(*arrays, *(_mapped(folder / name, kind) for name, kind in kinds.items()))


def _mapped(path: Path, kind: type) -> np.ndarray:
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)  # no map of nothing


class _Events(NamedTuple):
    """Interactions, one array per column."""

    user: np.ndarray
    item: np.ndarray
    weight: np.ndarray
    time: np.ndarray
    is_dropped: np.ndarray


def _counting(file: str, before: int, *, drop_consumed: bool = False) -> _Events:
    """The interactions in a file that say something, or consume what is dropped then, and lie before a split."""
    columns = ["user_index", "item_index", "weight", "time", "consumed"]
    table = pa.parquet.read_table(file, columns=[*columns, "split"], use_threads=False)
    says_something = pa.compute.field("weight") > 0
    if drop_consumed:
        says_something |= pa.compute.field("consumed")
    table = table.filter((pa.compute.field("split") < before) & says_something)
    events = _Events(*(table.column(name).to_numpy() for name in columns))
    return events if drop_consumed else events._replace(is_dropped=np.zeros(len(table), np.bool_))


def _met(events: _Events, newest: int, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(user, item, `Known.times`, `Known.is_dropped`) of each pair that met, by user.

    What was met ages ago is left out, unless it is dropped.

    Args:
        newest: seconds, when the newest interaction was.
        items: how many there are.
    """
    pairs, place = np.unique(events.user.astype(np.int64) * items + events.item, return_inverse=True)
    times, is_dropped = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.bool_)
    np.add.at(times, place, halved(events.weight > 0, newest - events.time, OWN_DAYS))
    is_dropped[place[events.is_dropped]] = True
    counts = (times > 0) | is_dropped
    return *np.divmod(pairs[counts], items), np.log1p(times[counts] / UNITS).astype(np.float32), is_dropped[counts]
