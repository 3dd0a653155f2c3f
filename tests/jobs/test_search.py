"""The search against a full sort, and that a list does not depend on what is searched beside it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from searched import clustered, full_sort, make_index, nothing, ragged, rows_of, share_found

from jobs import index, search, top_k, vectors
from jobs.errors import BadVectorsError
from jobs.search import EXACT, Method

EVERYTHING = [EXACT, Method("grouped", reach=1e30), Method("grouped", probes=10_000)]
"""Methods that must find the best."""


def hold_against_a_full_sort(
    item_index: index.ItemIndex, queries: np.ndarray, excluded: list[list[int]], k: int
) -> None:
    expected = [full_sort(item_index, query, row, k) for query, row in zip(queries, excluded, strict=True)]
    for method in EVERYTHING:
        assert rows_of(search.search(item_index, queries, ragged(excluded), k, method)) == expected


@pytest.mark.parametrize("k", [1, 10, 280, 400])
def test_a_search_is_a_full_sort_with_ties_to_the_lower_item(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(1)
    item_index = make_index(tmp_path / "index", rng.integers(-2, 3, (300, 6)).astype(np.float32))
    queries = rng.integers(-2, 3, (25, 6)).astype(np.float32)
    excluded = [list(map(int, rng.integers(0, 300, rng.integers(0, 40)))) for _ in range(25)]
    excluded[3] = list(range(300))  # everything
    excluded[4] = list(range(299))
    hold_against_a_full_sort(item_index, queries, excluded, k)


@pytest.mark.parametrize("k", [1, 7, 500])
def test_whatever_the_lengths_of_vectors_a_search_is_a_full_sort(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(2)
    item_vectors = rng.standard_normal((2500, 9)) * np.exp(3 * rng.standard_normal((2500, 1)))
    item_vectors[::50] = 0
    item_vectors[1::50] *= 1e-30
    item_index = make_index(tmp_path / "index", item_vectors.astype(np.float32))
    queries = rng.standard_normal((6, 9)).astype(np.float32)
    queries[1] = 0
    queries[2] *= 1e-25
    queries[3] *= 1e12
    hold_against_a_full_sort(item_index, queries, [[row, 17, 2400] for row in range(6)], k)


@pytest.mark.parametrize("copies", [1, 40])
def test_items_that_are_all_alike_come_in_their_order(tmp_path: Path, copies: int) -> None:
    """With one vector all scores are equal; with several, each is shared by many: every buffer overflows with ties."""
    different = np.random.default_rng(3).standard_normal((copies, 5))
    item_vectors = np.repeat(different, 4000 // copies, axis=0).astype(np.float32)
    item_index = make_index(tmp_path / "index", item_vectors)
    queries = np.random.default_rng(4).standard_normal((4, 5)).astype(np.float32)
    hold_against_a_full_sort(item_index, queries, [[], [0, 1, 2], [3999], [5]], 30)


def test_scores_that_differ_in_their_last_bits_are_told_apart(tmp_path: Path) -> None:
    """float32 sums order such scores at random."""
    rng = np.random.default_rng(5)
    item_vectors = rng.standard_normal(64) * np.ones((3000, 1)) * (1 + 1e-6 * rng.integers(-3, 4, (3000, 64)))
    item_index = make_index(tmp_path / "index", item_vectors.astype(np.float32))
    queries = rng.standard_normal((5, 64)).astype(np.float32)
    hold_against_a_full_sort(item_index, queries, [[]] * 5, 100)


@pytest.mark.parametrize(
    "method", [EXACT, Method("grouped", reach=0.5), Method("grouped", probes=5)], ids=["exact", "reach", "probes"]
)
def test_a_list_does_not_depend_on_the_batch(tmp_path: Path, method: Method) -> None:
    item_vectors, queries = clustered(3000)
    item_index = make_index(tmp_path / "index", item_vectors)
    rng = np.random.default_rng(2)
    excluded = [list(map(int, rng.permutation(3000)[: rng.integers(0, 30)])) for _ in queries]
    together = rows_of(search.search(item_index, queries, ragged(excluded), 50, method))
    for batch in (1, 7, 64):
        apart = []
        for start in range(0, len(queries), batch):
            part = slice(start, start + batch)
            apart += rows_of(search.search(item_index, queries[part], ragged(excluded[part]), 50, method))
        assert apart == together
    shuffled = rng.permutation(len(queries))
    found = rows_of(search.search(item_index, queries[shuffled], ragged([excluded[i] for i in shuffled]), 50, method))
    assert found == [together[i] for i in shuffled]
    if method != EXACT:
        assert together != rows_of(search.search(item_index, queries, ragged(excluded), 50))


def test_what_a_grouped_search_finds_is_the_best_of_the_lists_it_looks_into(tmp_path: Path) -> None:
    item_vectors, queries = clustered(2000)
    item_index = make_index(tmp_path / "index", item_vectors)
    excluded = [[row, row + 100] for row in range(len(queries))]
    needed = search.reach_needed(item_index, queries, ragged(excluded), 20)
    found = rows_of(search.search(item_index, queries, ragged(excluded), 20, Method("grouped", reach=0.25)))
    list_of = index.list_of(item_index.starts)
    for row in range(0, len(queries), 9):
        outside = np.flatnonzero(needed[row, list_of] > 0.25).tolist()
        assert found[row] == full_sort(item_index, queries[row], excluded[row] + outside, 20)


def test_searches_with_few_lists_find_less(tmp_path: Path) -> None:
    item_vectors, queries = clustered(20_000)
    item_index = make_index(tmp_path / "index", item_vectors)
    best = search.search(item_index, queries, nothing(200), 200)
    shares = [
        share_found(best, search.search(item_index, queries, nothing(200), 200, Method("grouped", probes=probes)))
        for probes in (1, 10, 60)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[2] > 0.9


def test_a_query_whose_probed_lists_run_out_finds_fewer_and_no_minus_one(tmp_path: Path) -> None:
    item_vectors, queries = clustered(300)
    item_index = make_index(tmp_path / "index", item_vectors)
    rows = rows_of(search.search(item_index, queries, nothing(len(queries)), 250, Method("grouped", probes=1)))
    assert all(0 < len(row) < 250 for row in rows)
    assert all(0 <= item < 300 and np.isfinite(score) for row in rows for item, score in row)


def test_no_queries_find_nothing(tmp_path: Path) -> None:
    item_index = make_index(tmp_path / "index", clustered(300)[0])
    for method in EVERYTHING:
        found = search.search(item_index, np.empty((0, 16), dtype=np.float32), nothing(0), 10, method)
        assert (found.offsets.tolist(), len(found.items)) == ([0], 0)


def test_ten_times_the_queries_need_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_QUERIES", 100)
    item_vectors, _ = clustered(5000)
    item_index = make_index(tmp_path / "index", item_vectors)
    peaks = []
    for queries in (200, 2000):
        asked = np.random.default_rng(0).standard_normal((queries, 16)).astype(np.float32)
        search.search(item_index, asked[:10], nothing(10), 100)  # what is compiled takes memory too
        tracemalloc.start()
        search.search(item_index, asked, nothing(queries), 100)
        peaks.append(tracemalloc.get_traced_memory()[1] - queries * 100 * (8 + 8 + 8))  # keys, and what is found
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("k", [1, 2, 500, 999, 1000])
def test_the_kth_largest_is_that_of_a_sort(k: int) -> None:
    rng = np.random.default_rng(0)
    for values in (rng.standard_normal(1000), rng.integers(-2, 3, 1000), np.exp(30 * rng.standard_normal(1000))):
        some = values.astype(np.float32)
        some[rng.random(1000) < 0.1] = -0.0
        assert top_k.kth_largest(some, k) == np.sort(some)[-k]


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
