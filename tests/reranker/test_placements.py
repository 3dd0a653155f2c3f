"""Rules, caps, diversity and chance in whole answers, and what the log keeps of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from asgi_client import AsgiClient
from live_changes import change
from serving_shop import MADE_AT, OUT_OF_STOCK, Shop
from shop_store import write_small_version

from reranker.answered import numbers
from reranker.app import create_app
from reranker.recommend import Reranker, open_reranker
from reranker.requests import convert_request
from reranker.serving_log.records import AnswerRecord
from schemas.config_file import load_config
from schemas.errors import ConfigError
from schemas.messages import RecommendAnswer
from schemas.rules import Order, Rule
from shortlist import run


@contextmanager
def opened(shop: Shop, rules: list[Rule], order: Order | None = None) -> Iterator[Reranker]:
    config = shop.config()
    serve = msgspec.structs.replace(config.serve, rules=rules, order=order or Order())
    with open_reranker(msgspec.structs.replace(config, serve=serve), now=lambda: MADE_AT + 60.0) as reranker:
        yield reranker


def ids(reranker: Reranker, user: str = "u0", **fields: object) -> list[str]:
    return [item.item for item in asked(reranker, user, **fields).items]


def asked(reranker: Reranker, user: str = "u0", **fields: object) -> RecommendAnswer:
    return reranker.recommend(convert_request({"user": user, "k": 20, **fields}))


def price(item: str) -> int:
    return 1 + int(item[1:])


def test_an_exclude_holds_on_every_rung_of_its_placement_only(stocked_shop: Shop) -> None:
    rule = Rule(name="dear", where="price > 10", action="exclude", placements=["basket"])
    with opened(stocked_shop, [rule]) as reranker:
        for user in ("u0", "nobody"):
            assert {price(item) > 10 for item in ids(reranker, user, k=40, placement="basket")} == {False}
            assert {price(item) > 10 for item in ids(reranker, user, k=40)} == {True, False}


def test_an_include_leaves_nothing_else(stocked_shop: Shop) -> None:
    with opened(stocked_shop, [Rule(name="cheap", where="price < 4", action="include")]) as reranker:
        answer = asked(reranker, "nobody")
        assert sorted(item.item for item in answer.items) == ["a00", "a01", "a02"]


def test_the_lists_without_a_session_leave_out_what_the_rules_of_their_placement_do(stocked_shop: Shop) -> None:
    rules = [
        Rule(name="everywhere", where="price == 40 or price == 3", action="exclude"),
        Rule(name="first", where="price > 36", action="include", placements=["popular"]),
        Rule(name="no boost", where="price == 37", action="boost", weight=9.0),
        Rule(name="no pin", where="price == 38", action="pin", position=1),
        Rule(name="near", where="price == 4", action="exclude", placements=["similar"]),
        Rule(name="late", where="price == 1", action="exclude", placements=["trending"]),
        Rule(name="elsewhere", where="price > 0", action="exclude", placements=["home"]),
    ]
    with opened(stocked_shop, []) as plain:
        near = [item.item for item in plain.similar("a01").items]
        assert near[:2] == ["a02", "a00"] and "a03" in near
    with opened(stocked_shop, rules) as reranker:
        assert [item.item for item in reranker.popular(k=2).items] == ["a38", "a37"]
        assert [item.item for item in reranker.popular().items] == ["a38", "a37", "a36"]
        assert [item.item for item in reranker.trending().items] == ["a01"]
        assert [item.item for item in reranker.similar("a01").items] == [i for i in near if i not in ("a02", "a03")]


def test_the_lists_over_http_leave_out_the_same(stocked_shop: Shop) -> None:
    where = 'serve.rules=[{name = "some", where = "price == 40 or price == 3", action = "exclude"}]'
    with AsgiClient(create_app(stocked_shop.config(where, "log.answers=false", "sessions.enabled=false"))) as client:
        popular, near = (client.get(path).json()["items"] for path in ("/v1/popular?k=2", "/v1/similar/a01?k=1"))
    assert [item["item"] for item in popular] == ["a38", "a37"]
    assert [item["item"] for item in near] == ["a00"]


def test_rules_look_at_the_price_and_the_stock_of_now(shop: Shop) -> None:
    shop.publish("a")
    rules = [
        Rule(name="cheap", where="price < 4", action="exclude"),
        Rule(name="dear", where="price >= 4 and in_stock", action="include"),
    ]
    with opened(shop, rules) as reranker:
        before = set(ids(reranker, k=40))
        assert before == set(shop.items[3:]) - {shop.items[OUT_OF_STOCK]}
        reranker.live.set([change("a00", price=9.0), change("a10", price=1.0), change("a05", in_stock=True)], now=5.0)
        assert set(ids(reranker, k=40)) == (before | {"a00", "a05"}) - {"a10"}
        assert {item.item for item in reranker.popular(k=40).items} == set(ids(reranker, k=40))
        back = [change("a00", price=None), change("a10", price=None), change("a05", in_stock=None)]
        reranker.live.set(back, now=6.0)
        assert set(ids(reranker, k=40)) == before


def test_the_price_of_one_item_changes_what_rules_say_of_no_other(tmp_path: Path) -> None:
    """A version's prices are float32: 19.99 is a little less there than what the rule says."""
    shop = Shop(tmp_path / "store")
    write_small_version(shop.root, columns={"price": np.full(12, 19.99, np.float32)}, cut_over=True)
    rule = Rule(name="from 19.99 on", where="price >= 19.99 and price in [19.99, 24.99]", action="include")
    with opened(shop, [rule]) as reranker:
        before = ids(reranker, "ann")
        assert len(before) == 11
        reranker.live.set([change("item-7", price=3.0), change("item-8", price=24.99)], now=5.0)
        assert ids(reranker, "ann") == [item for item in before if item != "item-7"]


