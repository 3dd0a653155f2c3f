"""The indexes of FAISS: recall with unequal lengths, exact scores, no dependence on the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from searched import clustered, full_sort, make_index, nothing, ragged, rows_of, share_found

from jobs import approximate, calibration, index, search
from jobs.calibration import Queries
from jobs.search import Method
from schemas.config import Retrieve

Names = Literal["hnsw", "ivfpq"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[index.ItemIndex, np.ndarray]:
    item_vectors, queries = clustered(6000)
    lengths = np.linalg.norm(item_vectors, axis=1)
    assert np.percentile(lengths, 99) > 10 * np.percentile(lengths, 1)
    item_index = make_index(tmp_path_factory.mktemp("approximate") / "index", item_vectors)
    for name in ("hnsw", "ivfpq"):
        approximate.build(item_index, name)
    return item_index, queries


@pytest.mark.parametrize("name", ["hnsw", "ivfpq"])
def test_with_unequal_lengths_the_best_are_found_and_scored_exactly(
    searched: tuple[index.ItemIndex, np.ndarray], name: Names
) -> None:
    item_index, queries = searched
    sample, others = (Queries(half, nothing(100)) for half in (queries[:100], queries[100:]))
    method, facts = calibration.choose(item_index, sample, others, 50, Retrieve(method=name, min_recall=0.95))
    found = search.search(item_index, *others, 50, method)
    assert share_found(search.search(item_index, *others, 50), found) > 0.93
    assert facts["recall_on_sample"] > 0.93  # type: ignore[operator]
    scores = dict(full_sort(item_index, queries[100], [], 6000))
    assert rows_of(found)[0] == sorted(
        ((item, scores[item]) for item, _ in rows_of(found)[0]),
        key=lambda pair: (-pair[1], item_index.item_of[pair[0]]),
    )


@pytest.mark.parametrize("name", ["hnsw", "ivfpq"])
def test_a_list_does_not_depend_on_the_batch(searched: tuple[index.ItemIndex, np.ndarray], name: str) -> None:
    item_index, queries = searched
    excluded = [list(range(row % 5)) for row in range(len(queries))]
    method = Method(name, probes=4)
    together = rows_of(search.search(item_index, queries, ragged(excluded), 30, method))
    apart = []
    for start in range(0, len(queries), 7):
        part = slice(start, start + 7)
        apart += rows_of(search.search(item_index, queries[part], ragged(excluded[part]), 30, method))
    assert apart == together
    assert not any(item in excluded[row] for row, found in enumerate(together) for item, _ in found)
    assert all(0 < len(row) <= 30 for row in together)


def test_the_nearest_raw_vectors_are_not_the_best(searched: tuple[index.ItemIndex, np.ndarray]) -> None:
    """What the extra coordinate is for."""
    item_index, queries = searched
    nearest = np.square(queries[:20, None] - item_index.vectors[None]).sum(axis=2).argsort(axis=1)[:, :50]
    best = rows_of(search.search(item_index, queries[:20], nothing(20), 50))
    assert np.mean([item in near for row, near in zip(best, nearest, strict=True) for item, _ in row]) < 0.7


@pytest.mark.parametrize("name", ["hnsw", "ivfpq"])
def test_a_catalogue_of_one_item_can_be_searched(tmp_path: Path, name: str) -> None:
    item_index = make_index(tmp_path / "index", np.ones((1, 4), np.float32))
    approximate.build(item_index, name)
    found = search.search(item_index, np.ones((2, 4), np.float32), nothing(2), 10, Method(name, probes=1))
    assert rows_of(found) == [[(0, 4.0)]] * 2
