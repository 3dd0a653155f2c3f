"""The search against a full sort, and that a list does not depend on what is searched beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs import index, vectors
from jobs.errors import BadVectorsError


def make_index(folder: Path, item_vectors: np.ndarray, *, exact: bool, lists: int = 0) -> index.ItemIndex:
    clusters = index.cluster(item_vectors, lists or index.default_lists(len(item_vectors)))
    order = index.dense_order(clusters, np.zeros(len(item_vectors), dtype=np.int64))
    folder.mkdir()
    index.build(folder, item_vectors, order, clusters, exact=exact)
    return index.open_index(str(folder), index.token_of(folder))


def ragged(rows: list[list[int]]) -> index.Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    return index.Ragged(offsets, np.array([item for row in rows for item in row], dtype=np.int32))


def rows_of(found: index.Found) -> list[list[tuple[int, float]]]:
    pairs = list(zip(found.items.tolist(), found.scores.tolist(), strict=True))
    return [pairs[start:stop] for start, stop in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


def full_sort(item_index: index.ItemIndex, query: np.ndarray, excluded: list[int], k: int) -> list[tuple[int, float]]:
    scores = [float(np.float32(np.dot(query.astype(np.float64), v.astype(np.float64)))) for v in item_index.vectors]
    order = sorted(set(range(len(scores))) - set(excluded), key=lambda item: (-scores[item], item))
    return [(item, scores[item]) for item in order[:k]]


def clustered(items: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Items around 30 directions with very unequal lengths, and 200 queries near the directions."""
    rng = np.random.default_rng(seed)
    centres = vectors.unit(rng.standard_normal((30, 16)))
    item_vectors = centres[rng.integers(0, 30, items)] + 0.15 * rng.standard_normal((items, 16))
    item_vectors *= np.exp(0.7 * rng.standard_normal((items, 1)))
    queries = centres[rng.integers(0, 30, 200)] + 0.2 * rng.standard_normal((200, 16))
    return item_vectors.astype(np.float32), queries.astype(np.float32)


