"""How items are grouped and in which order they lie."""

from __future__ import annotations

import numpy as np
import pytest

from jobs import clusters


def some_vectors(items: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((30, 16))
    return (centres[rng.integers(0, 30, items)] + 0.15 * rng.standard_normal((items, 16))).astype(np.float32)


def test_the_same_vectors_give_the_same_clusters() -> None:
    first, second = (clusters.cluster(some_vectors(800), 40) for _ in range(2))
    assert np.array_equal(first.of_item, second.of_item)
    assert np.array_equal(first.centres, second.centres)


def test_items_lie_nearer_to_their_own_centre_than_to_most_others() -> None:
    item_vectors = some_vectors(3000)
    found = clusters.cluster(item_vectors, 100)
    assert 60 < len(found.centres) <= 100
    assert found.of_item.min() == 0
    assert found.of_item.max() < len(found.centres)
    distances = np.square(item_vectors[:, None] - found.centres).sum(axis=2)  # [n, clusters]
    own = np.take_along_axis(distances, found.of_item[:, None], axis=1)
    assert ((distances < own).sum(axis=1) <= 2).mean() > 0.95


@pytest.mark.parametrize("items", [1, 2, 9])
def test_a_tiny_or_uniform_catalogue_can_be_clustered(items: int) -> None:
    for item_vectors in (np.ones((items, 4), dtype=np.float32), np.zeros((items, 4), dtype=np.float32)):
        found = clusters.cluster(item_vectors, clusters.default_clusters(items))
        assert ((found.of_item >= 0) & (found.of_item < len(found.centres))).all()


def test_the_dense_order_is_by_cluster_then_item() -> None:
    found = clusters.Clusters(np.array([1, 0, 1, 0, 1]), np.zeros((2, 3), dtype=np.float32))
    assert clusters.dense_order(found).tolist() == [1, 3, 0, 2, 4]


def test_clusters_that_follow_each_other_are_near() -> None:
    angles = np.random.default_rng(0).permutation(np.linspace(0, np.pi, 60))
    found = clusters.cluster(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), 12)
    steps = np.linalg.norm(np.diff(found.centres, axis=0), axis=1)
    assert np.sort(steps)[:-1].max() < 0.8  # of a half circle, 3.1 long; one long step back is allowed
