"""What an item's own signals say is summed once for an hour and a device, and nobody can tell from the scores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from serving_shop import MADE_AT, Shop

import reranker.standing
from prediction_store.reader import Version
from reranker.arrays import Float32
from reranker.forms import OfItem
from reranker.pool import Pool
from reranker.ranking import Ranker, Scoring
from reranker.recommend import Reranker, open_reranker
from reranker.requests import convert_request
from reranker.session import read_session
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import SIGNALS
from reranker.user_tower import UserNow, UserTower
from schemas.messages import SessionEvent
from schemas.ranker import RankerWeights
from schemas.serving_config import Serve

HOUR = 3600.0
NOW = float(MADE_AT // HOUR * HOUR + HOUR + 60.0)


@pytest.fixture(scope="module")
def version(stocked_shop: Shop) -> Iterator[Version]:
    with Version.open(stocked_shop.root, stocked_shop.current()) as opened:
        yield opened


def ranker_of(version: Version) -> Ranker:
    """Every signal has a weight of its own."""
    weights = [0.3 + 0.1 * place for place in range(len(SIGNALS))]
    return Ranker.of(RankerWeights([signal.name for signal in SIGNALS], weights, version.ranker.space_id))


def inputs(version: Version, now: float) -> SignalInputs:
    session = read_session([SessionEvent(item="a02"), SessionEvent(item="a33")], version, Serve(), now)
    items = np.random.default_rng(3).permutation(version.n_items)[:25].astype(np.uint32)
    pool = Pool(items, np.linspace(1, 0, 25, dtype=np.float32), listed=20)
    at = Circumstances(now, "phone", {int(items[2]): 1}, UserNow(UserTower.of(version), 1, session))
    return SignalInputs(version, pool, session, at)


def test_scores_and_values_are_those_of_the_single_signals(version: Version) -> None:
    ranker, given = ranker_of(version), inputs(version, NOW)
    alone, summed = Scoring(ranker, given), Scoring(ranker, given, is_now=True)
    everyone, places = np.ones(25, np.bool_), np.array([0, 7, 24])
    assert summed.scores(everyone) == pytest.approx(alone.scores(everyone), abs=1e-5)
    assert (summed.values(places) == alone.values(places)).all()


def standing(ranker: Ranker, version: Version, now: float = NOW, device: str = "") -> Float32:
    form = ranker.forms(version, Circumstances(now, device), is_now=True).scored[-1]
    assert isinstance(form, OfItem)
    return form.column


def test_it_is_summed_once_in_an_hour_and_anew_in_the_next(version: Version) -> None:
    ranker = ranker_of(version)
    first, same, after, back = (standing(ranker, version, NOW + later) for later in (0.0, 3_000.0, HOUR, 10.0))
    assert first is same
    assert not np.array_equal(first, after)
    assert first is not back
    assert np.array_equal(first, back)


def test_each_device_that_the_version_knows_has_its_own(version: Version) -> None:
    ranker = ranker_of(version)
    phone, none = standing(ranker, version, device="phone"), standing(ranker, version)
    assert not np.array_equal(phone, none)
    assert standing(ranker, version, device="phone") is phone
    kept = len(version.kept)
    assert all(standing(ranker, version, device=f"fridge {number}") is none for number in range(50))
    assert len(version.kept) == kept, "devices that nobody knows are kept one by one"


def test_who_asks_about_another_hour_costs_the_others_nothing(version: Version) -> None:
    ranker = ranker_of(version)
    now = standing(ranker, version)
    then = ranker.forms(version, Circumstances(NOW - 5 * HOUR), is_now=False)
    assert then.scored is then.every
    assert standing(ranker, version) is now


def test_a_request_from_another_hour_is_scored_as_the_clock_would_have(
    stocked_shop: Shop, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = ranker_of(version)
    monkeypatch.setattr(Reranker, "ranker_of", lambda _, of: ranker)
    fields = {"user": "u1", "session": [{"item": "a02", "time": NOW - 30.0}], "k": 20, "explain": True}
    with open_reranker(stocked_shop.config(), now=lambda: NOW) as opened:
        then = opened.recommend(convert_request(fields))
    with open_reranker(stocked_shop.config(), now=lambda: NOW + 2 * HOUR) as opened:
        later = opened.recommend(convert_request({**fields, "context": {"time": NOW}}))
    parts = then.items[0].contributions
    assert isinstance(parts, dict)
    assert parts["freshness"] + parts["popularity"] > 0.1, "the signals of the hour say nothing, so nothing was tested"
    assert [item.item for item in later.items] == [item.item for item in then.items]
    assert [item.score for item in later.items] == pytest.approx([item.score for item in then.items], abs=1e-5)


def test_it_does_not_depend_on_the_kernel(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    by_kernel = standing(ranker_of(version), version)
    monkeypatch.setattr(reranker.standing, "is_compiled", False)
    assert standing(ranker_of(version), version) == pytest.approx(by_kernel, abs=1e-5)


def test_a_version_that_is_made_ready_has_it(stocked_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_reranker(stocked_shop.config(), now=lambda: NOW) as opened, opened.store.acquire() as version:
        opened.prepare(version)
        monkeypatch.setattr(Ranker, "_made", None)
        assert standing(opened.ranker_of(version), version, NOW + 60.0).shape == (version.n_items,)
