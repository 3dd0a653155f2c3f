"""A limit in time: full answers while there is time, and lists in their own order, called so, when there is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from asgi_client import JSON_HEADERS, AsgiClient
from serving_shop import MADE_AT, Shop

from prediction_store.reader import Store
from reranker.answered import numbers
from reranker.app import create_app
from reranker.deadline import HEADER, MARGIN, USUAL_AT_FIRST_SECONDS, Haste, Pace, limit_ms
from reranker.recommend import Reranker, open_reranker
from reranker.replay import replay
from reranker.requests import convert_request
from reranker.serving_log.reading import read_log
from reranker.serving_log.records import AnswerRecord, encode
from reranker.serving_log.segments import SegmentWriter
from schemas.messages import RecommendAnswer, RecommendRequest
from schemas.serving_config import Log

NOW = MADE_AT + 60.0
SESSION = [{"item": "a12"}, {"item": "a14"}, {"item": "a16"}]


class FakeTimer:
    """Stands still until it is told to go, or goes on by `step` each time it is read."""

    def __init__(self, step: float = 0.0) -> None:
        self.seconds, self.step = 1000.0, step

    def __call__(self) -> float:
        self.seconds += self.step
        return self.seconds


def asked(**fields: object) -> RecommendRequest:
    return convert_request({"user": "u0", "k": 10, **fields})


def opened(shop: Shop, timer: FakeTimer, *overrides: str) -> Reranker:
    store = Store(shop.root, now=lambda: NOW)
    store.refresh()
    return Reranker(store, shop.config(*overrides), now=lambda: NOW, timer=timer)


@pytest.fixture
def timer() -> FakeTimer:
    return FakeTimer()


@pytest.fixture
def reranker(stocked_shop: Shop, timer: FakeTimer) -> Iterator[Reranker]:
    made = opened(stocked_shop, timer)
    yield made
    made.close()
    made.store.close()


def ids(answer: RecommendAnswer) -> list[str]:
    return [item.item for item in answer.items]


def test_without_time_the_stored_list_stands_in_its_own_order(reranker: Reranker, stocked_shop: Shop) -> None:
    in_full = reranker.recommend(asked(session=SESSION), deadline_ms=50)
    assert (in_full.rung, in_full.reason) == ("personal", None)
    hasty = reranker.recommend(asked(session=SESSION, exclude=["a00"]), deadline_ms=1)
    hidden = {"a00", "a12", "a14", "a16"}
    expected = [i for i in stocked_shop.list_of("u0") if stocked_shop.in_stock(i) and i not in hidden]
    assert (hasty.rung, hasty.reason, hasty.topped_up_from) == ("stored_order", "deadline", [])
    assert ids(hasty) == expected[:10] != ids(in_full)
    assert [item.score for item in hasty.items] == [item.base_score for item in hasty.items]


def test_time_counts_from_the_arrival_of_the_request(reranker: Reranker, timer: FakeTimer) -> None:
    arrived = timer()
    timer.seconds += 0.095
    assert reranker.recommend(asked(), deadline_ms=100, arrived=arrived).rung == "personal"
    timer.seconds += 0.004
    assert reranker.recommend(asked(), deadline_ms=100, arrived=arrived).rung == "stored_order"
    timer.seconds += 1000.0
    assert reranker.recommend(asked(), deadline_ms=100, arrived=arrived).rung == "stored_order"
    assert reranker.recommend(asked(), arrived=arrived).rung == "personal", "without a limit nothing is late"


def test_a_limit_that_is_not_reached_changes_nothing(reranker: Reranker) -> None:
    for request in (asked(session=SESSION), asked(user="nobody", k=40), asked(k=40, session=SESSION, explain=True)):
        free, limited = reranker.recommend(request), reranker.recommend(request, deadline_ms=60_000)
        assert (free.items, free.rung, free.reason) == (limited.items, limited.rung, limited.reason)


def test_without_time_an_unknown_user_gets_what_is_popular_and_no_session(
    reranker: Reranker, stocked_shop: Shop
) -> None:
    request = asked(user="nobody", session=[{"item": "a31"}], context={"segment": "DE"})
    assert reranker.recommend(request).rung == "session"
    hasty = reranker.recommend(request, deadline_ms=1)
    assert (hasty.rung, hasty.topped_up_from, hasty.reason) == ("segment", ["popular"], "deadline")
    popular = [item for item in stocked_shop.popular("") if item not in {"a31", *stocked_shop.popular("DE")}]
    assert ids(hasty) == [*stocked_shop.popular("DE"), *popular[:5]]


def test_when_time_runs_out_on_the_way_what_fills_up_is_not_ranked(stocked_shop: Shop) -> None:
    timer = FakeTimer(step=0.003)  # begin, and then each question: 3 ms later
    reranker = opened(stocked_shop, timer, "serve.fresh_candidates=0")
    request = asked(k=15, session=[{"item": "a31"}], exclude=stocked_shop.list_of("u0")[:18])
    answer = reranker.recommend(request, deadline_ms=6)
    assert (answer.rung, answer.topped_up_from, answer.reason) == ("personal", ["popular"], "deadline")
    assert [item.rung for item in answer.items].count("popular") > 0
    reranker.close()
    reranker.store.close()


def test_rules_and_caps_hold_without_time_and_boosts_do_not(stocked_shop: Shop, timer: FakeTimer) -> None:
    rules = (
        'serve.rules=[{name = "gone", where = "category == \\"category 0\\"", action = "exclude"}, '
        '{name = "up", where = "price > 30", action = "boost", weight = 9.0}]'
    )
    reranker = opened(stocked_shop, timer, rules, "serve.order.caps={category = 2}", "serve.order.diversity=0.5")
    hasty = reranker.recommend(asked(explain=True, k=5), deadline_ms=1)
    column = [int(item[1:]) // 10 for item in ids(hasty) if int(item[1:]) % 7 != 6]
    assert 0 not in column
    assert max(column.count(value) for value in column) <= 2
    listed = stocked_shop.list_of("u0")
    places = [listed.index(item.item) for item in hasty.items if item.rung == "stored_order"]
    assert places == sorted(places)
    reranker.close()
    reranker.store.close()


def test_an_explained_answer_says_that_there_was_no_time(reranker: Reranker) -> None:
    first = reranker.recommend(asked(explain=True, session=SESSION), deadline_ms=1).items[0]
    assert first.why == f"number {first.base_rank} of your list; no time to rank"
    assert (first.signals, first.contributions) == ({}, {})


def test_the_limit_of_a_batch_is_that_of_all_its_requests(stocked_shop: Shop) -> None:
    reranker = opened(stocked_shop, FakeTimer(step=0.002))
    rungs = [answer.rung for answer in reranker.recommend_many([asked()] * 8, deadline_ms=30)]
    assert rungs == sorted(rungs), "first what is personal, then what is stored_order"
    assert set(rungs) == {"personal", "stored_order"}
    reranker.close()
    reranker.store.close()


def test_a_process_that_ranks_slowly_begins_to_hurry_earlier_and_tries_again(
    reranker: Reranker, timer: FakeTimer
) -> None:
    assert reranker.recommend(asked(), deadline_ms=20).rung == "personal"
    timer.step = 0.1  # an answer now takes hundreds of milliseconds
    reranker.recommend(asked())
    timer.step = 0.0
    rungs = [reranker.recommend(asked(), deadline_ms=20).rung for _ in range(500)]
    assert rungs[0] == "stored_order"
    assert rungs[-1] == "personal", "one slow answer must not be held against it for ever"


def test_what_is_not_ranked_says_nothing_of_what_ranking_takes(reranker: Reranker, timer: FakeTimer) -> None:
    timer.step = 0.1
    reranker.recommend(asked())
    timer.step = 0.004  # what is not ranked takes a while, too
    rungs = [reranker.recommend(asked(), deadline_ms=20).rung for _ in range(500)]
    assert rungs[0] == "stored_order"
    assert "personal" in rungs, "it is tried again"


def test_the_shorter_limit_holds() -> None:
    assert limit_ms(None, 0.0) is None
    assert limit_ms(30, 0.0) == limit_ms(None, 30.0) == limit_ms(30, 50.0) == limit_ms(50, 30.0) == 30


def test_haste_begins_where_twice_the_usual_time_does_not_fit_and_lasts() -> None:
    timer, usual = FakeTimer(), MARGIN * USUAL_AT_FIRST_SECONDS
    haste = Haste.until(timer() + 1.0, timer, Pace())
    answers = []
    for left in (usual * 1.1, usual * 0.9, 0.5):
        timer.seconds = 1001.0 - left
        answers.append(haste())
    assert (answers, haste.since) == ([False, True, True], 1)
    again = Haste.as_before(haste.since)
    assert [again() for _ in range(3)] == answers
    assert not any(itertools.chain((Haste()() for _ in range(3)), (Haste.as_before(-1)() for _ in range(3))))


def test_the_setting_holds_for_requests_without_a_header(stocked_shop: Shop, timer: FakeTimer) -> None:
    reranker = opened(stocked_shop, timer, "serve.deadline_ms=1")
    assert reranker.recommend(asked()).reason == "deadline"
    assert reranker.recommend(asked(), deadline_ms=5000).reason == "deadline"
    reranker.close()
    reranker.store.close()


def test_the_header_is_the_limit_over_http(stocked_shop: Shop) -> None:
    with AsgiClient(create_app(stocked_shop.config("log.answers=false"))) as client:

        def post(path: str, body: bytes, limit: str) -> tuple[int, dict[str, object]]:
            reply = client.request("POST", path, [body], {**JSON_HEADERS, HEADER: limit})
            return reply.status, reply.json()

        body = b'{"user": "u0", "k": 3}'
        assert post("/v1/recommend", body, "1")[1]["rung"] == "stored_order"
        assert post("/v1/recommend", body, "3600000")[1]["rung"] == "personal"
        _, many = post("/v1/recommend/batch", b'{"requests": [%s, %s]}' % (body, body), "1")
        assert [answer["rung"] for answer in many["answers"]] == ["stored_order"] * 2  # type: ignore[attr-defined]
        client._state["service"].reranker.timer = FakeTimer(step=0.002)
        _, many = post("/v1/recommend/batch", b'{"requests": [%s]}' % b", ".join([body] * 8), "30")
        rungs = [answer["rung"] for answer in many["answers"]]  # type: ignore[attr-defined]
        assert {*rungs} == {"personal", "stored_order"}, "the limit of a batch is that of all its requests"
        for wrong in ("0", "-5", "1.5", "", "soon", "3600001", "99999999", "²"):
            status, error = post("/v1/recommend", body, wrong)
            assert (status, error["field"]) == (422, HEADER)


@pytest.mark.parametrize("step", [0.0, 0.003], ids=["from the start", "on the way"])
def test_an_answer_without_time_is_replayed_bit_for_bit(shop: Shop, step: float) -> None:
    shop.publish("a")
    records: list[AnswerRecord] = []
    reranker = opened(shop, FakeTimer(step), "serve.fresh_candidates=0")
    reranker.on_answer = records.append
    request = asked(k=15, session=[{"item": "a31"}], exclude=shop.list_of("u0")[:18])
    answer = reranker.recommend(request, deadline_ms=6 if step else 1)
    reranker.close()
    reranker.store.close()
    writer = SegmentWriter(shop.root / "events", Log(), lambda: NOW)
    writer.append([encode(record) for record in records])
    writer.close()
    (record,) = read_log(shop.root / "events", pytest.fail)
    assert isinstance(record, AnswerRecord)
    values = numbers(record.shown.values).reshape(len(answer.items), -1)
    hasty = [item.rung in ("stored_order", "popular") for item in answer.items]
    assert np.isnan(values).all(axis=1).tolist() == hasty and any(hasty)
    assert record.hasty_since == (1 if step else 0)
    assert replay(shop.config("serve.fresh_candidates=0"), answer.request_id).differences == []


def test_an_answer_in_time_is_logged_as_one(stocked_shop: Shop) -> None:
    records: list[AnswerRecord] = []
    with open_reranker(stocked_shop.config(), now=lambda: NOW) as reranker:
        reranker.on_answer = records.append
        reranker.recommend(asked(session=SESSION), deadline_ms=60_000)
    assert records[0].hasty_since == -1
    assert np.isfinite(numbers(records[0].shown.values)).all()
