"""A new signal is one function and one line, also where no form of the kernel says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving_shop import Shop

from prediction_store.reader import Version
from reranker import ranking, reasons, signals, standing
from reranker.arrays import Float32
from reranker.catalogue import Catalogue
from reranker.forms import Computed, Form
from reranker.pool import Pool
from reranker.ranking import Ranker, Scoring
from reranker.recommend import open_reranker
from reranker.session import EMPTY, Session
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import SIGNALS, Signal
from schemas.messages import RecommendRequest, SessionEvent
from schemas.ranker import RankerWeights

NOW = 1_800_000_000.0


def after_session(catalogue: Catalogue) -> Form | None:
    """1 for what is numbered after everything in the session: nothing that a column or a vector tells."""

    def numbers(given: SignalInputs) -> Float32:
        return (given.pool.items > given.session.items.max()).astype(np.float32)

    return Computed(numbers)


def even(catalogue: Catalogue) -> Form | None:
    """Of the item alone: 1 for every other one, and what cannot be said of the first."""
    return Computed(lambda given: np.where(given.pool.items == 0, np.nan, given.pool.items % 2 == 0).astype(np.float32))


NEW = (Signal("after_session", after_session, of_session=True), Signal("even", even, of_hour=True))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    for signal in NEW:
        monkeypatch.setitem(signals.BY_NAME, signal.name, signal)
    monkeypatch.setattr(reasons, "SIGNALS", (*SIGNALS, *NEW))


@pytest.fixture(params=["compiled", "in numpy"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in numpy":
        monkeypatch.setattr(ranking, "is_compiled", False)
        monkeypatch.setattr(standing, "is_compiled", False)


@pytest.fixture
def version(stocked_shop: Shop) -> Iterator[Version]:
    with Version.open(stocked_shop.root, stocked_shop.current()) as opened:
        yield opened


@pytest.mark.usefixtures("known", "engine")
@pytest.mark.parametrize("is_now", [True, False])
@pytest.mark.parametrize("visited", [[], [17, 3]])
def test_it_is_scored_and_valued_like_the_others(version: Version, visited: list[int], *, is_now: bool) -> None:
    items = np.random.default_rng(2).permutation(version.n_items)[:30].astype(np.uint32)
    pool = Pool.of_list(items, np.linspace(1, 0, 30, dtype=np.float32))
    session = Session(np.array(visited, np.uint32), np.ones(2, np.float32)) if visited else EMPTY
    given = SignalInputs(version, pool, session, Circumstances(NOW))
    names = ["session_nearest", "after_session", "base_score", "even", "popularity"]
    ranker = Ranker.of(RankerWeights(names, [1.5, 0.5, 2.0, -0.25, 0.125], "space"))
    values = np.stack([signal.values(given) for signal in ranker.signals], axis=1)
    expected = values @ np.array(ranker.weights, np.float32)
    scoring = Scoring(ranker, given, is_now=is_now)
    allowed = np.ones(30, np.bool_)
    assert scoring.scores(allowed) == pytest.approx(expected, abs=1e-5)
    assert scoring.best(allowed, 5)[1].tolist() == np.argsort(-expected, kind="stable")[:5].tolist()
    shown = np.array([4, 29, 0])
    assert scoring.values(shown) == pytest.approx(values[shown], abs=1e-6)
    assert values[:, names.index("after_session")].any() == bool(visited)


@pytest.mark.usefixtures("known", "engine")
def test_an_answer_goes_by_it_and_explains_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store")
    shop.publish("a", ranker=RankerWeights(["base_score", "after_session"], [1.0, 10.0], "space"))
    with open_reranker(shop.config()) as reranker:
        request = RecommendRequest(user="u0", k=20, session=[SessionEvent(item="a07")], explain=True)
        items = reranker.recommend(request).items
    first = items[0]
    assert first.item > "a07"
    assert isinstance(first.signals, dict) and isinstance(first.contributions, dict)
    assert (first.signals["after_session"], first.contributions["after_session"]) == (1.0, 10.0)
    assert [item.score > 9 for item in items] == [item.item > "a07" for item in items]
