"""What would have been trending at moments of the past: as `reranker.trending_now` has it, from the interactions.

Counted exactly where serving has a sketch, and of all hosts together. A user counts once for an item within a half life
there as here, and what was trending is looked up as often.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from jobs.moments import ids_by_index
from prediction_store.reader import Version
from reranker.decayed_counts import HALF_LIFE_SECONDS, QUIET_SECONDS
from reranker.trending_now import REFRESH_SECONDS, Trending, trending_of

SPAN_SECONDS = QUIET_SECONDS
"""What is older counts for less than a two hundred and fiftieth."""


class Events(NamedTuple):
    """What users did, by time: arrays of one length."""

    user: np.ndarray  # int[n]: a number for each user
    item: np.ndarray  # int[n], place in `items`
    time: np.ndarray  # int64[n], epoch seconds
    items: Sequence[str]


class TrendingThen:
    """What was trending, as a version sees it; every item that it lacks counts as announced."""

    def __init__(self, version: Version, events: Events) -> None:
        self._version = version
        places = version.indexes_of(events.items)
        self.others = [item for item, place in zip(events.items, places, strict=True) if place is None]
        """Ids of the items that the version lacks."""
        behind = itertools.count(version.n_items)  # behind the items of the version
        dense = np.array([next(behind) if place is None else place for place in places], np.int64)[events.item]
        window = events.time // int(HALF_LIFE_SECONDS)
        order = np.lexsort((events.time, window, events.user, dense))
        keys = np.stack([dense[order], events.user[order], window[order]])
        is_first = np.append([True], (np.diff(keys, axis=1) != 0).any(axis=0))[: len(order)]
        kept = np.sort(order[is_first])  # the first of each user, item and window, by time again
        self._time, self._dense = events.time[kept], dense[kept]
        self._since = _begun(self._dense, self._time)
        self._found: dict[int, Trending | None] = {}

    def at(self, now: float) -> Trending | None:
        """What was trending at a time; None: nothing."""
        look = int(now // REFRESH_SECONDS)
        if look not in self._found:
            self._found[look] = self._look(look * REFRESH_SECONDS)
        return self._found[look]

    def _look(self, now: float) -> Trending | None:
        first, last = np.searchsorted(self._time, [now - SPAN_SECONDS, now])
        worth = np.exp2((self._time[first:last] - now) / HALF_LIFE_SECONDS)
        every, since = np.zeros((2, self._version.n_items + len(self.others)))
        np.add.at(every, self._dense[first:last], worth)
        np.maximum.at(since, self._dense[first:last], self._since[first:last])
        known, others = np.split(every, [self._version.n_items])
        return trending_of("", known, others, self.others, since[self._version.n_items :])


def _begun(item: np.ndarray, time: np.ndarray) -> np.ndarray:
    """float64[n]: for each event when its item began to count, see `DecayedCounts.since`; events by time."""
    order = np.argsort(item, kind="stable")
    is_other = np.diff(item[order], prepend=-1) != 0
    is_first = is_other | (np.diff(time[order], prepend=0) >= QUIET_SECONDS)
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    found = np.empty(len(order))
    found[order] = time[order][first]
    return found


def events_of(prepared: Path, *, since: int, until: int) -> Events:
    """The interactions from so long before `since` as they count, and before `until`, that say something.

    Args:
        prepared: the dataset of this name.
    """
    time, weight = (pa.dataset.field(name) for name in ("time", "weight"))
    wanted = (time >= since - int(SPAN_SECONDS)) & (time < until) & (weight > 0)
    columns = ["user_index", "item_index", "time"]
    found = pa.dataset.dataset(prepared / "interactions", format="parquet").to_table(columns=columns, filter=wanted)
    user, item, at = (found[name].to_numpy() for name in columns)
    order = np.argsort(at, kind="stable")
    return Events(user[order], item[order], at[order], ids_by_index(prepared, "item").to_pylist())
