"""What is trending now: the items that most users have done something with in the last hours, as a version sees them.

A version knows what was trending last night. Where what people want changes within the day, that is late: half of what
is read on a news site was written since. So events count (`decayed_counts`), and every REFRESH_SECONDS the first few
items are candidates for everybody, and their counts a signal. What they were is written into the log under a number,
which an answer names: so it can be made again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from reranker.arrays import Float32, Indexes, contains
from reranker.decayed_counts import DecayedCounts, cells_of
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
_KEPT: Final = "trending now"


class Trending(NamedTuple):
    """What is trending at some moment, in one version. Never changes."""

    number: str
    """Names it in the log; empty where it is in none."""
    items: Indexes
    """uint32[m]: most first"""
    counts: Float32
    """float32[n_items]: log(1 + count) as a share of the highest, or of FEW; 0 for what is not trending"""

    @classmethod
    def of(cls, version: Version, number: str, items: Sequence[str], counts: Float32) -> Self:
        """Of ids and what is to stand in `counts`; ids that the version does not know are left out."""
        places = [version.item_index(item) for item in items]
        known = np.array([place for place in places if place is not None], np.uint32)
        every = np.zeros(version.n_items, np.float32)
        every[known] = counts[[place is not None for place in places]]
        return cls(number, known, every)

    def beside(self, known: Indexes, count: int) -> Indexes:
        """uint32[at most count]: the first items, most first, without those that are known."""
        first, few = self.items[:count], known[self.counts[known] > 0.0]
        return first[~contains(np.sort(few), first)]


def first_of(counts: npt.NDArray[np.float64]) -> Indexes:
    """uint32[at most MOST]: the items of the highest counts, most first, of equal ones the lower index.

    Args:
        counts: float64[n_items]
    """
    found = np.flatnonzero(counts >= LEAST)
    if found.size > MOST:
        least = np.partition(counts[found], found.size - MOST)[found.size - MOST]
        found = found[counts[found] >= least]
    return found[np.argsort(-counts[found], kind="stable")[:MOST]].astype(np.uint32)


def shares_of(counts: npt.NDArray[np.float64]) -> Float32:
    """float32[m]: what stands in `Trending.counts` for the counts of what is trending, most first."""
    shares: Float32 = (np.log1p(counts) / np.log1p(max(float(counts[0]), FEW))).astype(np.float32)
    return shares


class TrendingNow:
    """What is trending by the counts of this host; looked up anew after REFRESH_SECONDS."""

    def __init__(
        self, counts: DecayedCounts, now: Callable[[], float], found: Callable[[TrendingRecord], None] | None = None
    ) -> None:
        """`found` hears of everything that is trending, before anything is answered with it."""
        self._counts = counts
        self._now = now
        self._found = found

    def of(self, version: Version) -> Trending | None:
        """What is trending now. Cost: once in REFRESH_SECONDS some milliseconds, 15 for a million items.

        Requires: the version stays open until this returns.
        """
        now = self._now()
        looked_at, trending = version.kept.get((self, _KEPT), (-np.inf, None))
        if not 0.0 <= now - looked_at < REFRESH_SECONDS:
            trending = self._look(version, now)
            version.kept[self, _KEPT] = now, trending
        found: Trending | None = trending
        return found

    def prepare(self, version: Version) -> None:
        """Find where the counts of a version's items stand: some seconds for a million of them."""
        if _KEPT not in version.kept:
            version.kept[_KEPT] = cells_of(version.item_ids(np.arange(version.n_items)))

    def _look(self, version: Version, now: float) -> Trending | None:
        self.prepare(version)
        counts = self._counts.of(version.kept[_KEPT], now)
        items = first_of(counts)
        if not items.size:
            return None
        shares = shares_of(counts[items])
        every = np.zeros(version.n_items, np.float32)
        every[items] = shares
        trending = Trending(secrets.token_hex(8), items, every)
        if self._found is not None:
            self._found(TrendingRecord(trending.number, now, version.item_ids(items), shares.tobytes()))
        return trending
