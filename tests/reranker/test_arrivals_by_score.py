"""Arrivals that compete: each stands before the first of the others that scores less, whatever orders the others."""

from __future__ import annotations

from math import log1p
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from arriving import NOW, Clock, announce, answers, asked, ids, read, shown
from asgi_client import AsgiClient
from serving_shop import Shop

from reranker.app import create_app
from reranker.arrays import Float32
from reranker.arrivals import NONE, Arrivals, Competing, Wanted
from reranker.replay import replay
from reranker.signals import default_weights
from reranker.skew import skew
from schemas.live_items import ItemFacts
from schemas.ranker import ArrivalScore

LEARNED = 'serve.arrivals="learned"'


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shop_with(folder: Path, score: ArrivalScore | None) -> Shop:
    made = Shop(folder / "store")
    usual = default_weights("space")
    made.publish("a", ranker=usual if score is None else msgspec.structs.replace(usual, arrivals=score))
    return made


def client_of(shop: Shop, clock: Clock, *overrides: str) -> AsgiClient:
    return AsgiClient(create_app(shop.config(LEARNED, *overrides), now=clock))


def scores_of(answer: dict[str, Any]) -> list[float]:
    return [item["score"] for item in answer["items"]]


def between(shop: Shop, clock: Clock, place: int) -> float:
    """A score that lies between those at this position of the list and the next."""
    with client_of(shop, clock) as client:
        scores = scores_of(asked(client, k=10))
    return (scores[place - 1] + scores[place]) / 2


def competing(scores: list[float], *, others: set[int] = frozenset(), wanted: int = 6) -> Competing:  # type: ignore[assignment]
    numbers = np.array(scores, np.float32)
    names = [f"new-{number}" for number in range(len(scores))]
    zeros = np.zeros(len(scores), np.float32)
    facts = [ItemFacts(changed_at=0.0)] * len(scores)
    rows = Wanted(names, facts, [*range(len(scores))], numbers + 9, zeros, zeros, scores=numbers)
    return Competing(rows, others, wanted)


@pytest.mark.parametrize(
    ("scores", "best", "others", "places"),
    [
        ([5.0, 2.5], [4, 3, 2, 1], set(), [1, 4]),
        ([3.0], [4, 3, 2, 1], set(), [3]),  # behind its equal
        ([9.0, 8.0, 7.0], [4, 3], {2}, [1, 3, 4]),
        ([9.0, 8.0, 7.0], [4, 3], {1, 2, 3}, [4, 5, 6]),
        ([0.5], [4, 3, 2, 1, 1, 1], set(), []),  # nobody sees it
        ([2.0] * 9, [1.0], set(), [1, 2, 3, 4, 5, 6]),
        ([2.0, 1.0], [], set(), [1, 2]),
        ([], [1.0], set(), []),
    ],
)
def test_each_stands_before_what_scores_less(
    scores: list[float], best: list[float], others: set[int], places: list[int]
) -> None:
    found = competing(scores, others=others).placed(lambda: np.array(best, np.float32))
    assert [*found.places] == places
    assert (found.shown.items, found.shown.ranks) == ([f"new-{n}" for n in range(len(places))], [*range(len(places))])
    assert found.shown.counts.tolist() == [score + 9 for score in scores[: len(places)]]


def test_without_scores_there_are_none_and_kept_places_stay() -> None:
    assert competing([1.0]).placed(None) is NONE
    kept = Arrivals([2], competing([1.0]).shown)
    assert kept.placed(None) is kept


def test_they_stand_where_their_scores_put_them(tmp_path: Path, clock: Clock) -> None:
    plain = shop_with(tmp_path / "plain", None)
    own, middle = shown(plain), between(plain, clock, 2)
    score = ArrivalScore(middle - log1p(3), 1.0, 0.0)  # three readers put it between the second and the third
    shop = shop_with(tmp_path, score)
    with client_of(shop, clock) as client:
        announce(client, "new-1", "new-2", "new-3")
        read(client, {"new-1": 3, "new-2": 200, "new-3": 2})
        answer = asked(client, explain=True)
        longer = asked(client, k=30)
    assert ids(answer)[:5] == ["new-2", own[0], own[1], "new-1", own[2]]
    scores = [item["score"] for item in longer["items"] if item["rung"] != "popular"]
    assert scores == sorted(scores, reverse=True)
    assert ids(longer).index("new-3") > ids(longer).index("new-1"), "two readers are worth less, and something"
    first = answer["items"][0]
    assert (first["rung"], first["base_score"], first["base_rank"]) == ("arrivals", 200.0, 1)
    assert first["score"] == pytest.approx(middle - log1p(3) + log1p(200), abs=1e-4)
    assert first["contributions"] == {"arrivals": first["score"]}
    assert (answer["rung"], answer["topped_up_from"], answer["reason"]) == ("personal", [], None)


