"""What the user has seen or bought: hidden, lowered for a while, or allowed, each by a policy of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from serving_shop import MADE_AT, Shop

from prediction_store.reader import Version
from reranker.answered import numbers
from reranker.familiar import Familiar, familiar_items
from reranker.recommend import open_reranker
from reranker.replay import differences, replay
from reranker.requests import convert_request
from reranker.serving_log.records import AnswerRecord, encode
from reranker.serving_log.segments import SegmentWriter
from reranker.session import read_session
from reranker.user_tower import UserTower
from schemas.messages import RecommendAnswer, SessionEvent
from schemas.serving_config import Log, Repeat, Serve

HOUR = 3600.0
NOW = MADE_AT + HOUR
U1 = 1
CONSUMED = {0, 1, 32, 33, 34}
EVENTS = [
    SessionEvent(item="a12", event="purchase", time=NOW - 4 * HOUR),
    SessionEvent(item="a12", event="view", time=NOW),
    SessionEvent(item="a13", event="view", time=NOW - 2 * HOUR),
    SessionEvent(item="a13", event="cart", time=NOW - 1 * HOUR),
    SessionEvent(item="a32", event="view", time=NOW),
    SessionEvent(item="a33", event="purchase"),
    SessionEvent(item="never heard of", event="purchase"),
]


@pytest.fixture(scope="module")
def version(stocked_shop: Shop) -> Iterator[Version]:
    with Version.open(stocked_shop.root, stocked_shop.current()) as opened:
        yield opened


def known(version: Version, user_row: int | None = U1, **policies: Any) -> Familiar:
    serve = Serve(**policies)
    return familiar_items(
        EVENTS,
        read_session(EVENTS, version, serve, NOW),
        version,
        serve,
        user_row=user_row,
        tower=UserTower.of(version),
        now=NOW,
    )


def lowered(found: Familiar) -> dict[str, dict[int, float]]:
    return {part.how: dict(zip(part.items.tolist(), part.by.tolist(), strict=True)) for part in found.lowered}


def ask(shop: Shop, *overrides: str, records: list[AnswerRecord] | None = None, **fields: Any) -> RecommendAnswer:
    with open_reranker(shop.config(*overrides), now=lambda: NOW) as reranker:
        reranker.on_answer = None if records is None else records.append
        return reranker.recommend(convert_request(fields))


def names(answer: RecommendAnswer) -> list[str]:
    return [item.item for item in answer.items]


def test_by_default_the_session_and_what_was_bought_are_hidden_and_the_history_is_not(version: Version) -> None:
    found = known(version)
    assert set(found.hidden.tolist()) == {12, 13, 32, 33, *CONSUMED}
    assert found.lowered == ()
    assert set(known(version, user_row=None).hidden.tolist()) == {12, 13, 32, 33}


def test_each_item_is_known_in_one_way_and_its_latest_event_counts(version: Version) -> None:
    half = {"policy": "discount", "half_life_hours": 2.0}
    found = known(version, seen=Repeat(**half), bought=Repeat(**half, discount=4.0), seen_before=Repeat(**half))
    history = set(UserTower.of(version).history_of(U1).tolist())  # type: ignore[union-attr]
    by_age = 0.5**0.5  # the version's data is an hour old
    assert found.hidden.size == 0
    assert lowered(found) == {
        "bought": pytest.approx({12: 1.0, 33: 4.0, 32: 4 * by_age, **dict.fromkeys((0, 1, 34), 4 * by_age)}),
        "seen": pytest.approx({13: by_age}),
        "seen before": pytest.approx(dict.fromkeys(history, by_age)),
    }
    assert all((np.diff(part.items.astype(np.int64)) > 0).all() for part in found.lowered)


@pytest.mark.parametrize("way", ["seen", "bought", "seen_before"])
@pytest.mark.parametrize("policy", ["hide", "allow"])
def test_hide_and_allow_hold_for_each_way_alone(version: Version, way: str, policy: Any) -> None:
    of_way = {"seen": {13}, "bought": {12, *CONSUMED}, "seen_before": set()}
    of_way["seen_before"] = set(UserTower.of(version).history_of(U1).tolist())  # type: ignore[union-attr]
    others = {"seen": Repeat(policy="allow"), "bought": Repeat(policy="allow"), "seen_before": Repeat(policy="allow")}
    found = known(version, **{**others, way: Repeat(policy=policy)})
    assert set(found.hidden.tolist()) == (of_way[way] if policy == "hide" else set())
    assert found.lowered == ()


def test_the_short_way_of_the_defaults_hides_what_the_long_way_hides(version: Version) -> None:
    # What was bought at no discount is no longer the default, and yet the same.
    long_way = known(version, seen_before=Repeat(policy="discount", discount=0.0))
    assert set(long_way.hidden.tolist()) == set(known(version).hidden.tolist())


def test_types_of_events_that_buy_are_a_setting(version: Version) -> None:
    allow, hide = Repeat(policy="allow"), Repeat(policy="hide")
    found = known(version, None, seen=allow, bought=hide, bought_events=["cart"])
    assert set(found.hidden.tolist()) == {13}


def test_a_discount_is_taken_from_the_score_and_explained(stocked_shop: Shop) -> None:
    session = [{"item": "a00", "time": NOW - HOUR}, {"item": "a02", "time": NOW}]
    allow = "serve.seen.policy=allow"
    discount = ("serve.seen.policy=discount", "serve.seen.discount=0.4", "serve.seen.half_life_hours=1")
    request: dict[str, Any] = {"user": "u0", "k": 20, "session": session, "explain": True}
    free = {item.item: item for item in ask(stocked_shop, allow, **request).items}
    less = {item.item: item for item in ask(stocked_shop, *discount, **request).items}
    assert free.keys() == less.keys()
    for item, by in {"a00": 0.2, "a02": 0.4}.items():
        assert free[item].score - less[item].score == pytest.approx(by, abs=1e-5)
        assert less[item].contributions["discount seen"] == pytest.approx(-by, abs=1e-5)  # type: ignore[index]
        assert less[item].rank > free[item].rank
    for item in less.keys() - {"a00", "a02"}:
        assert less[item].score == free[item].score
        assert "discount seen" not in (less[item].contributions or {})
    for answered in less.values():
        assert answered.score == pytest.approx(sum(answered.contributions.values()), abs=1e-4)  # type: ignore[union-attr]


def test_a_discount_has_faded_by_the_time_that_the_request_tells(stocked_shop: Shop) -> None:
    overrides = ("serve.seen.policy=discount", "serve.seen.discount=0.4", "serve.seen.half_life_hours=1")
    session, context = [{"item": "a02", "time": NOW}], {"time": NOW + HOUR}
    answer = ask(stocked_shop, *overrides, user="u0", k=20, session=session, context=context, explain=True)
    (seen,) = (item for item in answer.items if item.item == "a02")
    assert seen.contributions["discount seen"] == pytest.approx(-0.2)  # type: ignore[index]


def test_a_discount_fades(stocked_shop: Shop) -> None:
    policy = ("serve.seen.policy=discount", "serve.seen.half_life_hours=1", "serve.session_half_life_seconds=1e9")

    def rank(age: float, *overrides: str) -> int:
        answer = ask(stocked_shop, *overrides, user="u0", k=40, session=[{"item": "a00", "time": NOW - age}])
        return next(item.rank for item in answer.items if item.item == "a00")

    ranks = [rank(age, *policy) for age in (0.0, HOUR, 4 * HOUR, 100 * HOUR)]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] > ranks[-1] == rank(100 * HOUR, "serve.seen.policy=allow", policy[-1])


def test_what_was_bought_may_come_back(stocked_shop: Shop) -> None:
    near = {"user": "u1", "k": 40, "session": [{"item": "a03"}]}
    assert "a00" not in names(ask(stocked_shop, **near))
    assert "a00" in names(ask(stocked_shop, "serve.bought.policy=allow", **near))


def test_the_history_can_be_hidden(stocked_shop: Shop) -> None:
    before = names(ask(stocked_shop, user="u0", k=20))
    after = names(ask(stocked_shop, "serve.seen_before.policy=hide", user="u0", k=20))
    assert set(before) - set(after) == set(stocked_shop.list_of("u0")[:3])


def test_what_is_added_to_scores_is_logged_and_replayed_bit_for_bit(shop: Shop) -> None:
    shop.publish("a")
    overrides = (
        "serve.seen.policy=discount",
        "serve.bought.policy=discount",
        'serve.rules=[{name = "up", where = "price > 30", action = "boost", weight = 0.3}]',
    )
    records: list[AnswerRecord] = []
    session = [{"item": "a00", "time": NOW - 1234.5}, {"item": "a31", "event": "purchase", "time": NOW - 99.0}]
    answer = ask(shop, *overrides, records=records, user="u1", k=40, session=session, explain=True)
    added = dict(zip(names(answer), numbers(records[0].shown.added).tolist(), strict=True))
    for item in answer.items:
        named = {name: by for name, by in item.contributions.items() if name.startswith(("rule", "discount"))}  # type: ignore[union-attr]
        assert added[item.item] == pytest.approx(sum(named.values()), abs=1e-5)
    assert min(added.values()) < 0 < max(added.values())
    plain: list[AnswerRecord] = []
    ask(shop, records=plain, user="u1", k=40, session=session)
    assert plain[0].shown.added == b"", "nothing is added to any score"
    writer = SegmentWriter(shop.root / "events", Log(), lambda: NOW)
    writer.append([encode(record) for record in records])
    writer.close()
    assert replay(shop.config(*overrides), answer.request_id).differences == []
    nothing = msgspec.structs.replace(records[0], shown=msgspec.structs.replace(records[0].shown, added=b""))
    assert sum(": added " in said for said in differences(records[0], nothing)) == np.count_nonzero([*added.values()])


def test_a_stored_order_hides_what_is_hidden_and_lowers_nothing(stocked_shop: Shop) -> None:
    with open_reranker(stocked_shop.config("serve.seen.policy=discount"), now=lambda: NOW) as reranker:
        request = convert_request({"user": "u1", "k": 5, "session": [{"item": stocked_shop.list_of("u1")[0]}]})
        answer = reranker.recommend(request, deadline_ms=1)
    stored = [item for item in stocked_shop.list_of("u1") if stocked_shop.in_stock(item)]
    assert (answer.rung, names(answer)) == ("stored_order", stored[:5])