def test_a_boost_moves_items_up_and_is_part_of_the_explained_score(stocked_shop: Shop) -> None:
    rule = Rule(name="clear the shelf", where="price == 13", action="boost", weight=5.0)
    with opened(stocked_shop, [rule]) as reranker:
        first = asked(reranker, explain=True).items[0]
        assert first.item == "a12"
        assert isinstance(first.contributions, dict)
        assert first.contributions["rule clear the shelf"] == 5.0
        assert first.score == pytest.approx(sum(first.contributions.values()), abs=1e-4)


def test_boosts_of_one_name_are_one_part_of_the_explained_score(stocked_shop: Shop) -> None:
    conditions = {"price == 13": 5.0, 'category == "category 1"': 0.5}
    rules = [Rule(name="ours", where=where, action="boost", weight=weight) for where, weight in conditions.items()]
    with opened(stocked_shop, rules) as reranker:
        first = asked(reranker, explain=True).items[0]
        assert first.item == "a12"
        assert isinstance(first.contributions, dict)
        assert first.contributions["rule ours"] == 5.5
        assert first.score == pytest.approx(sum(first.contributions.values()), abs=1e-4)


def test_a_pin_stands_where_it_was_pinned_and_the_rest_keep_their_order(stocked_shop: Shop) -> None:
    with opened(stocked_shop, []) as plain:
        usual = ids(plain)
    with opened(stocked_shop, [Rule(name="pin", where="price == 12", action="pin", position=2)]) as reranker:
        found = ids(reranker)
    assert found[1] == "a11"
    assert [item for item in found if item != "a11"] == [item for item in usual if item != "a11"][: len(found) - 1]


def test_a_pin_of_what_only_a_later_rung_has_changes_nothing(stocked_shop: Shop) -> None:
    request = {"exclude": stocked_shop.list_of("u0")[2:], "context": {"segment": "DE"}, "k": 10}
    with opened(stocked_shop, []) as plain:
        usual = asked(plain, **request)
    assert [item.rung for item in usual.items if item.item == "a26"] == ["segment"]
    with opened(stocked_shop, [Rule(name="pin", where="price == 27", action="pin", position=1)]) as reranker:
        assert ids(reranker, **request) == [item.item for item in usual.items]


