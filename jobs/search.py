"""The search for the best items of many queries, by matrix products of lists of items with all who look into them.

1. For each query, the lists that promise most, until some multiple of k items is seen. The k-th best score of these is
   the query's floor: nothing below it can be among the best k.
2. A list is looked into when its mean and `reach` times its spread get to the floor. `reach` is calibrated: with
   infinity every list is looked into, and the search is exact.
3. For each list one matrix product with all the queries that look into it. Scores below a query's floor, by far the
   most, are dropped as they come; there is no heap.
4. What is left is scored again, exactly (`vectors.on_grid`), and the best k of it are sorted.

Which lists a query looks into is decided by exact numbers too. So its list depends neither on who else is in the
batch, nor on the number of tasks, nor on the machine; equal scores go to the lower item_index, which does not depend
on how items are grouped.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from jobs import probes, top_k
from jobs.index import ItemIndex
from jobs.vectors import on_grid

MAX_QUERIES = 4096
"""Queries at a time: more of them share a product, and each takes some 20 KB at k = 1,000."""
MAX_WIDTH = 512
"""Items in a product."""
MAX_CELLS = 1 << 16
"""Scores in a product: 256 KiB, half of the second-level cache of a small core."""
MIN_WIDTH = 64
"""A narrower product has no more queries than one of this width."""
BOUND_QUERIES = 256

FIRST_ITEMS = 3
"""Items seen for the floor, as a multiple of k: with 8 the floor is higher, and the work about the same."""
LEAST_FIRST_ITEMS = 1024
FIRST_REACH = 2.5


class Ragged(NamedTuple):
    """Rows of different lengths: row i is values[offsets[i]:offsets[i + 1]]."""

    offsets: np.ndarray  # int64[rows + 1]
    values: np.ndarray


class Found(NamedTuple):
    """The best items of each query, best first; row i is offsets[i]:offsets[i + 1] of both arrays."""

    offsets: np.ndarray  # int32[queries + 1]
    items: np.ndarray  # int32, dense index
    scores: np.ndarray  # float32, finite


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """How to search."""

    name: str = "exact"
    """exact, grouped, hnsw or ivfpq."""
    reach: float = math.inf
    """grouped: how many spreads above its mean the items of a list are expected to be."""
    probes: int = 0
    """grouped, ivfpq: lists looked into, whatever the floor; 0: as `reach` says. hnsw: breadth of the search."""


EXACT = Method()


def search(index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int, method: Method = EXACT) -> Found:
    """The k items with the largest dot product for each query; fewer where fewer are left.

    Args:
        queries: float32[m, d], finite.
        excluded: for each query the dense indexes that must not be found. Repeats are allowed.
    """
    queries = on_grid(queries)
    excluded = _ascending(excluded, len(index.vectors))
    k = min(k, len(index.vectors))
    keys = np.empty((len(queries), k), dtype=np.uint64)
    for start in range(0, len(queries), MAX_QUERIES):
        stop = min(start + MAX_QUERIES, len(queries))
        some = queries[start:stop], _rows_of(excluded, start, stop)
        if method.name in ("exact", "grouped"):
            batch = _Batch(index, *some, k)
            batch.search(method)
            batch.best(keys[start:stop])
        else:
            from jobs import approximate

            keys[start:stop] = approximate.best(index, *some, k, method)
    return _found(keys, index.dense_of)


def reach_needed(index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int) -> np.ndarray:
    """float64[m, lists]: the least `reach` with which each query looks into each list; -inf: it always does."""
    one = _Batch(index, on_grid(queries), _ascending(excluded, len(index.vectors)), min(k, len(index.vectors)))
    bounds, first = one.bounds, one.first_lists()
    floors = one.look_first(first)
    spans = np.outer(_lengths_of(one.asked.wide), index.spreads)  # [m, lists]
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = FIRST_REACH + (floors[:, None] - bounds.astype(np.float64)) / spans
    needed[spans == 0] = np.where(floors[:, None] <= bounds, -np.inf, np.inf)[spans == 0]
    needed[first] = -np.inf
    return needed


def list_bounds(index: ItemIndex, wide: np.ndarray) -> np.ndarray:
    """float32[m, lists]: where the best items of each list may be expected, for float64[m, d] queries on the grid.

    The mean and some spreads more. Exact sums, rounded: the same in any batch.
    """
    bounds = np.empty((len(wide), index.lists), dtype=np.float32)
    means = index.means.astype(np.float64).T
    spans = FIRST_REACH * _lengths_of(wide)[:, None]
    for start in range(0, len(wide), BOUND_QUERIES):
        part = slice(start, start + BOUND_QUERIES)
        bounds[part] = wide[part] @ means + spans[part] * index.spreads
    return bounds


def asked(index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int) -> top_k.Asked:
    """What the compiled loops need to know.

    Source of the error of a float32 sum: Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1; with
    room for a few roundings more and for products too small for a float32.
    """
    wide = queries.astype(np.float64)
    dimensions = queries.shape[1]
    slack = (dimensions + 8) * 2.0**-24 * _lengths_of(wide) * index.longest + dimensions * 2.0**-125
    return top_k.Asked(
        wide, slack.astype(np.float32), excluded.offsets, excluded.values, index.vectors, index.item_of, k
    )


def _lengths_of(wide: np.ndarray) -> np.ndarray:
    """float64[m]: the lengths of float64[m, d] queries on the grid; exact, but for the root."""
    return np.sqrt(np.square(wide).sum(axis=1))


def _rows_of(ragged: Ragged, start: int, stop: int) -> Ragged:
    """Some of the rows."""
    first, last = ragged.offsets[start], ragged.offsets[stop]
    return Ragged(ragged.offsets[start : stop + 1] - first, ragged.values[first:last])


class _Batch:
    """A search in progress: its queries, and for each of them the items found so far and what a score must reach."""

    def __init__(self, index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int) -> None:
        m, dimensions = queries.shape
        self.index, self.queries = index, queries
        self.asked = asked(index, queries, excluded, k)
        room = top_k.room_for(k, MAX_WIDTH)
        self.seen = top_k.Seen(
            items=np.empty((m, room), dtype=np.int32),
            scores=np.empty((m, room), dtype=np.float32),
            counts=np.zeros(m, dtype=np.int32),
            floors=np.full(m, -np.inf, dtype=np.float32),
        )
        self.bounds = list_bounds(index, self.asked.wide)
        self._gathered = np.empty((MAX_CELLS // MIN_WIDTH, dimensions), dtype=np.float32)
        self._cells = np.empty(MAX_CELLS, dtype=np.float32)

    def search(self, method: Method) -> None:
        """Fill the buffers with what can be among the best."""
        lists = self.index.lists
        if method.name == "grouped" and method.probes:
            chosen = np.zeros((len(self.queries), lists), dtype=np.bool_)
            probes.largest(self.bounds, min(method.probes, lists), chosen)
            self.look_into(chosen)
            return
        first = self.first_lists()
        floors = self.look_first(first)
        if method.name == "grouped":
            spans = (method.reach - FIRST_REACH) * _lengths_of(self.asked.wide)
            self.look_into(probes.reaching(self.bounds, spans, self.index.spreads, floors, first))
        else:
            self.seen.counts[:] = 0  # the floor stays: what was seen comes again with everything else
            self.look_at_all()

    def first_lists(self) -> np.ndarray:
        """bool[m, lists]: the lists that promise most, as many as hold a few times k items."""
        chosen = np.zeros((len(self.queries), self.index.lists), dtype=np.bool_)
        wanted = np.diff(self.asked.offsets) + max(FIRST_ITEMS * self.asked.k, LEAST_FIRST_ITEMS)
        probes.first_lists(self.bounds, np.diff(self.index.starts), wanted, chosen)
        return chosen

    def look_first(self, first: np.ndarray) -> np.ndarray:
        """float32[m]: the exact k-th best score among the items of the first lists, -inf where there are fewer."""
        self.look_into(first)
        return top_k.settle(self.asked, self.seen)

    def look_into(self, chosen: np.ndarray) -> None:
        """Look into the lists that bool[m, lists] marks."""
        offsets, rows = probes.by_list(chosen)
        for number in np.flatnonzero(np.diff(offsets)):
            begin, end = int(self.index.starts[number]), int(self.index.starts[number + 1])
            self._multiply(rows[offsets[number] : offsets[number + 1]], begin, end, gather=True)

    def look_at_all(self) -> None:
        """Look at every item."""
        rows = np.arange(len(self.queries), dtype=np.int32)
        self._multiply(rows, 0, len(self.index.vectors), gather=False)

    def best(self, keys: np.ndarray) -> None:
        """Fill uint64[m, k] with the best of what the buffers hold, sorted."""
        top_k.best_keys(self.asked, self.seen, keys)
        keys.sort(axis=1)

    def _multiply(self, rows: np.ndarray, begin: int, end: int, *, gather: bool) -> None:
        """The products of these queries with a slice of the items, block by block."""
        for start in range(begin, end, MAX_WIDTH):
            width = min(MAX_WIDTH, end - start)
            block = self.index.vectors[start : start + width].T
            height = MAX_CELLS // max(width, MIN_WIDTH)
            for place in range(0, len(rows), height):
                some = rows[place : place + height]
                cells = self._cells[: len(some) * width].reshape(len(some), width)
                if gather:
                    queries = np.take(self.queries, some, axis=0, out=self._gathered[: len(some)], mode="clip")
                else:
                    queries = self.queries[place : place + height]
                np.matmul(queries, block, out=cells)
                top_k.take_above(cells, some, start, self.asked, self.seen)


def _ascending(excluded: Ragged, items: int) -> Ragged:
    """The same rows, sorted and without repeats."""
    row = np.repeat(np.arange(len(excluded.offsets) - 1, dtype=np.int64), np.diff(excluded.offsets))
    keys = np.unique(row * items + excluded.values)
    counts = np.bincount(keys // items, minlength=len(excluded.offsets) - 1)
    return Ragged(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), (keys % items).astype(np.int32))


def _found(keys: np.ndarray, dense_of: np.ndarray) -> Found:
    """What sorted keys say: see `top_k.best_keys`."""
    offsets = np.zeros(len(keys) + 1, dtype=np.int32)
    np.cumsum((keys != top_k.NO_KEY).sum(axis=1), out=offsets[1:])
    items = np.empty(offsets[-1], dtype=np.int32)
    scores = np.empty(offsets[-1], dtype=np.float32)
    top_k.read_keys(keys, dense_of, offsets, items, scores)
    return Found(offsets, items, scores)
