"""Items that came after the version was made: at places of their own while many want them and the shop has them."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from arriving import NOW, Clock, announce, answers, asked, ids, read, shown
from asgi_client import AsgiClient
from server_log import logged_as_by_a_server
from serving_shop import Shop

from prediction_store.reader import Version
from reranker import trending_now
from reranker.app import create_app
from reranker.outcomes import outcomes
from reranker.replay import replay
from reranker.serving_log.reading import read_log
from reranker.serving_log.records import TrendingRecord
from reranker.skew import skew
from reranker.trending_now import Trending
from schemas.ranker import RankerWeights
from schemas.serving_config import Serve

PLACES = "serve.arrivals=[2, 4]"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path / "store")
    made.publish("a")
    return made


def client_of(shop: Shop, clock: Clock, *overrides: str) -> AsgiClient:
    return AsgiClient(create_app(shop.config(PLACES, *overrides), now=clock))


def test_what_many_want_and_no_version_knows_stands_at_its_places(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        assert announce(client, "new-1", "new-2", "new-3")["unknown"] == ["new-1", "new-2", "new-3"]
        read(client, {"new-1": 3, "new-2": 7, "new-3": 2, "never announced": 9})
        answer = asked(client, explain=True)
        stranger = asked(client, "nobody")
        session = asked(client, "nobody", session=[{"item": "a02"}])
    own = shown(shop)
    assert ids(answer) == [own[0], "new-2", own[1], "new-1", own[2], own[3]]
    assert [item["rung"] for item in answer["items"][:4]] == ["personal", "arrivals", "personal", "arrivals"]
    first = answer["items"][1]
    assert (first["score"], first["base_rank"], first["sources"]) == (7.0, 1, ["arrivals"])
    assert first["why"] == "new since the lists were made, and what many want just now"
    assert (answer["rung"], answer["topped_up_from"]) == ("personal", [])
    for other, rung in ((stranger, "popular"), (session, "session")):
        assert (ids(other)[1], ids(other)[3], other["rung"]) == ("new-2", "new-1", rung)


def test_without_places_for_them_everything_is_as_ever(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock, "serve.arrivals=[]") as client:
        announce(client, "new-1")
        read(client, {"new-1": 9})
        assert ids(asked(client)) == shown(shop)[:6]


def test_what_one_user_wants_or_nobody_has_announced_is_no_arrival(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        announce(client, "new-1")
        read(client, {"new-1": 1, "never announced": 9})
        clock.now += 1.0
        assert ids(asked(client)) == shown(shop)[:6]


def test_an_item_of_the_version_is_none(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        announce(client, "a39")
        read(client, {"a39": 9})
        assert "arrivals" not in {item["rung"] for item in asked(client)["items"]}


@pytest.mark.parametrize(
    "change",
    [{"hidden": True}, {"in_stock": False}, {"in_stock": None}, {"available_until": NOW + 1}],
    ids=lambda change: next(iter(change)),
)
def test_what_the_shop_has_no_more_goes_with_the_next_request(shop: Shop, clock: Clock, change: dict[str, Any]) -> None:
    with client_of(shop, clock) as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 3, "new-2": 2})
        assert ids(asked(client))[1] == "new-1"
        assert client.post("/v1/items", {"items": [{"item": "new-1", **change}]}).status == 200
        clock.now += 2.0
        after = ids(asked(client))
        assert (after[1], "new-1" in after) == ("new-2", False)


def test_what_the_user_excludes_or_has_seen_is_not_shown_again(shop: Shop, clock: Clock) -> None:
    own = shown(shop)
    with client_of(shop, clock) as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 3, "new-2": 2})
        assert ids(asked(client, exclude=["new-1"]))[:4] == [own[0], "new-2", own[1], own[2]]
        assert "new-1" not in ids(asked(client, session=[{"item": "new-1"}]))
        read(client, {"new-1": 1})  # by one who asks next
        assert "new-1" not in ids(asked(client, "reader 0"))
    with client_of(shop, clock, 'serve.seen.policy="allow"') as client:
        assert "new-1" in ids(asked(client, session=[{"item": "new-1"}]))
        assert "new-1" not in ids(asked(client, session=[{"item": "new-1", "event": "purchase"}]))


def test_what_was_bought_and_may_be_bought_again_is_shown_though_it_was_seen(shop: Shop, clock: Clock) -> None:
    session = [{"item": "new-1"}, {"item": "new-1", "event": "purchase"}]
    for policy, is_shown in (("allow", True), ("hide", False)):
        with client_of(shop, clock, f'serve.bought.policy="{policy}"') as client:
            announce(client, "new-1")
            read(client, {"new-1": 3})
            assert ("new-1" in ids(asked(client, session=session))) is is_shown


def test_what_was_shown_in_vain_steps_back(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock, "sessions.impressions=true") as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 5, "new-2": 4})
        read(client, {"new-1": 1}, "impression")
        assert [ids(asked(client, "reader x"))[place] for place in (1, 3)] == ["new-1", "new-2"]
        impression = {"user": "reader x", "item": "new-1", "event": "impression"}
        client.post("/v1/events", {"events": [impression]})
        assert [ids(asked(client, "reader x"))[place] for place in (1, 3)] == ["new-2", "new-1"]


def test_so_it_does_where_the_signal_has_no_weight(shop: Shop, clock: Clock) -> None:
    shop.publish("a", ranker=RankerWeights(["base_score"], [1.0], "space"))
    with client_of(shop, clock, "sessions.impressions=true") as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 5, "new-2": 4})
        impression = {"user": "reader x", "item": "new-1", "event": "impression"}
        client.post("/v1/events", {"events": [impression]})
        assert [ids(asked(client, "reader x"))[place] for place in (1, 3)] == ["new-2", "new-1"]


def test_pins_keep_their_positions_and_rules_hold(shop: Shop, clock: Clock) -> None:
    last = shown(shop)[-1]
    pin = '{name="top", where="popularity > 0.9", action="pin", position=2, placements=["home"]}'
    later = f'{{name="later", where="id == \\"{last}\\"", action="pin", position=5, placements=["home"]}}'
    dear = '{name="dear", where="price > 50", action="exclude", placements=["home"]}'
    include = '{name="shoes", where="category == \\"category 1\\"", action="include", placements=["basket"]}'
    where = 'id == \\"new-2\\" or not in_stock'
    named = f'{{name="named", where="{where}", action="exclude", placements=["x"]}}'
    with client_of(shop, clock, f"serve.rules=[{pin}, {later}, {dear}, {include}, {named}]") as client:
        announce(client, "new-1", price=99.0)
        announce(client, "new-2", price=9.0)
        read(client, {"new-1": 5, "new-2": 4})
        home, basket, other = asked(client), asked(client, placement="basket"), asked(client, placement="x")
        elsewhere = asked(client, placement="elsewhere")
    assert (ids(home)[3], ids(home)[4]) == ("new-2", last)
    assert home["items"][1]["rung"] == "personal"
    assert {item["rung"] for item in basket["items"]} <= {"personal", "popular"}
    assert (ids(other)[1], "new-2" in ids(other)) == ("new-1", False)
    assert [ids(elsewhere)[place] for place in (1, 3)] == ["new-1", "new-2"]


HATS = '{name="hats", where="category == \\"hats\\"", action="exclude", placements=["home"]}'
ONLY = '{name="only", where="category == \\"shoes\\"", action="include", placements=["basket"]}'
NOT = '{name="not", where="not (brand == \\"acme\\" or price > 50)", action="include", placements=["mail"]}'
AGE = '{name="age", where="released < 0", action="exclude", placements=["news"]}'


def test_rules_know_what_was_announced_and_leave_out_what_they_cannot_judge(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock, f"serve.rules=[{HATS}, {ONLY}, {NOT}, {AGE}]") as client:
        announce(client, "hat", category="hats", brand="acme", price=1.0)
        announce(client, "shoe", category="shoes", brand="emca", price=2.0)
        announce(client, "what", brand="emca")
        read(client, {"hat": 9, "shoe": 8, "what": 7})

        def arrived(placement: str) -> list[str]:
            found = asked(client, placement=placement)["items"]
            return [item["item"] for item in found if item["rung"] == "arrivals"]

        assert arrived("home") == ["shoe"], "nobody said that the third is no hat"
        assert arrived("basket") == ["shoe"]
        assert arrived("mail") == ["shoe"], "what the third costs nobody knows, and `not` makes that no yes"
        assert arrived("news") == [], "no arrival has a day of release"
        assert arrived("elsewhere") == ["hat", "shoe"]
        client.post("/v1/items", {"items": [{"item": "what", "category": "bags", "price": 3.0}]})
        assert arrived("home") == ["shoe", "what"], "from the next request on"


def test_the_log_names_rules_that_no_arrival_passes_once_for_each_version(shop: Shop, clock: Clock) -> None:
    boost = '{name="boost", where="popularity > 0.9", action="boost", weight=1.0}'
    trend = '{name="trend", where="price > 1 and trend > 0.1", action="include", placements=["mail"]}'
    rules = f"serve.rules=[{HATS}, {ONLY}, {NOT}, {AGE}, {boost}, {trend}]"
    for overrides, wanted in (((), [("age", "released"), ("trend", "trend")]), (("serve.arrivals=[]",), [])):
        with logged_as_by_a_server(stream := StringIO()), client_of(shop, clock, rules, *overrides) as client:
            asked(client)
        lines = [line for line in map(json.loads, stream.getvalue().splitlines()) if line["level"] == "warning"]
        assert [(line["rule"], line["column"]) for line in lines] == wanted
        assert all((line["event"], line["version"]) == ("no arrival passes a rule", shop.current()) for line in lines)


def test_caps_count_what_was_announced(shop: Shop, clock: Clock) -> None:
    own = shown(shop)
    with Version.open(shop.root, shop.current()) as version:
        column = version.categories("brand")
        assert column is not None
        brand_of = dict(zip(shop.items, column.texts(range(len(shop.items))), strict=True))
    first = next(brand_of[item] for item in own if brand_of[item])
    with client_of(shop, clock, "serve.order.caps.brand=1") as client:
        announce(client, "new-1", "new-2", brand=first)
        announce(client, "new-3", "new-4", brand="of no version")
        announce(client, "new-5")
        read(client, {"new-1": 9, "new-2": 8, "new-3": 7, "new-4": 6, "new-5": 5})
        answer = asked(client)
    assert [ids(answer)[place] for place in (1, 3)] == ["new-1", "new-3"]
    brands = [brand for item in ids(answer) if (brand := brand_of.get(item))]
    assert first not in brands, "the version's own count, too"
    assert len(set(brands)) == len(brands) > 0


def test_an_explained_one_has_its_title(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        announce(client, "new-1", title="Ein Hut")
        announce(client, "new-2")
        read(client, {"new-1": 3, "new-2": 2})
        answer = asked(client, explain=True)
    assert [answer["items"][place]["title"] for place in (1, 3)] == ["Ein Hut", ""]


def test_they_move_up_where_the_list_is_short_and_may_be_all_there_is(shop: Shop, clock: Clock) -> None:
    everything = [item for item in shop.items if item != shop.list_of("u0")[0]]
    with client_of(shop, clock) as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 3, "new-2": 2})
        short = asked(client, exclude=everything)
        nothing = asked(client, exclude=shop.items)
        one = asked(client, k=1)
    assert ids(short) == [shop.list_of("u0")[0], "new-1", "new-2"]
    assert (ids(nothing), nothing["rung"], nothing["reason"]) == (["new-1", "new-2"], "arrivals", "list_ran_dry")
    assert ids(one) == shown(shop)[:1]


def test_a_place_for_the_only_item_is_all_of_an_answer(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock, "serve.arrivals=[1]") as client:
        announce(client, "new-1")
        read(client, {"new-1": 3})
        found = asked(client, k=1)
    assert (ids(found), found["rung"], found["reason"]) == (["new-1"], "arrivals", None)


def test_chance_keeps_its_positions_and_odds(shop: Shop, clock: Clock) -> None:
    order = ("serve.order.explore_positions=[3, 5]", "serve.order.explore_among=10")
    with client_of(shop, clock, *order) as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 3, "new-2": 2})
        asked(client)
    (record,) = answers(shop)
    odds = np.frombuffer(record.shown.propensities, "<f4")
    assert [record.shown.items[place] for place in (1, 3)] == ["new-1", "new-2"]
    assert [float(odds[place]) for place in (0, 1, 3, 5)] == [1.0] * 4
    assert 0.0 < odds[2] < 1.0
    assert 0.0 < odds[4] < 1.0


def test_the_log_has_them_at_their_ranks_and_a_replay_is_equal(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        announce(client, "new-1", "new-2")
        read(client, {"new-1": 3, "new-2": 2})
        answer = asked(client)
        click = {"user": "u0", "item": "new-1", "event": "view", "request_id": answer["request_id"]}
        client.post("/v1/events", {"events": [click]})
    (record,) = answers(shop)
    part = record.shown
    assert part.items == ids(answer)
    assert np.frombuffer(part.scores, "<f4").round(6) == pytest.approx([item["score"] for item in answer["items"]])
    values = np.frombuffer(part.values, "<f4").reshape(6, -1)
    assert np.isnan(values).all(axis=1).tolist() == [False, True, False, True, False, False]
    assert len(part.propensities) == len(part.base_scores) == 4 * 6
    config = shop.config(PLACES)
    assert replay(config, record.request_id).differences == []
    assert {(of.values, of.unequal) for of in skew(config, 10).signals} == {(4, 0)}, "arrivals have no signals"
    clicked = {group.group: group.clicked for group in outcomes(config, "rung", NOW - 1, NOW + 1).groups}
    assert clicked == {"arrivals": 1, "personal": 0}


def test_a_worker_that_starts_later_and_another_version_know_them(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        announce(client, "new-1", "b07")
        read(client, {"new-1": 3, "b07": 2})
    with client_of(shop, clock) as client:
        assert [ids(asked(client))[place] for place in (1, 3)] == ["new-1", "b07"]
    shop.publish("b")  # tonight's version has b07
    with client_of(shop, clock) as client:
        answer = asked(client)
    assert [item["item"] for item in answer["items"] if item["rung"] == "arrivals"] == ["new-1"]


def test_what_was_announced_goes_on_where_the_next_version_does_not_say_it(shop: Shop, clock: Clock) -> None:
    """Tonight's version has them from what users did: the table of items was exported before they came."""
    hats = '{name="hats", where="category == \\"hats\\"", action="exclude"}'
    title = '{name="title", where="title == \\"Ein Hut\\"", action="exclude"}'
    shop.publish("b")
    untold, told = (f"b{item:02}" for item in (6, 7))  # the one has no category there, the other one has
    with client_of(shop, clock, f"serve.rules=[{hats}, {title}]") as client:
        before = ids(asked(client, k=40))
        announce(client, untold, told, category="hats", title="Ein Hut")
        hidden = ids(asked(client, k=40))
        facts = [client.get(f"/v1/items/{item}").json() for item in (untold, told)]
        announce(client, untold, category="shoes")
        shown_again = ids(asked(client, k=40))
    assert [item in before for item in (untold, told)] == [True, True]
    assert [item in hidden for item in (untold, told)] == [False, True]
    assert [fact["category"]["source"] for fact in facts] == ["live", "version"]
    assert facts[0]["category"]["value"] == "hats"
    assert facts[1]["title"] == {"value": f"Title of {told}", "source": "version"}
    assert shown_again == before