def test_a_cap_holds_over_all_rungs_of_an_answer(stocked_shop: Shop) -> None:
    with opened(stocked_shop, [], Order(caps={"category": 3})) as reranker:
        answer = asked(reranker, "u0", k=40, explain=True)
        assert answer.topped_up_from
        of_category = [int(item.item[1:]) // 10 for item in answer.items if int(item.item[1:]) % 7 != 6]
    assert max(np.bincount(of_category)) == 3


def test_chance_is_logged_with_its_odds_and_drawn_anew_for_each_request(stocked_shop: Shop) -> None:
    order = Order(explore_positions=[2], explore_among=5)
    records: list[AnswerRecord] = []
    with opened(stocked_shop, []) as plain:
        usual = ids(plain)
    with opened(stocked_shop, [], order) as reranker:
        reranker.on_answer = records.append
        seconds = {ids(reranker, placement="basket")[1] for _ in range(60)}
    assert seconds == set(usual[1:6])
    assert {record.placement for record in records} == {"basket"}
    for record in records:
        assert numbers(record.shown.propensities).tolist() == [1.0, pytest.approx(0.2), *[1.0] * 18]


def test_diversity_mixes_clusters_that_scores_keep_together(stocked_shop: Shop) -> None:
    with opened(stocked_shop, []) as plain:
        together = {item[1] for item in ids(plain, k=4)}
    with opened(stocked_shop, [], Order(diversity=0.7)) as reranker:
        mixed = {item[1] for item in ids(reranker, k=4)}
    assert len(mixed) > len(together)


def test_a_rule_that_the_version_has_no_column_for_is_left_out_and_told(
    stocked_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, str]] = []
    monkeypatch.setattr("reranker.recommend.log.error", lambda _, **facts: told.append(facts))
    rules = [Rule(name="colour", where="colour == 'red'", action="include")]
    with opened(stocked_shop, rules) as reranker:
        assert len(ids(reranker)) == len(ids(reranker)) == 20
    (once,) = told
    assert "no column 'colour'" in once["reason"]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("brnad", "has no column 'brnad'"),
        ("title", "of texts; wanted one of categories"),
        ("price", "of numbers; wanted"),
    ],
)
def test_a_cap_on_what_has_no_categories_caps_nothing_and_is_told_once(
    stocked_shop: Shop, monkeypatch: pytest.MonkeyPatch, column: str, reason: str
) -> None:
    told: list[dict[str, str]] = []
    monkeypatch.setattr("reranker.recommend.log.error", lambda _, **facts: told.append(facts))
    with opened(stocked_shop, []) as plain:
        usual = ids(plain)
    with opened(stocked_shop, [], Order(caps={column: 1, "category": 40})) as reranker:
        assert ids(reranker) == ids(reranker) == usual
    (once,) = told
    assert f"cap {column!r}: " in once["reason"]
    assert reason in once["reason"]


def test_rules_come_from_the_file_and_one_that_cannot_be_read_stops_the_start(
    stocked_shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shortlist.toml"
    text = f'[paths]\nstore = "{stocked_shop.root}"\n[serve.order]\ncaps = {{ category = 2 }}\n'
    text += '[[serve.rules]]\nname = "dear"\nwhere = "price > 10 and"\naction = "exclude"\n'
    file.write_text(text)
    config = load_config(file, [])
    assert config.serve.rules == [Rule(name="dear", where="price > 10 and", action="exclude")]
    assert config.serve.order.caps == {"category": 2}
    assert run(["serve", "--config", str(file), "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert "rule 'dear'" in error
    assert "character 15" in error
    file.write_text(text.replace('"exclude"', '"hide"'))
    with pytest.raises(ConfigError, match=r"serve\.rules"):
        load_config(file, [])
