"""Graph and product-quantised indexes of FAISS, for catalogues whose vectors exceed memory.

They are chosen by `retrieve.method`, never by `auto`: where the vectors fit, the grouped search finds more in less
time. The index file is memory-mapped, as are the vectors, of which only the rows of what was found are read: to score
it exactly.
"""

from __future__ import annotations

import functools
from pathlib import Path

import faiss
import numpy as np

from jobs import probes, top_k
from jobs.index import ItemIndex, list_of, token_of
from jobs.search import Method, Ragged, asked, list_bounds

LINKS = 32
CONSTRUCTION_BREADTH = 80
FETCH = {"hnsw": 1, "ivfpq": 4}
"""Items fetched, as a multiple of those wanted: quantised scores order them badly."""
MARGIN = 32
TRAINING_ITEMS = 1 << 16
SEED = 1


def build(index: ItemIndex, name: str) -> None:
    """Write the FAISS index of kind `name`, hnsw or ivfpq, beside the other files of an item index."""
    faiss.write_index(_hnsw(index) if name == "hnsw" else _ivfpq(index), str(_path(index.folder, name)))


def best(index: ItemIndex, queries: np.ndarray, excluded: Ragged, k: int, method: Method) -> np.ndarray:
    """uint64[m, k]: the sorted keys (see `top_k.best_keys`) of the items that FAISS finds for each query.

    Queries are grouped by how many items they exclude, never by what else is in the batch: FAISS may keep another one
    of several items that tie at the cut when it is asked for more.
    """
    keys = np.empty((len(queries), k), dtype=np.uint64)
    more = np.diff(excluded.offsets)
    for extra in np.unique(more):
        rows = np.flatnonzero(more == extra)
        fetch = min(k * FETCH[method.name] + int(extra) + MARGIN, len(index.vectors))
        question = asked(index, queries[rows], excluded, k)
        finds = _finds(index, queries[rows], question.wide, fetch, method)
        seen = top_k.Seen(
            items=np.zeros(finds.shape, dtype=np.int32),
            scores=np.empty(finds.shape, dtype=np.float32),
            counts=np.empty(len(rows), dtype=np.int32),
            floors=np.full(len(rows), -np.inf, dtype=np.float32),
        )
        for place, row in enumerate(rows):
            unwanted = excluded.values[excluded.offsets[row] : excluded.offsets[row + 1]]
            own = finds[place][(finds[place] >= 0) & ~np.isin(finds[place], unwanted)]
            seen.counts[place] = len(own)
            seen.items[place, : len(own)] = own
            seen.scores[place, : len(own)] = index.vectors[own] @ queries[row]
        some = np.empty((len(rows), k), dtype=np.uint64)
        top_k.best_keys(question, seen, some)
        some.sort(axis=1)
        keys[rows] = some
    return keys


def _finds(index: ItemIndex, queries: np.ndarray, wide: np.ndarray, fetch: int, method: Method) -> np.ndarray:
    """int64[m, fetch] dense indexes, -1 where there are fewer."""
    found = _open(str(_path(index.folder, method.name)), token_of(index.folder))
    if method.name == "hnsw":
        breadth = faiss.SearchParametersHNSW(efSearch=max(method.probes, fetch))
        return found.search(np.pad(queries, ((0, 0), (0, 1))), fetch, params=breadth)[1]
    # The lists are chosen here: FAISS would choose by a float32 product that changes with the size of the batch.
    number = min(max(method.probes, 1), index.lists)
    chosen = np.zeros((len(queries), index.lists), dtype=np.bool_)
    probes.largest(list_bounds(index, wide), number, chosen)
    lists = np.nonzero(chosen)[1].reshape(len(queries), number)
    closeness = np.take_along_axis(wide @ index.means.astype(np.float64).T, lists, axis=1).astype(np.float32)
    found.nprobe = number
    return found.search_preassigned(queries, fetch, lists.astype(np.int64), closeness)[1]


def _hnsw(index: ItemIndex) -> faiss.Index:
    """A graph for the nearest vectors. With one coordinate more all vectors get the same length, and then the nearest
    is the one of largest inner product; of the raw vectors a graph finds the long ones only.

    Source: Bachrach et al. 2014, Speeding Up the Xbox Recommender System Using a Euclidean Transformation.
    """
    vectors = index.vectors
    squares = np.square(vectors, dtype=np.float64).sum(axis=1)
    last = np.sqrt(np.maximum(squares.max() - squares, 0.0)).astype(np.float32)
    graph = faiss.IndexHNSWFlat(vectors.shape[1] + 1, LINKS)
    graph.hnsw.efConstruction = CONSTRUCTION_BREADTH
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # several threads would insert in another order each time
    try:
        graph.add(np.column_stack([vectors, last]))
    finally:
        faiss.omp_set_num_threads(threads)
    return graph


def _ivfpq(index: ItemIndex) -> faiss.Index:
    """Our own lists, in each of them half a byte for a dimension."""
    items, dimensions = index.vectors.shape
    parts = next(parts for parts in (dimensions // 2, dimensions // 4, dimensions) if parts and dimensions % parts == 0)
    bits = min(8, items.bit_length() - 1)
    quantizer = faiss.IndexFlatL2(dimensions)
    quantizer.add(np.ascontiguousarray(index.means))
    ivf = faiss.IndexIVFPQ(quantizer, dimensions, index.lists, parts, max(bits, 1), faiss.METRIC_INNER_PRODUCT)
    ivf.pq.cp.min_points_per_centroid = 1
    ivf.pq.cp.seed = SEED
    # A lone item twice: FAISS wants a vector for each code, and there are two at least.
    sample = np.linspace(0, items - 1, max(2, min(items, TRAINING_ITEMS))).astype(np.int64)
    ivf.train(np.ascontiguousarray(index.vectors[sample]))
    assigned = list_of(index.starts).astype(np.int64)
    vectors = np.ascontiguousarray(index.vectors)
    ivf.add_core(items, faiss.swig_ptr(vectors), None, faiss.swig_ptr(assigned))
    return ivf


@functools.lru_cache(maxsize=2)
def _open(path: str, token: str) -> faiss.Index:
    del token  # tells this file from others that were there before
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if path.endswith("ivfpq.faiss") else faiss.IO_FLAG_MMAP_IFC
    return faiss.read_index(path, flags)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.faiss"