def test_caps_count_what_was_announced_where_the_next_version_does_not_say_it(shop: Shop, clock: Clock) -> None:
    shop.publish("b")
    with client_of(shop, clock, "serve.order.caps.brand=1") as client:
        before = ids(asked(client, k=40))
        without = [item for item in before if int(item[1:]) % 4 == 3]
        announce(client, *without, brand="of no version")
        after = ids(asked(client, k=40))
        announce(client, *without, brand=None)
        assert ids(asked(client, k=40)) == before
    assert len(without) > 1
    assert [item for item in after if item in without] == without[:1]


def test_where_their_counts_stand_is_found_before_a_version_is_taken(
    shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second of a hundred thousand of them, in which requests go on."""
    with client_of(shop, clock) as client:
        announce(client, "new-1")
        read(client, {"new-1": 3})
    with client_of(shop, clock) as client:
        found, cells_of = list[str](), trending_now.cells_of
        monkeypatch.setattr(trending_now, "cells_of", lambda items: (found.extend(items), cells_of(items))[1])
        assert ids(asked(client))[1] == "new-1"
    assert found == [], "a request has not waited for it"


def test_who_is_in_a_holdout_gets_none(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock, "serve.holdouts.popular=1.0") as client:
        announce(client, "new-1")
        read(client, {"new-1": 3})
        assert "new-1" not in ids(asked(client))


def test_a_log_without_them_is_read(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        read(client, {"a07": 3})
        asked(client)
    (record,) = (found for found in read_log(shop.root / "events", pytest.fail) if isinstance(found, TrendingRecord))
    older = msgspec.msgpack.encode(["trending", record.number, record.time, record.items, record.counts])
    assert msgspec.msgpack.decode(older, type=TrendingRecord) == record


def test_a_log_that_does_not_know_since_when_is_read(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        announce(client, "new-1")
        read(client, {"new-1": 3})
        asked(client)
    (record,) = (found for found in read_log(shop.root / "events", pytest.fail) if isinstance(found, TrendingRecord))
    assert np.frombuffer(record.since, "<f8").tolist() == [NOW]
    with Version.open(shop.root, shop.current()) as version:
        assert Trending.of(version, record).since.tolist() == [NOW]
        older = msgspec.structs.replace(record, since=b"", time=NOW + 5)
        assert Trending.of(version, older).since.tolist() == [NOW + 5]


def test_places_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="arrivals 300 is beyond max_k 200"):
        Serve(arrivals=[300])
    order = msgspec.convert({"explore_positions": [3]}, type=type(Serve().order))
    with pytest.raises(ValueError, match="position 3 is for arrivals, and left to chance"):
        Serve(arrivals=[3], order=order)
