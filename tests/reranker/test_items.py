"""Live facts about items over HTTP: bodies that are refused, what is answered, counted and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog
from asgi_client import JSON_HEADERS, AsgiClient
from live_changes import change, damage
from server_log import logged_as_by_a_server
from serving_shop import OUT_OF_STOCK, Shop
from shop_server import eventually

from prediction_store import layout
from prediction_store.live_items import LiveItems
from reranker.app import create_app
from reranker.recommend import open_reranker
from schemas.live_items import ItemChangesAnswer, ItemNow
from schemas.messages import ErrorAnswer, RecommendRequest

PATH = "/v1/items"
DEEP = b"[" * 30_000 + b"]" * 30_000


def body(*items: object) -> bytes:
    return json.dumps({"items": items}).encode()


def with_facts(**facts: object) -> bytes:
    return body({"item": "a01", **facts})


MALFORMED: dict[str, tuple[bytes, int, str | None]] = {
    "nothing": (b"", 400, None),
    "half an object": (b'{"items": [', 400, None),
    "NaN": (b'{"items": [{"item": "a01", "price": NaN}]}', 400, "items[0].price"),
    "bytes that are not UTF-8": (b'{"items": [{"item": "\xff", "hidden": true}]}', 400, "items[0].item"),
    "a lone surrogate": (b'{"items": [{"item": "\\ud800", "hidden": true}]}', 400, "items[0].item"),
    "deep nesting": (DEEP, 422, None),
    "deep nesting in a field": (b'{"items": [{"item": "a01", "price": ' + DEEP + b"}]}", 422, "items[0].price"),
    "an array": (b"[]", 422, None),
    "an empty object": (b"{}", 422, "items"),
    "no items": (body(), 422, "items"),
    "items that are an object": (b'{"items": {"item": "a01", "hidden": true}}', 422, "items"),
    "items of strings": (body("a01"), 422, "items[0]"),
    "too many items": (body(*[{"item": "a01", "hidden": True}] * 1_001), 422, "items"),
    "an unknown field": (b'{"items": [{"item": "a01", "hidden": true}], "user": "u"}', 422, "user"),
    "an unknown fact": (with_facts(stock=True), 422, "items[0].stock"),
    "no item": (body({"hidden": True}), 422, "items[0].item"),
    "an item that is a number": (body({"item": 1, "hidden": True}), 422, "items[0].item"),
    "an empty item": (body({"item": "", "hidden": True}), 422, "items[0].item"),
    "an item of too many bytes": (body({"item": "ü" * 256, "hidden": True}), 422, "items[0].item"),
    "an item that nothing is said of": (body({"item": "a00", "hidden": True}, {"item": "a01"}), 422, "items[1]"),
    "a fact given twice": (b'{"items": [{"item": "a01", "price": 1, "price": 2}]}', 422, "items[0].price"),
    "items given twice": (b'{"items": [{"item": "a", "price": 1}], "items": [{"item": "b"}]}', 422, "items"),
    "stock that is a number": (with_facts(in_stock=1), 422, "items[0].in_stock"),
    "hidden that is text": (with_facts(hidden="true"), 422, "items[0].hidden"),
    "a price that is text": (with_facts(price="9.5"), 422, "items[0].price"),
    "a price that is a truth": (with_facts(price=True), 422, "items[0].price"),
    "a price below zero": (with_facts(price=-0.01), 422, "items[0].price"),
    "a price beyond all numbers": (b'{"items": [{"item": "a01", "price": 1e400}]}', 422, "items[0].price"),
    "a price beyond all sense": (with_facts(price=1e13), 422, "items[0].price"),
    "a time before 1970": (with_facts(available_until=-1), 422, "items[0].available_until"),
    "a day for a time": (with_facts(available_until=20261127), 422, "items[0].available_until"),
    "a time in milliseconds": (with_facts(available_until=1.7e12), 422, "items[0].available_until"),
    "a title that is a number": (with_facts(title=7), 422, "items[0].title"),
    "a title of nothing": (with_facts(title=""), 422, "items[0].title"),
    "a title of too many characters": (with_facts(title="x" * 501), 422, "items[0].title"),
    "a category of nothing": (with_facts(category=""), 422, "items[0].category"),
    "a brand of too many characters": (with_facts(brand="x" * 201), 422, "items[0].brand"),
    "a title with a lone surrogate": (b'{"items": [{"item": "a01", "title": "\\udc00x"}]}', 400, "items[0].title"),
    "a time that is text": (with_facts(available_until="2026-11-22"), 422, "items[0].available_until"),
}


@pytest.fixture
def client(shop: Shop) -> Iterator[AsgiClient]:
    shop.publish("a")
    with AsgiClient(create_app(shop.config())) as client:
        yield client


def set_facts(client: AsgiClient, *items: object) -> ItemChangesAnswer:
    reply = client.post(PATH, {"items": items})
    assert reply.status == 200, reply.body
    return msgspec.json.decode(reply.body, type=ItemChangesAnswer)


def told(client: AsgiClient, item: str) -> ItemNow:
    reply = client.get(f"{PATH}/{item}")
    assert reply.status == 200, reply.body
    return msgspec.json.decode(reply.body, type=ItemNow)


def shown(client: AsgiClient, **fields: object) -> list[str]:
    reply = client.post("/v1/recommend", {"user": "u0", "k": 40, **fields})
    assert reply.status == 200, reply.body
    return [item["item"] for item in reply.json()["items"]]


def test_a_malformed_body_gets_a_4xx_that_names_the_field_and_changes_nothing(client: AsgiClient, shop: Shop) -> None:
    for kind, (text, status, field) in MALFORMED.items():
        reply = client.request("POST", PATH, [text], JSON_HEADERS)
        error = msgspec.json.decode(reply.body, type=ErrorAnswer)
        assert (reply.status, error.field) == (status, field), kind
        assert error.message
    assert not layout.live_items_folder(shop.root).exists()


def test_a_full_body_of_the_longest_changes_is_taken_and_a_longer_one_refused(client: AsgiClient) -> None:
    facts = {"hidden": True, "in_stock": False, "price": 123456.78, "available_until": 12345678901.25}
    texts = {"title": "\U0001f45f" * 500, "category": "\U0001f45f" * 200, "brand": "\U0001f45f" * 200}
    items = [{"item": f"{'x' * 507}{place:04}", **facts, **texts} for place in range(1_000)]
    reply = client.request("POST", PATH, [json.dumps({"items": items}, ensure_ascii=False).encode()], JSON_HEADERS)
    assert reply.status == 200, reply.body
    answer = msgspec.json.decode(reply.body, type=ItemChangesAnswer)
    assert (answer.changed, len(answer.unknown)) == (1_000, 100)
    reply = client.request("POST", PATH, [b" " * 3_000_000] * 2, JSON_HEADERS)
    assert (reply.status, reply.json()["error"]) == (413, "body_too_large")


def test_what_is_changed_and_what_the_version_lacks_is_told(client: AsgiClient) -> None:
    answer = set_facts(
        client, {"item": "a01", "hidden": True}, {"item": "zz", "price": 1.0}, {"item": "a02", "price": None}
    )
    assert answer == ItemChangesAnswer(changed=2, unknown=["zz"])


def test_hidden_sold_out_and_expired_items_are_in_no_answer_on_any_rung(client: AsgiClient, shop: Shop) -> None:
    before = shown(client)
    gone = before[0], before[3], before[7]
    set_facts(
        client,
        {"item": gone[0], "hidden": True},
        {"item": gone[1], "in_stock": False},
        {"item": gone[2], "available_until": 1_700_000_000},
        {"item": before[9], "available_until": 4_000_000_000},
    )
    assert shown(client) == [item for item in before if item not in gone]
    for fields in ({"user": "nobody"}, {"user": "nobody", "session": [{"item": "a33"}]}):
        assert not set(gone) & set(shown(client, **fields))
    back = (
        {"item": gone[0], "hidden": None},
        {"item": gone[1], "in_stock": True},
        {"item": gone[2], "available_until": None},
    )
    set_facts(client, *back)
    assert shown(client) == before


def test_what_was_out_of_stock_in_the_night_is_shown_when_it_comes_in(client: AsgiClient, shop: Shop) -> None:
    item = shop.items[OUT_OF_STOCK]
    assert item not in shown(client)
    set_facts(client, {"item": item, "in_stock": True})
    assert item in shown(client)


def test_each_fact_of_an_item_says_where_it_comes_from(client: AsgiClient, shop: Shop) -> None:
    before = told(client, "a03")
    assert (before.is_shown, before.version, before.changed_at) == (True, shop.current(), None)
    assert (before.in_stock.value, before.in_stock.source) == (True, "version")
    assert (before.price.value, before.price.source) == (4.0, "version")
    assert (before.hidden.value, before.hidden.source) == (False, "none")
    assert (before.available_until.value, before.available_until.source) == (None, "none")
    set_facts(client, {"item": "a03", "in_stock": False, "price": 3.5, "available_until": 4e9, "hidden": False})
    after = told(client, "a03")
    assert not after.is_shown
    assert (after.in_stock.value, after.price.value, after.available_until.value) == (False, 3.5, 4e9)
    assert {after.in_stock.source, after.price.source, after.available_until.source, after.hidden.source} == {"live"}
    assert after.changed_at is not None


def test_an_item_that_only_the_live_facts_know_is_told_and_not_shown(client: AsgiClient) -> None:
    set_facts(client, {"item": "new/ä", "price": 5.0})
    found = told(client, "new/ä")
    assert (found.is_shown, found.version, found.price.value, found.in_stock.source) == (False, None, 5.0, "none")


def test_what_an_item_is_the_version_says_where_it_has_it_and_else_whoever_announced_it(client: AsgiClient) -> None:
    what = {"title": "Neues", "category": "hats", "brand": "acme"}
    set_facts(client, {"item": "new", **what}, {"item": "a03", **what})
    found, known = told(client, "new"), told(client, "a03")
    assert [(found.title.value, found.title.source), (found.brand.value, found.brand.source)] == [
        ("Neues", "live"), ("acme", "live"),
    ]  # fmt: skip
    assert {known.title.source, known.category.source} == {"version"}
    assert known.title.value != "Neues"
    assert (found.is_arrival, known.is_arrival) == (False, False)
    set_facts(client, {"item": "new", "in_stock": True})
    assert (told(client, "new").is_arrival, told(client, "new").is_shown) == (True, False)
    set_facts(client, {"item": "new", "available_until": 1.5e9})
    assert not told(client, "new").is_arrival
    set_facts(client, {"item": "new", "brand": None})
    assert (told(client, "new").brand.source, told(client, "new").category.value) == ("none", "hats")


@pytest.mark.parametrize("item", ["unheard-of", "", "x" * 600])
def test_an_item_that_nobody_knows_is_404(client: AsgiClient, item: str) -> None:
    reply = client.get(f"{PATH}/{item}")
    assert (reply.status, reply.json()["error"]) == (404, "unknown_item")


def test_changes_are_taken_before_any_version_is_served(shop: Shop) -> None:
    shop.root.mkdir()
    with AsgiClient(create_app(shop.config())) as client:
        assert set_facts(client, {"item": "a01", "hidden": True}) == ItemChangesAnswer(changed=1, unknown=["a01"])
        assert told(client, "a01").hidden.value is True
    shop.publish("a")
    with AsgiClient(create_app(shop.config())) as client:
        assert "a01" not in shown(client)


def test_the_counters_know_changes_items_and_paths_without_ids(client: AsgiClient) -> None:
    set_facts(client, {"item": "a01", "hidden": True}, {"item": "a02", "hidden": True, "in_stock": False})
    told(client, "a01")
    told(client, "a02")
    set_facts(client, {"item": "not in the version", "in_stock": True}, {"item": "nor this", "hidden": True})
    page = client.get("/metrics").body.decode()
    for line in (
        "shortlist_item_changes_total 4.0",
        "shortlist_live_arrivals 1.0",
        "shortlist_live_hidden_items 2.0",
        "shortlist_live_out_of_stock_items 1.0",
        "shortlist_live_read_failures_total 0.0",
        'shortlist_requests_total{path="/v1/items",status="200"} 2.0',
        'shortlist_requests_total{path="/v1/items/{item}",status="200"} 2.0',
    ):
        assert line in page, line


def test_damaged_facts_fail_no_answer_and_are_counted_and_logged_once(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.publish("a")
    with LiveItems(shop.root) as live:
        live.set([change("a01", hidden=True), change("a02", hidden=True)], now=5.0)
        damage(live, b"a01")
    with logged_as_by_a_server(), AsgiClient(create_app(shop.config())) as client:
        for _ in range(3):
            assert {"a01", "a02"} & set(shown(client)) == {"a01"}
        page = client.get("/metrics").body.decode()
        refused = client.post(PATH, {"items": [{"item": "a01", "price": 1.0}]})
        asked = client.get(f"{PATH}/a01")
    assert "shortlist_live_read_failures_total 1.0" in page
    assert capsys.readouterr().err.count("live facts about items not read") == 1
    for reply in (refused, asked):
        assert (reply.status, reply.json()["error"]) == (503, "live_items")
        assert "'a01' are damaged" in reply.json()["message"]


def test_a_bad_file_fails_no_answer(shop: Shop) -> None:
    shop.publish("a")
    folder = layout.live_items_folder(shop.root)
    folder.mkdir(parents=True)
    (folder / "data.mdb").write_bytes(b"rubbish" * 10_000)
    with AsgiClient(create_app(shop.config())) as client:
        for _ in range(3):
            assert shown(client)
        assert "shortlist_live_read_failures_total 3.0" in client.get("/metrics").body.decode()
        for reply in (client.post(PATH, {"items": [{"item": "a01", "price": 1.0}]}), client.get(f"{PATH}/a01")):
            assert (reply.status, reply.json()["error"]) == (503, "live_items")
            assert str(shop.root) not in reply.json()["message"]
        assert shown(client)


def test_the_facts_are_read_for_a_version_before_it_is_served(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.publish("a")
    with LiveItems(shop.root) as live:
        live.set([change("a01", hidden=True)], now=5.0)
    with AsgiClient(create_app(shop.config())) as client:
        monkeypatch.setattr(LiveItems, "read", pytest.fail)  # by a request
        assert "a01" not in shown(client)
        with LiveItems(shop.root) as live:
            live.set([change("b01", hidden=True)], now=6.0)
        shop.publish("b")
        eventually(lambda: client.get("/v1/version").json()["version"] == shop.current())
        answer = client.post("/v1/recommend", {"user": "u0", "k": 40})
    assert "b01" not in {item["item"] for item in answer.json()["items"]}


def test_the_terminal_and_the_server_share_live_facts(client: AsgiClient, shop: Shop) -> None:
    set_facts(client, {"item": shop.list_of("u0")[0], "hidden": True})
    with open_reranker(shop.config()) as reranker:
        answer = reranker.recommend(RecommendRequest(user="u0", k=40))
    assert [item.item for item in answer.items] == shown(client)


def test_a_store_that_cannot_be_written_says_so(shop: Shop, tmp_path: Path) -> None:
    with (
        AsgiClient(create_app(shop.config(f"paths.store={tmp_path / 'nowhere'}"))) as client,
        structlog.testing.capture_logs() as logged,
    ):
        reply = client.post(PATH, {"items": [{"item": "a01", "hidden": True}]})
    assert (reply.status, reply.json()["error"]) == (503, "live_items")
    assert str(tmp_path) not in reply.json()["message"]
    reasons = [str(line["reason"]) for line in logged if line["log_level"] == "error"]
    assert [str(tmp_path / "nowhere") in reason for reason in reasons] == [True]
    assert not (tmp_path / "nowhere").exists()
