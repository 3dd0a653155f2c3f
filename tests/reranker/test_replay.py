"""Answers in the log, and `shortlist replay`: the same answer again, or what is in the way."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from asgi_client import AsgiClient
from msgspec.structs import fields
from serving_shop import Shop
from shop_server import PATIENCE_SECONDS, Server

import shortlist
from prediction_store import durable, layout, live_changes
from prediction_store.layout import version_path
from reranker.answered import numbers
from reranker.app import create_app
from reranker.deciding import settings_digest, settings_record, with_settings
from reranker.replay import differences, replay
from reranker.serve import ONE_THREAD
from reranker.serving_log.reading import read_log, segments
from reranker.serving_log.records import AnswerRecord, EventsRecord, LoggedEvent, SettingsRecord, encode
from reranker.serving_log.segments import SegmentWriter
from schemas.config import Config, Store
from schemas.serving_config import Log, Serve

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"user": "u0", "k": 5},
    "by default": {"user": "u1"},
    "with a session": {
        "user": "ü2",
        "k": 7,
        "session": [{"item": "a13"}, {"item": "a31", "event": "cart", "time": 1_790_000_000.25}, {"item": "none"}],
        "exclude": ["a20", "a21"],
        "context": {"device": "phone", "time": 1_790_000_060.0, "segment": "DE"},
        "explain": True,
    },
    "with what says nothing": {
        "user": "u0",
        "session": [{"item": "a13"}, {"item": "a02", "event": "dismiss"}, {"item": "a14", "event": "dismiss"}],
    },
    "topped up": {"user": "nobody", "k": 39, "session": [{"item": "a05"}]},
    "of nothing": {"user": "u0", "k": 3, "exclude": [f"a{number:02}" for number in range(40)]},
}

DECIDING = (
    "serve.max_k=300", "serve.session_half_life_seconds=1", "serve.session_event_weights={view=2.0}",
    "serve.neighbour_candidates=0", "serve.fresh_candidates=0", "serve.trending_now_candidates=0",
    "serve.arrivals=[2]", "serve.seen.policy=allow",
    "serve.seen_before.policy=hide", "serve.bought.discount=2", "serve.bought_events=[]",
    "serve.rules=[{name='r', where='in_stock', action='boost', weight=1.0}]", "serve.order.diversity=0.3",
    "store.record_ttl_hours=1", "store.expired=fallback",
)  # fmt: skip
BESIDE = (
    "serve.host=h", "serve.port=1", "serve.workers=9", "serve.tokens_file=t", "serve.traces_endpoint=http://t",
    "serve.traces_share=0.5", "serve.poll_seconds=2", "serve.default_k=3", "serve.max_head_bytes=2048",
    "serve.max_body_bytes=1024", "serve.max_session_events=1", "serve.max_exclusions=1", "serve.max_batch=99",
    "serve.max_events=501", "serve.max_events_body_bytes=1024", "serve.max_item_changes=9", "serve.body_seconds=1",
    "serve.idle_seconds=1", "serve.max_connections=9", "serve.max_wait_ms=1", "serve.deadline_ms=1",
    "serve.holdouts.popular=1",
    "store.shards=9", "store.version_ttl_hours=1", "store.keep_versions=9", "store.grace_hours=9",
    "store.live_items_mb=64", "store.remote=file:///tmp/r",
)  # fmt: skip


@pytest.fixture
def published(shop: Shop) -> Shop:
    shop.publish("a")
    return shop


def ask(shop: Shop, *requests: dict[str, Any], overrides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    with AsgiClient(create_app(shop.config(*overrides))) as client:
        return [client.post("/v1/recommend", request).json() for request in requests]


def logged(shop: Shop) -> list[AnswerRecord]:
    found = read_log(shop.root / "events", pytest.fail)
    return [record for record in found if isinstance(record, AnswerRecord)]


def run(shop: Shop, request_id: str, *argv: str) -> int:
    return shortlist.run(["replay", request_id, *argv, "--set", f"paths.store={shop.root}"])


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration is found, and what the verb sets in its process is taken back."""
    monkeypatch.chdir(tmp_path)
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)


