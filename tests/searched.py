"""Item indexes and queries for the tests of searching, and the full sort that every search is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs import clusters, index, search, vectors

Row = list[tuple[int, float]]


def make_index(folder: Path, item_vectors: np.ndarray, lists: int = 0) -> index.ItemIndex:
    found = clusters.cluster(item_vectors, lists or clusters.default_clusters(len(item_vectors)))
    order = clusters.dense_order(found)
    folder.mkdir()
    index.build(folder, item_vectors, order, found.of_item[order])
    return index.open_index(str(folder), index.token_of(folder))


def ragged(rows: list[list[int]]) -> search.Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    return search.Ragged(offsets, np.array([item for row in rows for item in row], dtype=np.int32))


def nothing(queries: int) -> search.Ragged:
    return ragged([[]] * queries)


def rows_of(found: search.Found) -> list[Row]:
    pairs = list(zip(found.items.tolist(), found.scores.tolist(), strict=True))
    return [pairs[start:stop] for start, stop in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


def full_sort(item_index: index.ItemIndex, query: np.ndarray, excluded: list[int], k: int) -> Row:
    on_grid = vectors.on_grid(query[None])[0].astype(np.float64)
    scores = [float(np.float32(np.dot(on_grid, v.astype(np.float64)))) for v in item_index.vectors]
    order = sorted(set(range(len(scores))) - set(excluded), key=lambda item: (-scores[item], item_index.item_of[item]))
    return [(item, scores[item]) for item in order[:k]]


def clustered(items: int, queries: int = 200, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Items around 30 directions with very unequal lengths, and queries near the directions."""
    rng = np.random.default_rng(seed)
    centres = vectors.unit(rng.standard_normal((30, 16)))
    item_vectors = centres[rng.integers(0, 30, items)] + 0.15 * rng.standard_normal((items, 16))
    item_vectors *= np.exp(0.7 * rng.standard_normal((items, 1)))
    near = centres[rng.integers(0, 30, queries)] + 0.2 * rng.standard_normal((queries, 16))
    return item_vectors.astype(np.float32), near.astype(np.float32)


def share_found(best: search.Found, found: search.Found) -> float:
    """Share of the best items that were found."""
    pairs = zip(rows_of(best), rows_of(found), strict=True)
    return float(np.mean([np.isin([i for i, _ in row], [i for i, _ in own]).mean() for row, own in pairs]))
