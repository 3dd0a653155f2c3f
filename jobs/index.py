"""The item index: clusters, the dense order that follows them, and the search for the best items of many users.

The dot products are exact (see `vectors.on_grid`) and equal scores go to the lower dense index, so a user's list does
not depend on who else is in the batch, on the number of tasks or on the machine. Small catalogues are searched as one
matrix product; large ones through the inverted lists of a FAISS index, whose finds are scored again in the same way.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from jobs.vectors import on_grid, unit

SEED = 1
KMEANS_ROUNDS = 10
POINTS_PER_CLUSTER = 64
"""Vectors that k-means looks at, per cluster: beyond this the clusters hardly move, and the time grows."""

MAX_CELLS = 1 << 22
"""Scores held at a time: 16 MiB of them and twice that of sort keys, whatever the catalogue."""
MAX_ITEM_ROWS = 1 << 13

MARGIN = 32
"""Items fetched from FAISS beyond those needed, so that what its float32 sums put just behind the cut is looked at."""

NO_ITEM = np.float32(-np.inf)


class Clusters(NamedTuple):
    """Items grouped by direction. Clusters are numbered so that one and the next are near each other."""

    of_item: np.ndarray  # int32[n]
    centres: np.ndarray  # float32[clusters, d], of length 1


class Ragged(NamedTuple):
    """Rows of different lengths: row i is values[offsets[i]:offsets[i + 1]]."""

    offsets: np.ndarray  # int64[rows + 1]
    values: np.ndarray


class Found(NamedTuple):
    """The best items of each query, best first; row i is offsets[i]:offsets[i + 1] of both arrays."""

    offsets: np.ndarray  # int32[queries + 1]
    items: np.ndarray  # int32, dense index
    scores: np.ndarray  # float32, finite


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ItemIndex:
    """What a search needs, memory-mapped. `ivf` is None for an exact search."""

    vectors: np.ndarray  # float32[n, d], on the grid
    representatives: np.ndarray  # float32[lists, d], on the grid: what decides which lists a query probes
    list_of: np.ndarray  # int32[n]: the list of each dense index, ascending
    dense_of: np.ndarray  # int32[n]: item_index to dense index
    ivf: faiss.IndexIVFFlat | None


def default_lists(items: int) -> int:
    """4·√items, the number of inverted lists that the FAISS guidelines start from."""
    return max(1, min(items, round(4 * math.sqrt(items))))


def cluster(vectors: np.ndarray, clusters: int) -> Clusters:
    """Group the rows of float32[n, d] by direction: spherical k-means with a fixed seed.

    Directions, because with unequal lengths the longest centres of a plain k-means attract everything.
    """
    directions = unit(vectors)
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        min(clusters, len(vectors)),
        niter=KMEANS_ROUNDS,
        seed=SEED,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=POINTS_PER_CLUSTER,
    )
    kmeans.train(directions)
    _, nearest = kmeans.index.search(directions, 1)  # [n, 1]
    chain = _chain(kmeans.centroids)
    number = np.empty(len(chain), dtype=np.int32)
    number[chain] = np.arange(len(chain), dtype=np.int32)
    return Clusters(number[nearest[:, 0]], kmeans.centroids[chain])


def dense_order(clusters: Clusters, popularity: np.ndarray) -> np.ndarray:
    """int32[n]: the items by cluster, in a cluster by popularity, at equal popularity by item_index."""
    return np.lexsort((np.arange(len(popularity)), -popularity, clusters.of_item)).astype(np.int32)


def build(folder: Path, vectors: np.ndarray, order: np.ndarray, clusters: Clusters, *, exact: bool) -> None:
    """Write the index of float32[n, d] `vectors` (row = item_index) into a folder, order.npy among its files."""
    dense = on_grid(vectors[order])
    assigned = clusters.of_item[order]
    np.save(folder / "order.npy", order)
    np.save(folder / "vectors.npy", dense)
    np.save(folder / "list_of.npy", assigned)
    np.save(folder / "centres.npy", clusters.centres)
    np.save(folder / "representatives.npy", _representatives(dense, assigned, clusters.centres))
    if exact:
        return
    dimensions = vectors.shape[1]
    quantizer = faiss.IndexFlatIP(dimensions)
    quantizer.add(clusters.centres)
    ivf = faiss.IndexIVFFlat(quantizer, dimensions, len(clusters.centres), faiss.METRIC_INNER_PRODUCT)
    assigned = assigned.astype(np.int64)
    ivf.add_core(len(dense), faiss.swig_ptr(dense), None, faiss.swig_ptr(assigned))
    faiss.write_index(ivf, str(folder / "ivf.faiss"))


@functools.lru_cache(maxsize=2)
def open_index(folder: str, token: str) -> ItemIndex:
    """The index in `folder`, opened once per process. `token` tells it from others that were in that folder before."""
    path = Path(folder)
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    ivf = path / "ivf.faiss"
    return ItemIndex(
        np.load(path / "vectors.npy", mmap_mode="r"),
        np.load(path / "representatives.npy", mmap_mode="r"),
        np.load(path / "list_of.npy", mmap_mode="r"),
        inverse(np.load(path / "order.npy")),
        faiss.read_index(str(ivf), flags) if ivf.exists() else None,
    )


def inverse(order: np.ndarray) -> np.ndarray:
    """int32[n]: item_index to dense index, from dense index to item_index."""
    dense_of = np.empty_like(order)
    dense_of[order] = np.arange(len(order), dtype=order.dtype)
    return dense_of


def token_of(folder: Path) -> str:
    """What tells the index now in `folder` from any other there: the identity of its file on disk."""
    facts = (folder / "vectors.npy").stat()
    return f"{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}"


def search(index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int, *, probes: int) -> Found:
    """The k items with the largest dot product for each query; fewer where fewer are left.

    Args:
        queries: float32[m, d], finite.
        excluded: for each query the dense indexes that must not be found. Repeats are allowed.
        probes: inverted lists looked into per query; without meaning for an exact search.
    """
    queries = on_grid(queries)
    rows = _search_exact if index.ivf is None else functools.partial(_search_lists, probes=probes)
    items, scores = rows(index, queries, excluded, k)  # [m, ≤ k] each
    is_item = scores > NO_ITEM
    offsets = np.zeros(len(queries) + 1, dtype=np.int32)
    np.cumsum(is_item.sum(axis=1), out=offsets[1:])
    return Found(offsets, items[is_item], scores[is_item])


def calibrate(index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int, recall: float) -> int:
    """The fewest lists to probe with which the queries find the share `recall` of their exact best k."""
    lists = len(index.representatives)
    best = search(_exactly(index), queries, excluded, k, probes=0)
    order, _ = best_columns(_scores(on_grid(queries), index.representatives), lists)
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(lists, dtype=order.dtype)[None, :], axis=1)
    row = np.repeat(np.arange(len(queries)), np.diff(best.offsets))
    needed = np.sort(place[row, index.list_of[best.items]])  # lists a query probes until it meets each best item
    return int(needed[math.ceil(recall * len(needed)) - 1]) + 1 if len(needed) and recall > 0 else 1


def measure_recall(index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int, *, probes: int) -> float:
    """Share of the exact best k that the search finds; 1.0 for an exact index."""
    if index.ivf is None:
        return 1.0
    best = search(_exactly(index), queries, excluded, k, probes=0)
    found = search(index, queries, excluded, k, probes=probes)
    items = len(index.vectors)
    keys = [np.repeat(np.arange(len(queries)), np.diff(f.offsets)) * items + f.items for f in (best, found)]
    return float(np.isin(*keys).mean()) if len(keys[0]) else 1.0


def best_columns(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32[m, k'], float32[m, k']): column and value of each row's k largest, equal values by column.

    One unsigned key holds both, so that a partial sort settles ties as well: the value's bits, turned so that larger
    values come first, above the column.
    """
    k = min(k, scores.shape[1])
    bits = (scores + np.float32(0)).view(np.uint32)  # the addition turns -0 into 0
    keys = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF)).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(scores.shape[1], dtype=np.uint64)
    if 0 < k < scores.shape[1]:
        keys.partition(k - 1, axis=1)
    best = np.sort(keys[:, :k], axis=1)
    high = (best >> np.uint64(32)).astype(np.uint32)
    values = np.where(high >> 31, high, ~high & np.uint32(0x7FFFFFFF)).view(np.float32)
    return best.astype(np.uint32).astype(np.int32), values


