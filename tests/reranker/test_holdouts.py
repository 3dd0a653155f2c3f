"""Holdouts: who is in one, what they are answered, and that it can be told apart afterwards."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from asgi_client import AsgiClient
from serving_shop import MADE_AT, Shop

import shortlist
from reranker.app import create_app
from reranker.holdouts import holdout_of
from reranker.recommend import open_reranker
from reranker.replay import replay
from reranker.requests import convert_request
from schemas.messages import RecommendAnswer
from schemas.serving_config import Holdouts

USERS = [f"u{number}" for number in range(20_000)]


def test_each_holdout_has_its_share_of_the_users() -> None:
    shares = Holdouts(stored_order=0.3, popular=0.05)
    found = Counter(holdout_of(user, shares) for user in USERS)
    assert found["stored_order"] / len(USERS) == pytest.approx(0.3, abs=0.01)
    assert found["popular"] / len(USERS) == pytest.approx(0.05, abs=0.005)


def test_whoever_is_in_a_holdout_stays_in_it_while_any_of_them_grows() -> None:
    small, larger = Holdouts(stored_order=0.1, popular=0.1), Holdouts(stored_order=0.5, popular=0.4)
    for user in USERS:
        before, after = holdout_of(user, small), holdout_of(user, larger)
        assert before in ("", after)


def test_all_users_may_be_in_one_and_none_is_without_a_share() -> None:
    assert {holdout_of(user, Holdouts(stored_order=1.0)) for user in USERS} == {"stored_order"}
    assert {holdout_of(user, Holdouts(popular=1.0)) for user in USERS} == {"popular"}
    assert {holdout_of(user, Holdouts()) for user in USERS} == {""}


def test_who_is_in_a_holdout_is_the_same_on_each_host_and_in_each_release() -> None:
    half = Holdouts(stored_order=0.5, popular=0.5)
    assert [holdout_of(user, half) for user in ("u0", "u1", "ü2", "\ud800")] == [
        "popular",
        "popular",
        "stored_order",
        "stored_order",
    ]


def answer_of(shop: Shop, *overrides: str) -> RecommendAnswer:
    with open_reranker(shop.config(*overrides), now=lambda: MADE_AT + 3600.0) as reranker:
        session = [{"item": item} for item in ("a12", "a14", "a16")]
        return reranker.recommend(convert_request({"user": "u0", "k": 5, "session": session}))


def test_a_holdout_is_answered_with_the_list_in_its_order_or_with_what_is_popular(stocked_shop: Shop) -> None:
    usual = answer_of(stocked_shop)
    plain = answer_of(stocked_shop, "serve.holdouts.stored_order=1.0")
    popular = answer_of(stocked_shop, "serve.holdouts.popular=1.0")
    in_stock = [item for item in stocked_shop.list_of("u0") if stocked_shop.in_stock(item)]
    assert [item.item for item in plain.items] == in_stock[:5] != [item.item for item in usual.items]
    assert (usual.rung, usual.reason) == ("personal", None)
    assert (plain.rung, plain.reason) == ("stored_order", "holdout")
    assert (popular.rung, popular.reason) == ("popular", "holdout")


def test_an_item_of_a_holdout_is_explained_by_it_and_not_by_a_lack_of_time(stocked_shop: Shop) -> None:
    request = convert_request({"user": "u0", "k": 1, "explain": True})
    whys = []
    for name in ("stored_order", "popular"):
        with open_reranker(stocked_shop.config(f"serve.holdouts.{name}=1.0"), now=lambda: MADE_AT + 3600.0) as reranker:
            whys += [item.why for item in reranker.recommend(request).items]
    assert whys == [
        "number 1 of your list; the user is in a holdout",
        "number 1 of what is popular; the user is in a holdout",
    ]


@pytest.mark.parametrize("name", ["stored_order", "popular"])
def test_an_answer_to_a_holdout_is_replayed_bit_for_bit_whoever_is_in_it_now(shop: Shop, name: str) -> None:
    shop.publish("a")
    with AsgiClient(create_app(shop.config(f"serve.holdouts.{name}=1.0"))) as client:
        told = client.post("/v1/recommend", {"user": "u0", "k": 5, "session": [{"item": "a31"}]}).json()
    found = replay(shop.config(), told["request_id"])
    assert found.recorded.holdout == name
    assert found.differences == []


def test_what_came_of_the_holdouts_is_told_apart(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.publish("a")
    shares = ("serve.holdouts.stored_order=0.5", "serve.holdouts.popular=0.2")
    users = USERS[:40]
    with AsgiClient(create_app(shop.config(*shares))) as client:
        for user in users:
            client.post("/v1/recommend", {"user": user, "k": 5})
    capsys.readouterr()  # the server's log
    assert shortlist.run(["outcomes", "--by", "holdout", "--json", "--set", f"paths.store={shop.root}"]) == 0
    told = {group["group"]: group["users"] for group in json.loads(capsys.readouterr().out)["groups"]}
    found = Counter(holdout_of(user, shop.config(*shares).serve.holdouts) or "none" for user in users)
    assert told == dict(found)
    assert len(told) == 3