def test_so_they_do_by_default(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(1000.0, 1.0, 0.0))
    with AsgiClient(create_app(shop.config(), now=clock)) as client:
        announce(client, "new-1")
        read(client, {"new-1": 3})
        assert ids(asked(client))[:2] == ["new-1", shown(shop)[0]]


def test_of_two_that_as_many_want_the_newer_stands_first(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(1000.0, 0.0, -1.0))
    with client_of(shop, clock) as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 3})
        clock.now += 3 * 3600.0
        read(client, {"new-2": 2})
        clock.now += 3600.0
        answer = asked(client)
    assert ids(answer)[:2] == ["new-2", "new-1"]
    assert scores_of(answer)[:2] == pytest.approx([1000 - log1p(1), 1000 - log1p(4)], abs=1e-3)
    assert [item["base_rank"] for item in answer["items"][:2]] == [2, 1]
    (record,) = answers(shop)
    assert replay(shop.config(LEARNED), record.request_id).differences == []


def test_no_part_of_an_explanation_is_a_negative_zero(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(1000.0, 1.0, 0.0))
    hardly = '{name="hardly", where="category == \\"hats\\"", action="boost", weight=-1e-8}'
    with client_of(shop, clock, f"serve.rules=[{hardly}]") as client:
        announce(client, "new-1", category="hats")
        read(client, {"new-1": 3})
        first = asked(client, explain=True)["items"][0]
    assert first["item"] == "new-1"
    assert {name: repr(part) for name, part in first["contributions"].items()} == {
        "arrivals": repr(first["score"]),
        "rule hardly": "0.0",
    }


def test_a_boost_is_part_of_the_score_and_of_the_log(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(1000.0, 1.0, 0.0))
    boost = '{name="hats", where="category == \\"hats\\"", action="boost", weight=5.0}'
    with client_of(shop, clock, f"serve.rules=[{boost}, {boost}]") as client:
        announce(client, "new-1", "new-3")
        announce(client, "new-2", category="hats")
        read(client, {"new-1": 9, "new-2": 2, "new-3": 3})
        answer = asked(client, explain=True)
    assert ids(answer)[:3] == ["new-2", "new-1", "new-3"], "nobody has said that the others are hats"
    first, second = answer["items"][:2]
    own = 1000 + log1p(2)
    assert first["score"] == pytest.approx(own + 10, abs=1e-3)
    assert first["contributions"] == pytest.approx({"arrivals": own, "rule hats": 10.0}, abs=1e-3)
    assert second["contributions"] == {"arrivals": second["score"]}
    (record,) = answers(shop)
    assert np.frombuffer(record.shown.added, "<f4")[:3].tolist() == [10.0, 0.0, 0.0]
    config = shop.config(LEARNED, f"serve.rules=[{boost}, {boost}]")
    assert replay(config, record.request_id).differences == []


def test_a_cap_keeps_those_that_score_most_and_not_those_that_most_want(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(1000.0, 0.0, -1.0))
    with client_of(shop, clock, "serve.order.caps.brand=1") as client:
        announce(client, "old", "new", brand="of no version")
        read(client, {"old": 9})
        clock.now += 3600.0
        read(client, {"new": 3})
        answer = asked(client)
    assert [item for item in ids(answer) if item in ("old", "new")] == ["new"]


def test_what_a_cap_leaves_out_stands_before_none(tmp_path: Path, clock: Clock) -> None:
    """One that scores less than the best, and more than those of them that the cap lets stand there."""
    cap = "serve.order.caps.category=1"
    shop = shop_with(tmp_path, None)
    with client_of(shop, clock) as client:
        usual = scores_of(asked(client))
    with client_of(shop, clock, cap) as client:
        capped = [item["score"] for item in asked(client)["items"] if item["rung"] == "personal"]
    assert capped[-1] < usual[-1]
    score = (capped[-1] + usual[-1]) / 2
    shop = shop_with(tmp_path / "other", ArrivalScore(score, 0.0, 0.0))
    with client_of(shop, clock, cap) as client:
        announce(client, "new-1")
        read(client, {"new-1": 3})
        answer = asked(client)
    assert "new-1" in ids(answer)
    assert ids(answer).index("new-1") == sum(other > score for other in capped)
    (record,) = answers(shop)
    assert replay(shop.config(LEARNED, cap), record.request_id).differences == []


def test_before_anything_was_learned_there_are_none(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, None)
    with client_of(shop, clock) as client:
        announce(client, "new-1")
        read(client, {"new-1": 9})
        assert ids(asked(client)) == shown(shop)[:6]