def test_an_answer_is_logged_as_it_was_given(published: Shop) -> None:
    before = time.time()
    (answer,) = ask(published, REQUESTS["with a session"])
    (record,) = logged(published)
    assert record.request_id == answer["request_id"]
    assert (record.user, record.k, record.version, record.rung) == ("ü2", 7, published.current(), "personal")
    assert before <= record.time <= time.time()
    assert record.shown.items == [item["item"] for item in answer["items"]]
    assert record.shown.base_ranks == [item["base_rank"] for item in answer["items"]]
    assert record.shown.rungs == [item["rung"] for item in answer["items"]]
    assert numbers(record.shown.scores).tolist() == pytest.approx([item["score"] for item in answer["items"]], abs=1e-6)
    bases = [item["base_score"] for item in answer["items"]]
    assert numbers(record.shown.base_scores).tolist() == pytest.approx(bases, abs=1e-6)
    for place, item in enumerate(ask(published, REQUESTS["with a session"])[0]["items"]):
        row = numbers(record.shown.values).reshape(7, -1)[place].tolist()
        expected = [item["signals"][name] for name in record.shown.signals]
        assert row == pytest.approx(expected, abs=1e-5)
    assert record.session == [
        ("a13", "view", None),
        ("a31", "cart", 1_790_000_000.25),
        ("none", "view", None),
    ]
    assert (record.exclude, record.device, record.segment) == (["a20", "a21"], "phone", "DE")
    assert record.ignored_events == answer["ignored_events"] == 1


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_replay_is_equal_bit_for_bit(published: Shop, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    (answer,) = ask(published, REQUESTS[kind])
    capsys.readouterr()
    assert run(published, answer["request_id"]) == 0
    assert capsys.readouterr().out.startswith(f"equal bit for bit: {len(answer['items'])} items of version ")


def test_a_replay_is_equal_after_a_cutover_and_with_a_stored_session(published: Shop) -> None:
    with AsgiClient(create_app(published.config())) as client:
        client.post("/v1/events", {"events": [{"user": "u0", "item": "a25", "event": "cart"}]})
        answer = client.post("/v1/recommend", {"user": "u0", "k": 9, "session": [{"item": "a33"}]}).json()
    published.publish("b")
    assert run(published, answer["request_id"]) == 0
    assert [item for item, _, _ in logged(published)[0].session] == ["a25", "a33"]


def test_a_replay_knows_what_had_been_shown_in_vain(published: Shop) -> None:
    with AsgiClient(create_app(published.config("sessions.impressions=true"))) as client:
        before = client.post("/v1/recommend", {"user": "u0", "k": 9}).json()
        first = before["items"][0]["item"]
        shown = [{"user": "u0", "item": first, "event": "impression", "time": time.time() - n} for n in (1, 2, 3)]
        client.post("/v1/events", {"events": [*shown, {**shown[0], "item": "none"}]})
        after = client.post("/v1/recommend", {"user": "u0", "k": 9}).json()
    assert after["items"][0]["item"] != first
    assert logged(published)[1].ignored == {first: 3, "none": 1}
    for answer in (before, after):
        assert run(published, answer["request_id"]) == 0


def test_a_replay_draws_the_same_items_by_chance(published: Shop) -> None:
    order = ("serve.order.explore_positions=[2, 4]", "serve.order.diversity=0.3")
    answers = ask(published, *[REQUESTS["by default"]] * 5, overrides=order)
    assert len({str(answer["items"]) for answer in answers}) > 1
    for answer in answers:
        assert run(published, answer["request_id"], *(f"--set={setting}" for setting in order)) == 0


def test_the_answers_of_real_workers_are_replayed(published: Shop, tmp_path: Path) -> None:
    server = Server(published.root, tmp_path)
    try:
        answers = [
            httpx.post(f"{server.url}/v1/recommend", json=request, timeout=PATIENCE_SECONDS).json()
            for request in REQUESTS.values()
        ]
        assert server.stop() == 0
    finally:
        server.end()
    assert {record.request_id for record in logged(published)} == {answer["request_id"] for answer in answers}
    for answer in answers:
        assert run(published, answer["request_id"]) == 0


def test_an_answer_that_is_not_in_the_log_exits_2(published: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    ask(published, REQUESTS["plain"])
    assert run(published, "0" * 32) == 2
    assert "has no answer" in capsys.readouterr().err


def test_an_answer_whose_version_has_been_retired_exits_3(published: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    (answer,) = ask(published, REQUESTS["plain"])
    durable.remove_folder(version_path(published.root, answer["version"]))
    assert run(published, answer["request_id"]) == 3
    assert f"version {answer['version']}" in capsys.readouterr().err


def test_a_replay_is_by_the_settings_of_then(published: Shop) -> None:
    then = (
        "serve.session_half_life_seconds=60", "serve.seen_before.policy=hide",
        "serve.order.explore_positions=[2, 4]", "serve.order.caps={category=3}", "store.record_ttl_hours=200",
        "serve.rules=[{name='low', where='price < 112', action='exclude'}, "
        "{name='first', where=\"category == 'boots'\", action='pin', position=2}]",
    )  # fmt: skip
    session = [{"item": "a31", "event": "cart", "time": time.time() - 90.0}]
    (answer,) = ask(published, {"user": "u0", "k": 9, "session": session}, overrides=then)
    assert run(published, answer["request_id"]) == 0
    assert run(published, answer["request_id"], "--settings-of-today", *(f"--set={setting}" for setting in then)) == 0
    assert run(published, answer["request_id"], "--settings-of-today") == 1


def test_each_deciding_setting_is_the_one_of_then(published: Shop) -> None:
    for setting in DECIDING:
        config = published.config(setting)
        found = with_settings(published.config(*BESIDE), settings_record(config))
        assert found is not None and settings_digest(found) == settings_digest(config), setting
        assert (found.serve.workers, found.store.shards) == (9, 9), "the others are those of today"


def test_settings_that_this_shortlist_does_not_know_are_none(published: Shop) -> None:
    config = published.config()
    record = settings_record(config)
    for section, name, value in (
        ("serve", "a_later_one", 1),
        ("serve", "max_k", "many"),
        ("store", "expired", "later"),
    ):
        settings = {**record.settings, section: {**record.settings.get(section, {}), name: value}}
        assert with_settings(config, SettingsRecord(record.digest, settings)) is None
    assert with_settings(config, SettingsRecord("another", record.settings)) is None


def test_a_replay_by_the_settings_of_today_tells_what_they_change(
    published: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    session = [{"item": "a31", "event": "cart", "time": time.time() - 900.0}]
    (answer,) = ask(published, {"user": "u0", "k": 5, "session": session})
    setting = ("--set", "serve.session_half_life_seconds=1")
    assert run(published, answer["request_id"], *setting) == 0
    assert run(published, answer["request_id"], *setting, "--settings-of-today") == 1
    said = capsys.readouterr()
    assert "the settings of serve or store are others" in said.out
    assert "rank 1" in said.out
    assert "differs from the one in the log" in said.err


def test_settings_that_the_log_has_lost_are_told(published: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    session = [{"item": "a31", "event": "cart", "time": time.time() - 900.0}]
    (answer,) = ask(published, {"user": "u0", "k": 5, "session": session})
    (record,) = logged(published)
    durable.remove_folder(published.root / "events")
    writer = SegmentWriter(published.root / "events", Log(), time.time)  # as an older Shortlist wrote it
    writer.append([encode(record)])
    writer.close()
    assert run(published, answer["request_id"]) == 0
    assert run(published, answer["request_id"], "--set", "serve.session_half_life_seconds=1") == 1
    assert capsys.readouterr().out.count("the settings of serve or store are others") == 1


def test_every_segment_tells_the_settings(published: Shop) -> None:
    one, other = ("serve.session_half_life_seconds=60",), ("serve.session_half_life_seconds=90",)
    answers = [ask(published, REQUESTS["with a session"], overrides=overrides)[0] for overrides in (one, other, one)]
    found = segments(published.root / "events")
    assert len(found) == 3
    for path, answer in zip(found, answers, strict=True):
        kept = {each: each.read_bytes() for each in found if each != path}
        for other_path in kept:
            other_path.unlink()
        assert run(published, answer["request_id"]) == 0
        for other_path, data in kept.items():
            other_path.write_bytes(data)


def test_a_replay_is_by_the_live_facts_of_then(
    published: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hide(item: str) -> None:
        with AsgiClient(create_app(published.config())) as client:
            assert client.post("/v1/items", {"items": [{"item": item, "hidden": True}]}).status == 200

    hide("a39")
    (answer,) = ask(published, REQUESTS["plain"])
    assert run(published, answer["request_id"]) == 0
    hide("a38")  # which was not in the answer
    assert run(published, answer["request_id"]) == 0
    for item in answer["items"]:
        hide(item["item"])
    (later,) = ask(published, REQUESTS["plain"])
    assert not {item["item"] for item in later["items"]} & {item["item"] for item in answer["items"]}
    assert run(published, answer["request_id"]) == 0
    assert run(published, later["request_id"]) == 0
    monkeypatch.setattr(live_changes, "KEPT_CHANGES", 2)
    hide(published.items[20])
    capsys.readouterr()
    assert run(published, answer["request_id"]) == 1
    assert capsys.readouterr().out.startswith("the live facts about items have changed, and those of then are not kept")
    assert run(published, later["request_id"]) == 0


def test_a_replay_is_by_the_live_facts_of_then_also_where_there_were_none(published: Shop) -> None:
    (answer,) = ask(published, REQUESTS["plain"])
    with AsgiClient(create_app(published.config())) as client:
        changes = [{"item": item["item"], "hidden": True} for item in answer["items"]]
        assert client.post("/v1/items", {"items": changes}).status == 200
    assert run(published, answer["request_id"]) == 0
    durable.remove_folder(layout.live_items_folder(published.root))
    assert run(published, answer["request_id"]) == 0


def test_a_replay_sees_the_prices_that_a_rule_saw(published: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    rule = 'serve.rules=[{name = "cheap", where = "price < 100", action = "exclude"}]'

    def price(value: float) -> None:
        changes = [{"item": item, "price": value} for item in published.items[:12]]
        with AsgiClient(create_app(published.config())) as client:
            assert client.post("/v1/items", {"items": changes}).status == 200

    price(1000.0)
    (answer,) = ask(published, REQUESTS["plain"], overrides=(rule,))
    assert {item["item"] for item in answer["items"]} < set(published.items[:12])
    assert run(published, answer["request_id"], f"--set={rule}") == 0
    price(99.0)
    (later,) = ask(published, REQUESTS["plain"], overrides=(rule,))
    assert later["items"] != answer["items"]
    for found in (answer, later):
        assert run(published, found["request_id"]) == 0


def test_a_replay_as_json_has_the_record(published: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    (answer,) = ask(published, REQUESTS["plain"])
    capsys.readouterr()
    assert run(published, answer["request_id"], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["equal"], found["differences"]) == (True, [])
    assert found["recorded"]["user"] == "u0"
    shown = found["recorded"]["shown"]
    assert shown["items"] == [item["item"] for item in answer["items"]]
    assert shown["scores"] == pytest.approx([item["score"] for item in answer["items"]], abs=1e-6)


def test_one_bit_of_one_score_is_a_difference(published: Shop) -> None:
    ask(published, REQUESTS["plain"])
    (record,) = logged(published)
    scores = bytearray(record.shown.scores)
    scores[4] ^= 1
    other = msgspec.structs.replace(record, shown=msgspec.structs.replace(record.shown, scores=bytes(scores)))
    (said,) = differences(record, other)
    assert said.startswith(f"rank 2, item {record.shown.items[1]}: scores ")
    assert list(differences(record, record)) == []
    values = bytearray(record.shown.values)
    values[-1] ^= 0x80  # the sign of the last signal of the last item, be it 0
    other = msgspec.structs.replace(record, shown=msgspec.structs.replace(record.shown, values=bytes(values)))
    (said,) = differences(record, other)
    assert said.startswith(f"rank 5, item {record.shown.items[4]}: signal {record.shown.signals[-1]} ")
    fewer = msgspec.structs.replace(record.shown, signals=["base_score"], values=record.shown.base_scores)
    (said,) = differences(record, msgspec.structs.replace(record, shown=fewer))
    assert said.startswith("signals: base_score, ") and said.endswith("then, base_score now")


def test_every_other_change_is_a_difference_too(published: Shop) -> None:
    ask(published, REQUESTS["plain"])
    (record,) = logged(published)
    for name, value in {"rung": "popular", "reason": "x", "stale": True, "age_seconds": 1, "ignored_events": 9}.items():
        (said,) = differences(record, msgspec.structs.replace(record, **{name: value}))
        assert said.startswith(name)
    swapped = [record.shown.items[1], record.shown.items[0], *record.shown.items[2:]]
    other = msgspec.structs.replace(record, shown=msgspec.structs.replace(record.shown, items=swapped))
    assert [said.split(":")[0] for said in differences(record, other)] == ["rank 1", "rank 2"]


def test_another_propensity_is_a_difference(published: Shop) -> None:
    ask(published, REQUESTS["plain"])
    (record,) = logged(published)
    assert numbers(record.shown.propensities).tolist() == [1.0] * 5, "without chance every place is certain"
    halved = msgspec.structs.replace(record.shown, propensities=record.shown.propensities[:-4] + b"\0\0\0\x3f")
    (said,) = differences(record, msgspec.structs.replace(record, shown=halved))
    assert said == f"rank 5, item {record.shown.items[4]}: propensities 1.0 then, 0.5 now"


def test_an_answer_before_a_torn_tail_is_found_and_one_in_it_is_not(
    published: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ask(published, REQUESTS["plain"], REQUESTS["by default"])
    (segment,) = segments(published.root / "events")
    segment.write_bytes(segment.read_bytes()[:-3])
    assert run(published, first["request_id"]) == 0
    assert run(published, second["request_id"]) == 2
    assert "torn tails" in capsys.readouterr().err


def test_an_answer_is_found_beside_a_segment_whose_header_is_damaged(
    published: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(published, REQUESTS["plain"])
    (damaged,) = segments(published.root / "events")
    (answer,) = ask(published, REQUESTS["plain"])
    damaged.write_bytes(b"\0" + damaged.read_bytes()[1:])
    assert run(published, answer["request_id"]) == 0
    assert run(published, "0" * 32) == 2
    assert f"; {damaged.stat().st_size} bytes of torn tails could not be read" in capsys.readouterr().err


def test_a_log_that_cannot_be_listed_is_told(published: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    (published.root / "events").write_text("no folder")
    assert run(published, "0" * 32) == 1
    assert f"reading {published.root / 'events'}: Not a directory" in capsys.readouterr().err


def test_with_log_answers_off_none_is_logged(published: Shop) -> None:
    ask(published, REQUESTS["plain"], overrides=("log.answers=false",))
    assert segments(published.root / "events") == []


def test_each_setting_of_serve_and_store_decides_answers_or_does_not(published: Shop) -> None:
    usual = settings_digest(Config())
    assert [setting for setting in BESIDE if settings_digest(published.config(setting)) != usual] == []
    assert [setting for setting in DECIDING if settings_digest(published.config(setting)) == usual] == []
    sections = {"serve": Serve, "store": Store}
    known = [f"{section}.{field.name}" for section, kind in sections.items() for field in fields(kind)]
    named = [".".join(re.split("[.=]", setting)[:2]) for setting in (*BESIDE, *DECIDING)]
    assert sorted(named) == sorted(known)


@pytest.mark.parametrize("kind", REQUESTS)
def test_settings_that_decide_no_answer_are_told_of_none(published: Shop, kind: str) -> None:
    ask(published, REQUESTS[kind])
    (record,) = logged(published)
    found = replay(published.config(*BESIDE), record.request_id)
    assert (found.differences, found.replayed.settings) == ([], record.settings)


def test_other_settings_are_not_told_where_they_change_nothing(published: Shop) -> None:
    (answer,) = ask(published, REQUESTS["plain"])  # without a session, which is what the setting is about
    setting = "serve.session_half_life_seconds=1"
    assert run(published, answer["request_id"], "--settings-of-today", "--set", setting) == 0


def test_records_of_all_kinds_are_read_as_they_were_written(published: Shop, tmp_path: Path) -> None:
    ask(published, *REQUESTS.values())
    records = [
        settings_record(published.config()),
        *logged(published),
        EventsRecord(1.5, [LoggedEvent("u", "i", "view", 1.25, "r", 3, "tv")]),
    ]
    writer = SegmentWriter(tmp_path / "copy", Log(), time.time)
    writer.append([encode(record) for record in records])
    writer.close()
    assert list(read_log(tmp_path / "copy", pytest.fail)) == records
