"""The order of a list: the products that found its items, what many have met of late, and what its user has met before.

Two towers say who might like what. They learn from first meetings, and of a whole month alike: so they know little of
what is bought or read again and again, and of what is on everybody's lips this week. Two-stage systems leave that to a
ranker behind the retrieval; this is ours, with three numbers that `order_fit` learns. Which items are in a list is
decided by the products alone.

Source: Anderson et al. 2014, The dynamics of repeat consumption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset

from jobs import user_histories
from jobs.compiled import strict
from jobs.datasets import Dataset
from jobs.decay import DAY_SECONDS, UNITS
from schemas.tables import CANDIDATES

HALF_LIFE_DAYS = 2.0
"""Of an interaction that counts as one of late."""
RECENT = "recent.npy"
COLUMNS = ["item_index", "weight", "time"]
EVERY = pa.dataset.scalar(True)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to the product of a user and an item, in its unit. All 0: the order of the products."""

    recent: float = 0.0
    """Times the logarithm of one and the item's interactions of late, at least 0."""
    own: float = 0.0
    """Where the item is in the user's history."""
    again: float = 0.0
    """Times the logarithm of how often it is there."""

    def of_met(self, most: int) -> np.ndarray:
        """float32[most + 1]: what is added for an item that is so many times in the history."""
        added = self.own + self.again * np.log(np.maximum(np.arange(most + 1), 1))
        added[0] = 0.0
        return added.astype(np.float32)


BY_PRODUCTS = Order()


class Known(NamedTuple):
    """What lists are put in order by, items as dense indexes. All arrays may be mapped."""

    recent: np.ndarray
    """float32[items]: see `recent_of`."""
    offsets: np.ndarray
    """int64[users + 1]: the history of user u is met[offsets[u]:offsets[u + 1]]."""
    met: np.ndarray
    """uint32"""


def recent_of(tables: Callable[[], Iterable[pa.RecordBatch | pa.Table]], items: int) -> np.ndarray:
    """float32[items], by item_index: log(1 + weight of the interactions of late), which halves every two days.

    Late is by the newest of the interactions, so that the number means the same for any part of the data. It is the
    same in whatever order they come, see `decay.UNITS`.

    Args:
        tables: gives the interactions with COLUMNS, twice.
    """
    newest = max((int(table["time"].to_numpy().max()) for table in tables() if len(table)), default=0)
    sums = np.zeros(items, np.int64)
    for table in tables():
        age = (newest - table["time"].to_numpy()) / (HALF_LIFE_DAYS * DAY_SECONDS)
        units = np.rint(table["weight"].to_numpy() * np.exp2(-age) * UNITS).astype(np.int64)
        np.add.at(sums, table["item_index"].to_numpy(), units)
    return np.log1p(sums / UNITS).astype(np.float32)


def write_known(
    prepared: Dataset, order: np.ndarray, folder: Path, *, interactions: pa.dataset.Expression = EVERY
) -> Known:
    """What is known of everybody whose histories `user_histories.gather` has written into the folder.

    Args:
        order: int[items], the item_index of each dense index.
        interactions: which of them count.
    """
    says_something = pa.dataset.field("weight") > 0

    def tables() -> Iterable[pa.RecordBatch]:
        return prepared.arrow("interactions").to_batches(columns=COLUMNS, filter=interactions & says_something)

    np.save(folder / RECENT, recent_of(tables, len(order))[order])
    return open_known(folder)


def open_known(folder: Path) -> Known:
    """What `write_known` has written, mapped."""
    return Known(
        *(np.load(folder / name, mmap_mode="r") for name in (RECENT, user_histories.OFFSETS, user_histories.ITEMS))
    )


def put_in_order(lists: pa.RecordBatch, order: Order, known: Known) -> pa.RecordBatch:
    """Rows of CANDIDATES, each list in its new order with the scores that it has by them; equal ones as they were."""
    if order == BY_PRODUCTS:
        return lists
    offsets = lists.column("items").offsets.to_numpy()
    offsets = offsets - offsets[0]
    items, scores = (lists.column(name).flatten().to_numpy() for name in ("items", "scores"))
    scores = scores + np.float32(order.recent) * known.recent[items]
    users = lists.column("user_index").to_numpy()
    of_met = order.of_met(int((known.offsets[users + 1] - known.offsets[users]).max(initial=0)))
    _add_met((users, offsets, items), scores, of_met, known)
    places = _best_first(offsets, scores)
    sorted_lists = (pa.ListArray.from_arrays(offsets, values[places]) for values in (items, scores))
    return pa.RecordBatch.from_arrays([lists.column("user_index"), *sorted_lists], schema=CANDIDATES)


@strict
def _add_met(lists, scores, of_met, known):  # type: ignore[no-untyped-def]
    """Add to the scores of each user's list what its items get for being met; `of_met` by how often."""
    users, offsets, items = lists
    times = np.zeros(len(known.recent), dtype=np.int32)
    for row in range(len(users)):
        history = known.met[known.offsets[users[row]] : known.offsets[users[row] + 1]]
        for item in history:
            times[item] += 1
        for place in range(offsets[row], offsets[row + 1]):
            scores[place] += of_met[times[items[place]]]
        for item in history:
            times[item] = 0


def _best_first(offsets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """int64[scores]: the places of each list's scores, the highest first; equal ones in the order that they have."""
    lengths = np.diff(offsets)
    padded = np.full((len(lengths), lengths.max(initial=0)), np.inf, dtype=np.float32)
    is_there = np.arange(padded.shape[1]) < lengths[:, None]
    padded[is_there] = -scores
    order = np.argsort(padded, axis=1, kind="stable")
    return (order + offsets[:-1, None])[is_there]