def _search_exact(index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int) -> tuple[np.ndarray, np.ndarray]:
    items, width = len(index.vectors), min(k, len(index.vectors))
    found = np.empty((len(queries), width), dtype=np.int32)
    values = np.empty((len(queries), width), dtype=np.float32)
    step = max(1, MAX_CELLS // max(items, 1))
    for start in range(0, len(queries), step):
        stop = min(start + step, len(queries))
        scores = _scores(queries[start:stop], index.vectors)
        offsets = excluded.offsets[start : stop + 1]
        row = np.repeat(np.arange(stop - start), np.diff(offsets))
        scores[row, excluded.values[offsets[0] : offsets[-1]]] = NO_ITEM
        found[start:stop], values[start:stop] = best_columns(scores, k)
    return found, values


def _search_lists(
    index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int, *, probes: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `_search_exact`, in the probed lists. Each query fetches as many more items as it excludes.

    Queries are grouped by how many they fetch, and never by what else is in the batch: FAISS may keep another one of
    several items that tie at the cut when it is asked for more.
    """
    probes = min(probes, len(index.representatives))
    found = np.zeros((len(queries), k), dtype=np.int32)
    values = np.full((len(queries), k), NO_ITEM, dtype=np.float32)
    more = _round_up(np.diff(excluded.offsets))
    for extra in np.unique(more):
        fetch = min(k + int(extra) + MARGIN, len(index.vectors))
        group = np.flatnonzero(more == extra)
        step = max(1, MAX_CELLS // (fetch + len(index.representatives)))
        for rows in np.split(group, range(step, len(group), step)):
            fetched = _fetch(index, queries[rows], fetch, probes)
            scores = _rescore(index.vectors, queries[rows], fetched)
            for place, row in enumerate(rows):
                unwanted = excluded.values[excluded.offsets[row] : excluded.offsets[row + 1]]
                scores[place, np.isin(fetched[place], unwanted)] = NO_ITEM
            # Columns must be in item order for ties to go to the lower item.
            order = np.argsort(fetched, axis=1)
            column, best = best_columns(np.take_along_axis(scores, order, axis=1), k)
            width = column.shape[1]
            items = np.take_along_axis(np.take_along_axis(fetched, order, axis=1), column, axis=1)
            found[rows, :width], values[rows, :width] = items, best
    return found, values


def _fetch(index: ItemIndex, queries: np.ndarray, fetch: int, probes: int) -> np.ndarray:
    """int64[m, fetch] dense indexes, -1 where the lists held fewer.

    The lists are chosen here: FAISS would choose by a float32 product that changes with the size of the batch.
    """
    assert index.ivf is not None
    lists, closeness = best_columns(_scores(queries, index.representatives), probes)
    index.ivf.nprobe = probes
    _, fetched = index.ivf.search_preassigned(queries, fetch, lists.astype(np.int64), closeness)
    return fetched


def _rescore(vectors: np.ndarray, queries: np.ndarray, fetched: np.ndarray) -> np.ndarray:
    scores = np.empty(fetched.shape, dtype=np.float32)
    for row, items in enumerate(fetched):
        scores[row] = vectors[items].astype(np.float64) @ queries[row].astype(np.float64)
    scores[fetched < 0] = NO_ITEM
    return scores


def _scores(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float32[m, n]: exact dot products of rows on the grid, rounded once."""
    wide = queries.astype(np.float64)
    scores = np.empty((len(queries), len(vectors)), dtype=np.float32)
    for start in range(0, len(vectors), MAX_ITEM_ROWS):
        block = vectors[start : start + MAX_ITEM_ROWS].astype(np.float64)
        scores[:, start : start + len(block)] = wide @ block.T
    return scores


def _exactly(index: ItemIndex) -> ItemIndex:
    return dataclasses.replace(index, ivf=None)


def _representatives(dense: np.ndarray, assigned: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """What stands for each list when lists are probed: its centre, as long as its longest vector.

    With vectors of unequal length the best inner product hides in the list of a long one; the centre alone, or the
    mean of the list, found 1 to 6 % less of the exact best 1,000 at equal cost.
    """
    longest = np.zeros(len(centres), dtype=np.float32)
    np.maximum.at(longest, assigned, np.linalg.norm(dense, axis=1))
    return on_grid(centres * longest[:, None])


def _chain(centres: np.ndarray) -> np.ndarray:
    """int[clusters]: a walk from centre to the nearest one not yet visited."""
    closeness = centres @ centres.T
    chain = np.zeros(len(centres), dtype=np.int64)
    is_free = np.ones(len(centres), dtype=bool)
    for place in range(len(centres)):
        is_free[chain[place]] = False
        if place + 1 < len(centres):
            chain[place + 1] = np.argmax(np.where(is_free, closeness[chain[place]], -np.inf))
    return chain


def _round_up(counts: np.ndarray) -> np.ndarray:
    """The next power of two; 0 stays 0."""
    return np.where(counts > 0, 1 << np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64), 0)
