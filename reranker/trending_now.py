"""What is trending now: the items that most users have done something with in the last hours, as a version sees them.

A version knows what was trending last night. Where what people want changes within the day, that is late: half of what
is read on a news site was written since. So events count (`decayed_counts`), and every REFRESH_SECONDS the first few
items are candidates for everybody, and their counts a signal. Items that the version lacks have no signals; they are
looked up all the same, for answers have them among the others (`arrivals`). What was trending is written into the
log under a number, which an answer names: so it can be made again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from reranker.arrays import NO_NUMBERS, Float32, Indexes, Positions, contains
from reranker.decayed_counts import ROWS, DecayedCounts, cells_of
from reranker.serving_log.records import TrendingRecord

if TYPE_CHECKING:
    from prediction_store.reader import Version

REFRESH_SECONDS: Final = 30.0
MOST: Final = 200
"""Items that are trending at a time."""
LEAST: Final = 1 / 64
"""An item that counts less is not trending: what one user did a day and a half ago has been forgotten."""
FEW: Final = 4.0
"""So many users and fewer are not many, even if nothing else counts more."""
LEAST_ARRIVED: Final = 1.0
"""An arrival that counts less is not shown: what a single user did a moment ago counts less already."""
_KEPT: Final = "trending now"
_ARRIVED: Final = "cells of arrivals"
NO_TIMES: Final = np.zeros(0)


class Trending(NamedTuple):
    """What is trending at some moment, in one version. Never changes."""

    number: str
    """Names it in the log; empty where it is in none."""
    items: Indexes
    """uint32[m]: most first"""
    counts: Float32
    """float32[n_items]: log(1 + count) as a share of the highest, or of FEW; 0 for what is not trending"""
    arrivals: Sequence[str] = ()
    """Items that the version lacks, most first."""
    arrived: Float32 = NO_NUMBERS
    """float32[arrivals]: their counts, as they are"""
    since: npt.NDArray[np.float64] = NO_TIMES
    """float64[arrivals]: when they began to count, in epoch seconds"""

    @classmethod
    def of(cls, version: Version, record: TrendingRecord) -> Self:
        """What a log says of it; items that the version does not know are left out of those that it should."""
        places = [version.item_index(item) for item in record.items]
        known = np.array([place for place in places if place is not None], np.uint32)
        every = np.zeros(version.n_items, np.float32)
        every[known] = np.frombuffer(record.counts, "<f4")[[place is not None for place in places]]
        since = np.frombuffer(record.since, "<f8")
        if len(since) < len(record.arrivals):  # of an older log
            since = np.full(len(record.arrivals), record.time)
        return cls(record.number, known, every, record.arrivals, np.frombuffer(record.arrived, "<f4"), since)

    def beside(self, known: Indexes, count: int) -> Indexes:
        """uint32[at most count]: the first items, most first, without those that are known."""
        first, few = self.items[:count], known[self.counts[known] > 0.0]
        return first[~contains(np.sort(few), first)]


def first_of(counts: npt.NDArray[np.float64], least: float = LEAST) -> Indexes:
    """uint32[at most MOST]: the items of the highest counts, most first, of equal ones the lower index.

    Args:
        counts: float64[n_items]
        least: what counts less is none of them.
    """
    found = np.flatnonzero(counts >= least)
    if found.size > MOST:
        least = np.partition(counts[found], found.size - MOST)[found.size - MOST]
        found = found[counts[found] >= least]
    return found[np.argsort(-counts[found], kind="stable")[:MOST]].astype(np.uint32)


def shares_of(counts: npt.NDArray[np.float64]) -> Float32:
    """float32[m]: what stands in `Trending.counts` for the counts of what is trending, most first."""
    shares: Float32 = (np.log1p(counts) / np.log1p(counts.max(initial=FEW))).astype(np.float32)
    return shares


def trending_of(
    number: str,
    counts: npt.NDArray[np.float64],
    of_arrivals: npt.NDArray[np.float64],
    arrivals: Sequence[str],
    since: npt.NDArray[np.float64],
) -> Trending | None:
    """What is trending by its counts; None: nothing is.

    Args:
        counts: float64[n_items] of the version's items.
        of_arrivals: float64[m] of the arrivals.
        since: float64[m], when these began to count, in epoch seconds.
    """
    items, arrived = first_of(counts), first_of(of_arrivals, LEAST_ARRIVED)
    if not items.size and not arrived.size:
        return None
    every = np.zeros(counts.size, np.float32)
    every[items] = shares_of(counts[items])
    names = [arrivals[place] for place in arrived.tolist()]
    return Trending(number, items, every, names, of_arrivals[arrived].astype(np.float32), since[arrived])


class TrendingNow:
    """What is trending by the counts of this host; looked up anew after REFRESH_SECONDS."""

    def __init__(
        self, counts: DecayedCounts, now: Callable[[], float], found: Callable[[TrendingRecord], None] | None = None
    ) -> None:
        """`found` hears of everything that is trending, before anything is answered with it."""
        self._counts = counts
        self._now = now
        self._found = found

    def of(self, version: Version, arrivals: Collection[str] = ()) -> Trending | None:
        """What is trending now. Cost: once in REFRESH_SECONDS some milliseconds, 15 for a million items.

        `arrivals` are the items beside those of the version that may be.
        Requires: the version stays open until this returns.
        """
        now = self._now()
        looked_at, trending = version.kept.get((self, _KEPT), (-np.inf, None))
        if not 0.0 <= now - looked_at < REFRESH_SECONDS:
            trending = self._look(version, [*arrivals], now)
            version.kept[self, _KEPT] = now, trending
        found: Trending | None = trending
        return found

    def prepare(self, version: Version, arrivals: Collection[str] = ()) -> None:
        """Find where the counts of a version's items, and of arrivals, stand: some seconds for a million of them."""
        if _KEPT not in version.kept:
            version.kept[_KEPT] = cells_of(version.item_ids(np.arange(version.n_items)))
        _cells_of_arrivals(version, [*arrivals])

    def _look(self, version: Version, arrivals: Sequence[str], now: float) -> Trending | None:
        self.prepare(version)
        counts = self._counts.of(version.kept[_KEPT], now)
        of_arrivals, since = NO_TIMES, NO_TIMES
        if arrivals:
            cells = _cells_of_arrivals(version, arrivals)
            of_arrivals, since = self._counts.of(cells, now), self._counts.since(cells)
        found = trending_of(secrets.token_hex(8), counts, of_arrivals, arrivals, since)
        if found is not None and self._found is not None:
            ids, shares = version.item_ids(found.items), found.counts[found.items].tobytes()
            arrived, began = found.arrived.tobytes(), found.since.tobytes()
            self._found(TrendingRecord(found.number, now, ids, shares, [*found.arrivals], arrived, began))
        return found


def _cells_of_arrivals(version: Version, arrivals: Sequence[str]) -> Positions:
    """int64[ROWS, n]: where their counts stand; found once for each, as long as the version is served."""
    known: dict[str, list[int]] = version.kept.setdefault(_ARRIVED, {})
    others = [item for item in arrivals if item not in known]
    known.update(zip(others, cells_of(others).T.tolist(), strict=True))
    return np.array([known[item] for item in arrivals], np.int64).reshape(-1, ROWS).T
