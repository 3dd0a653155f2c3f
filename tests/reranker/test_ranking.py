"""The order of an answer, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.ranking import Ranker, top, top_in_numpy
from reranker.signals import SIGNALS, default_weights
from schemas.ranker import RankerWeights


def slow_top(scores: list[float], eligible: list[bool], k: int) -> list[int]:
    """By score, then by base rank: every candidate sorted."""
    return sorted((i for i in range(len(scores)) if eligible[i]), key=lambda i: (-scores[i], i))[:k]


@given(
    candidates=st.lists(st.tuples(st.integers(-4, 4).map(lambda n: n / 4), st.booleans()), max_size=60),
    k=st.integers(0, 70),
)
def test_the_top_is_that_of_a_full_sort_with_ties_by_base_rank(candidates: list[tuple[float, bool]], k: int) -> None:
    scores = [score for score, _ in candidates]
    eligible = [may for _, may in candidates]
    for find in (top, top_in_numpy):
        found = find(np.array(scores, np.float32), np.array(eligible, np.bool_), k)
        assert found.tolist() == slow_top(scores, eligible, k)


def test_equal_scores_keep_the_order_of_the_list() -> None:
    assert top(np.zeros(1000, np.float32), np.ones(1000, np.bool_), 20).tolist() == list(range(20))


def test_a_signal_without_weight_is_not_computed() -> None:
    ranker = Ranker.of(RankerWeights(signals=["base_score", "popularity"], weights=[1.0, 0.0], space_id="s"))
    assert [signal.name for signal, _ in ranker.terms] == ["base_score"]


def test_weights_belong_to_names_and_not_to_places() -> None:
    ranker = Ranker.of(RankerWeights(signals=["popularity", "base_score"], weights=[0.25, 2.0], space_id="s"))
    assert {signal.name: weight for signal, weight in ranker.terms} == {"popularity": 0.25, "base_score": 2.0}


def test_weights_of_a_signal_that_is_unknown_here_give_way_to_the_defaults() -> None:
    ranker = Ranker.of(RankerWeights(signals=["base_score", "moon_phase"], weights=[9.0, 1.0], space_id="s"))
    assert ranker.unknown == ("moon_phase",)
    assert ranker.terms == Ranker.of(default_weights("s")).terms


def test_default_weights_name_every_signal_and_leave_the_list_alone_without_a_session() -> None:
    weights = default_weights("space")
    assert weights.signals == [signal.name for signal in SIGNALS]
    assert weights.space_id == "space"
    moving = {signal.name for signal in SIGNALS if signal.default_weight and not signal.of_session}
    assert moving == {"base_score", "ignored"}, "beside what was shown in vain, the list decides"


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_every_signal_says_what_it_is(signal: object) -> None:
    assert signal.compute.__doc__  # type: ignore[attr-defined]
    assert signal.compute.__name__ == signal.name  # type: ignore[attr-defined]