def test_they_may_be_the_whole_answer_or_all_there_is(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(1000.0, 1.0, 0.0))
    news = {f"new-{number}": 9 - number for number in range(6)}
    with client_of(shop, clock) as client:
        announce(client, *news)
        read(client, news)
        whole, two = asked(client), asked(client, k=2)
        nothing = asked(client, exclude=shop.items, k=9)
    assert (ids(whole), whole["rung"], whole["reason"]) == ([*news], "arrivals", None)
    assert ids(two) == [*news][:2]
    assert (ids(nothing), nothing["rung"], nothing["reason"]) == ([*news], "arrivals", "list_ran_dry")
    for answer in answers(shop):
        assert replay(shop.config(LEARNED), answer.request_id).differences == []


def test_a_rung_that_has_nothing_to_show_decides_nothing(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(-9.0, 0.0, 0.0))
    empty = {"context": {"segment": "DE"}, "exclude": shop.popular("DE")}
    with client_of(shop, clock) as client:
        announce(client, "new-1")
        read(client, {"new-1": 9})
        short, longer = (ids(asked(client, "nobody", k=k, **empty)) for k in (1, 2))
    assert short == longer[:1] == ["a39"]


def test_without_time_to_rank_and_for_holdouts_there_are_none(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(1000.0, 1.0, 0.0))
    for override, reason in (
        ("serve.deadline_ms=0.000001", "deadline"),
        ("serve.holdouts.popular=1.0", "holdout"),
        ("serve.holdouts.stored_order=1.0", "holdout"),
    ):
        with client_of(shop, clock, override) as client:
            announce(client, "new-1")
            read(client, {"new-1": 9})
            answer = asked(client)
        assert ("new-1" in ids(answer), answer["reason"]) == (False, reason)


def test_what_was_shown_in_vain_scores_less(tmp_path: Path, clock: Clock) -> None:
    plain = shop_with(tmp_path / "plain", None)
    own, middle = shown(plain), between(plain, clock, 1)
    shop = shop_with(tmp_path, ArrivalScore(middle - 10 * log1p(7), 10.0, 0.0))
    with client_of(shop, clock, "sessions.impressions=true") as client:
        announce(client, "new-1")
        read(client, {"new-1": 7})
        assert ids(asked(client, "reader x"))[1] == "new-1"
        client.post("/v1/events", {"events": [{"user": "reader x", "item": "new-1", "event": "impression"}]})
        assert "new-1" not in ids(asked(client, "reader x"))
        assert ids(asked(client))[:2] == [own[0], "new-1"]


@pytest.mark.parametrize(
    "order",
    [
        ["serve.order.diversity=0.5"],
        ["serve.order.caps.brand=1"],
        ["serve.order.explore_positions=[1, 3, 5]", "serve.order.explore_among=10"],
        ['serve.rules=[{name="top", where="id == \\"a12\\"", action="pin", position=2}]'],
        [
            "serve.order.diversity=0.3", "serve.order.caps.brand=2", "serve.order.explore_positions=[3]",
            'serve.rules=[{name="top", where="id == \\"a12\\"", action="pin", position=1}]',
        ],
    ],
    ids=["diversity", "caps", "chance", "a pin", "all of them"],
)  # fmt: skip
def test_constraints_order_all_others_as_without_them(tmp_path: Path, clock: Clock, order: list[str]) -> None:
    """Positions of chance and pins are not theirs, and the others keep their order around them."""
    plain = shop_with(tmp_path / "plain", None)
    score = ArrivalScore(between(plain, clock, 1) - log1p(3), 1.0, 0.0)
    shop = shop_with(tmp_path, score)
    with client_of(shop, clock, *order) as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 3, "new-2": 9})
        answer = asked(client)
    (record,) = answers(shop)
    config = shop.config(LEARNED, *order)
    assert replay(config, record.request_id).differences == []
    assert {of.unequal for of in skew(config, 10).signals} == {0}
    arrived = [item["rank"] for item in answer["items"] if item["rung"] == "arrivals"]
    assert len(arrived) == 2
    odds = np.frombuffer(record.shown.propensities, "<f4")
    if "explore_positions" in order[0]:
        assert arrived == [2, 4]
        assert [bool(odd < 1.0) for odd in odds] == [True, False, True, False, True, False]
    elif "position=2" in order[0]:
        assert arrived == [1, 3]
        assert ids(answer)[1] == "a12"
    elif len(order) > 1:
        assert (arrived, ids(answer)[0]) == ([2, 4], "a12")
        assert odds[2] < 1.0
    else:
        assert arrived == [1, 3], "their places do not depend on what the constraints do to the others"


def test_the_log_has_their_scores(tmp_path: Path, clock: Clock) -> None:
    shop = shop_with(tmp_path, ArrivalScore(1000.0, 1.0, 0.0))
    with client_of(shop, clock) as client:
        announce(client, "new-1")
        read(client, {"new-1": 9})
        answer = asked(client)
    (record,) = answers(shop)
    logged: Float32 = np.frombuffer(record.shown.scores, "<f4")
    assert logged.round(3) == pytest.approx(scores_of(answer), abs=1e-3)
    assert np.frombuffer(record.shown.base_scores, "<f4")[0] == 9.0
    assert record.time == NOW