@pytest.mark.parametrize("k", [1, 10, 400])
def test_an_exact_search_is_a_full_sort_with_ties_to_the_lower_item(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(1)
    item_index = make_index(tmp_path / "index", rng.integers(-2, 3, (300, 6)).astype(np.float32), exact=True)
    queries = rng.integers(-2, 3, (25, 6)).astype(np.float32)
    excluded = [list(map(int, rng.integers(0, 300, rng.integers(0, 40)))) for _ in range(25)]
    found = rows_of(index.search(item_index, queries, ragged(excluded), k, probes=0))
    assert found == [full_sort(item_index, query, row, k) for query, row in zip(queries, excluded, strict=True)]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_list_does_not_depend_on_the_batch(tmp_path: Path, exact: bool, batch: int) -> None:
    item_vectors, queries = clustered(1500)
    item_index = make_index(tmp_path / "index", item_vectors, exact=exact)
    rng = np.random.default_rng(2)
    excluded = [list(map(int, rng.permutation(1500)[: rng.integers(0, 30)])) for _ in queries]
    together = rows_of(index.search(item_index, queries, ragged(excluded), 50, probes=20))
    apart = []
    for start in range(0, len(queries), batch):
        part = slice(start, start + batch)
        apart += rows_of(index.search(item_index, queries[part], ragged(excluded[part]), 50, probes=20))
    assert apart == together


def test_an_index_that_probes_every_list_is_exact(tmp_path: Path) -> None:
    item_vectors, queries = clustered(1500)
    exact = make_index(tmp_path / "exact", item_vectors, exact=True)
    lists = make_index(tmp_path / "lists", item_vectors, exact=False)
    excluded = ragged([[0, 1, 2, row] for row in range(len(queries))])
    expected = rows_of(index.search(exact, queries, excluded, 50, probes=0))
    assert rows_of(index.search(lists, queries, excluded, 50, probes=10_000)) == expected


def test_a_calibrated_index_keeps_its_recall_with_unequal_norms(tmp_path: Path) -> None:
    item_vectors, queries = clustered(3000)
    item_index = make_index(tmp_path / "index", item_vectors, exact=False)
    first, second, nothing = queries[:100], queries[100:], ragged([[]] * 100)
    probes = index.calibrate(item_index, first, nothing, 100, 0.9)
    assert probes < len(item_index.representatives) / 2
    assert index.measure_recall(item_index, second, nothing, 100, probes=probes) > 0.85
    on_its_sample = index.measure_recall(item_index, first, nothing, 100, probes=probes)
    assert on_its_sample >= 0.9
    assert index.measure_recall(item_index, first, nothing, 100, probes=probes - 1) < 0.9


def test_an_index_whose_probed_lists_run_out_finds_fewer_and_no_minus_one(tmp_path: Path) -> None:
    item_vectors, queries = clustered(300)
    item_index = make_index(tmp_path / "index", item_vectors, exact=False)
    rows = rows_of(index.search(item_index, queries, ragged([[]] * len(queries)), 250, probes=1))
    assert all(0 < len(row) < 250 for row in rows)
    assert all(0 <= item < 300 and np.isfinite(score) for row in rows for item, score in row)


def test_the_same_vectors_give_the_same_clusters() -> None:
    item_vectors, _ = clustered(800)
    first, second = index.cluster(item_vectors, 40), index.cluster(item_vectors, 40)
    assert np.array_equal(first.of_item, second.of_item)
    assert np.array_equal(first.centres, second.centres)


@pytest.mark.parametrize("items", [1, 2, 9])
def test_a_tiny_or_uniform_catalogue_can_be_clustered(items: int) -> None:
    for item_vectors in (np.ones((items, 4), dtype=np.float32), np.zeros((items, 4), dtype=np.float32)):
        clusters = index.cluster(item_vectors, index.default_lists(items))
        assert ((clusters.of_item >= 0) & (clusters.of_item < len(clusters.centres))).all()


def test_the_dense_order_is_by_cluster_then_popularity_then_item() -> None:
    clusters = index.Clusters(np.array([1, 0, 1, 0, 1]), np.zeros((2, 3), dtype=np.float32))
    assert index.dense_order(clusters, np.array([5, 1, 7, 1, 5])).tolist() == [1, 3, 2, 0, 4]


def test_clusters_that_follow_each_other_are_near() -> None:
    angles = np.random.default_rng(0).permutation(np.linspace(0, np.pi, 60))
    clusters = index.cluster(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), 12)
    steps = (clusters.centres[:-1] * clusters.centres[1:]).sum(axis=1)
    assert np.sort(steps)[1:].min() > 0.9  # one long step back is allowed: the walk starts anywhere


def test_on_the_grid_a_dot_product_does_not_depend_on_the_order_of_its_terms() -> None:
    rng = np.random.default_rng(0)
    left, right = (vectors.on_grid(rng.standard_normal((50, 1024)).astype(np.float32)) for _ in range(2))
    shuffled = rng.permutation(1024)
    forward = np.einsum("ij,ij->i", left.astype(np.float64), right.astype(np.float64))
    backward = [sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for x, y in zip(left[:, shuffled], right[:, shuffled], strict=True)]  # fmt: skip # noqa: E501
    assert forward.tolist() == backward


def test_the_grid_moves_a_component_by_less_than_a_millionth_of_the_largest() -> None:
    found = np.random.default_rng(0).standard_normal((100, 16)).astype(np.float32) * 1e-3
    moved = np.abs(vectors.on_grid(found) - found).max(axis=1) / np.abs(found).max(axis=1)
    assert 0 < moved.max() < 1e-6
    assert np.array_equal(vectors.on_grid(vectors.on_grid(found)), vectors.on_grid(found))
    assert not vectors.on_grid(np.zeros((2, 3), dtype=np.float32)).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_a_vector_that_is_not_finite_is_refused_by_name(bad: float) -> None:
    found = np.ones((4, 3), dtype=np.float32)
    found[2, 1] = bad
    with pytest.raises(BadVectorsError, match="item_index 12"):
        vectors.refuse_bad(found, np.array([10, 11, 12, 13]), "item")
