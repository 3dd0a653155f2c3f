"""That what calibration promises of a sample holds for others, and that it chooses by work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from searched import clustered, make_index, nothing, share_found

from jobs import calibration, index, search, vectors
from jobs.calibration import Queries
from schemas.config import Retrieve


def halves(queries: np.ndarray) -> tuple[Queries, Queries]:
    return tuple(Queries(half, nothing(len(half))) for half in (queries[::2], queries[1::2]))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[index.ItemIndex, np.ndarray]:
    item_vectors, queries = clustered(60_000, queries=600)
    return make_index(tmp_path_factory.mktemp("large") / "index", item_vectors), queries


@pytest.mark.parametrize("recall", [0.9, 0.99])
def test_a_grouped_search_keeps_its_recall_on_other_queries_with_little_work(
    large: tuple[index.ItemIndex, np.ndarray], recall: float
) -> None:
    item_index, queries = large
    sample, others = halves(queries)
    wanted = Retrieve(method="grouped", min_recall=recall)
    method, facts = calibration.choose(item_index, sample, others, 500, wanted)
    best = search.search(item_index, *others, 500)
    found = share_found(best, search.search(item_index, *others, 500, method))
    assert found >= recall
    assert facts["recall_on_sample"] == round(found, 4)
    assert facts["method"] == "grouped"
    assert facts["work_grouped"] < facts["work_exact"] / 2  # type: ignore[operator]
    assert calibration.choose(item_index, sample, others, 500, wanted) == (method, facts)


def test_less_recall_is_less_work(large: tuple[index.ItemIndex, np.ndarray]) -> None:
    item_index, queries = large
    work = [
        calibration.choose(item_index, *halves(queries), 500, Retrieve(min_recall=recall))[1]["work_grouped"]
        for recall in (0.5, 0.9, 0.99, 1.0)
    ]
    assert work == sorted(work)  # type: ignore[type-var]
    assert len(set(work)) > 1


def test_auto_takes_what_is_less_work(large: tuple[index.ItemIndex, np.ndarray], tmp_path: Path) -> None:
    item_index, queries = large
    chosen, facts = calibration.choose(item_index, *halves(queries), 500, Retrieve())
    assert (chosen.name, facts["method"]) == ("grouped", "grouped")
    # Items that lie nowhere in particular, more of them asked for than a list holds: there is nothing to leave out.
    noise = vectors.unit(np.random.default_rng(0).standard_normal((3000, 64)))
    item_index = make_index(tmp_path / "noise", noise)
    chosen, facts = calibration.choose(item_index, *halves(noise[:200]), 500, Retrieve())
    assert (chosen, facts["method"], facts["recall_on_sample"]) == (search.EXACT, "exact", 1.0)
    assert facts["work_grouped"] >= facts["work_exact"]  # type: ignore[operator]
    assert calibration.choose(item_index, *halves(noise[:200]), 500, Retrieve(method="grouped"))[0].name == "grouped"


def test_what_is_asked_for_is_taken(large: tuple[index.ItemIndex, np.ndarray]) -> None:
    item_index, queries = large
    sample = halves(queries)
    assert calibration.choose(item_index, *sample, 10, Retrieve(method="exact"))[0] == search.EXACT
    chosen, facts = calibration.choose(item_index, *sample, 10, Retrieve(method="grouped", probes=3))
    assert (chosen, facts["probes"]) == (search.Method("grouped", probes=3), 3)


def test_without_queries_the_search_is_exact(large: tuple[index.ItemIndex, np.ndarray]) -> None:
    none = Queries(np.empty((0, 16), dtype=np.float32), nothing(0))
    assert calibration.choose(large[0], none, none, 10, Retrieve())[0] == search.EXACT
