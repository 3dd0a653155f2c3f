"""Items grouped by where their vectors lie, and the dense order that follows the groups."""

from __future__ import annotations

import math
from typing import NamedTuple

import faiss
import numpy as np

SEED = 1
KMEANS_ROUNDS = 6
POINTS_PER_CLUSTER = 32
"""Vectors that k-means looks at, per cluster: beyond this the clusters hardly move, and the time grows."""

SMALL = 1 << 24
"""Distances that one thread computes sooner than several, which wait for each other, actively, at every round."""


class Clusters(NamedTuple):
    """Items grouped by their vectors. Clusters are numbered so that one and the next are near each other."""

    of_item: np.ndarray  # int32[n]
    centres: np.ndarray  # float32[clusters, d]


def default_clusters(items: int) -> int:
    """4·√items, the number of inverted lists that the FAISS guidelines start from."""
    return min(items, round(4 * math.sqrt(items)))


def cluster(vectors: np.ndarray, clusters: int) -> Clusters:
    """Group the rows of float32[n, d]: k-means in two levels with a fixed seed, at most `clusters` groups.

    Two levels, because the work of one grows with items × clusters: 2,000,000 items took minutes. By distance and not
    by direction, though inner products are what is searched for: within a cluster lengths are alike then, and one bound
    serves all of its items (see `search`). Clusters of directions needed ten times the products on factors whose
    lengths differ a hundredfold, and as many on vectors of one length.
    """
    clusters = min(clusters, len(vectors))
    top, centres = _kmeans(vectors, round(math.sqrt(clusters)))
    of_item = np.empty(len(vectors), dtype=np.int32)
    found: list[np.ndarray] = []
    count = 0
    for number in _chain(centres):
        members = np.flatnonzero(top == number)
        if not len(members):
            continue
        share = max(1, clusters * len(members) // len(vectors))
        near, parts = _kmeans(vectors[members], share)
        chain = _chain(parts, after=found[-1][-1] if found else None)
        of_item[members] = count + np.argsort(chain)[near]
        found.append(parts[chain])
        count += len(parts)
    return Clusters(of_item, np.concatenate(found))


def dense_order(clusters: Clusters) -> np.ndarray:
    """int32[n]: the items by cluster, in a cluster by item_index: the same vectors have the same order every night."""
    return np.argsort(clusters.of_item, kind="stable").astype(np.int32)


def _kmeans(vectors: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """(int64[n], float32[clusters, d]): the cluster of each row, and the centres."""
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        min(clusters, len(vectors)),
        niter=KMEANS_ROUNDS,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=POINTS_PER_CLUSTER,
    )
    threads = faiss.omp_get_max_threads()
    if len(vectors) * clusters < SMALL:
        faiss.omp_set_num_threads(1)
    try:
        kmeans.train(vectors)
        _, nearest = kmeans.index.search(vectors, 1)  # [n, 1]
    finally:
        faiss.omp_set_num_threads(threads)
    return nearest[:, 0], kmeans.centroids


def _chain(centres: np.ndarray, after: np.ndarray | None = None) -> np.ndarray:
    """int64[clusters]: a walk from centre to the nearest one not yet visited, from near `after` or the first."""
    chain = np.zeros(len(centres), dtype=np.int64)
    is_free = np.ones(len(centres), dtype=bool)
    at = centres[0] if after is None else after
    for place in range(len(centres)):
        distance = np.square(centres - at).sum(axis=1)
        chain[place] = np.argmin(np.where(is_free, distance, np.inf))
        is_free[chain[place]] = False
        at = centres[chain[place]]
    return chain
