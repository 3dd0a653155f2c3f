"""What everybody does just now: counted from the events of all users, a source of candidates and a signal for each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import serving_shop
from asgi_client import AsgiClient
from serving_shop import MADE_AT, N_ITEMS, Shop
from shop_server import PATIENCE_SECONDS, Server

from prediction_store.reader import Version
from reranker import sources, trending_now
from reranker.app import create_app
from reranker.decayed_counts import FILE, HALF_LIFE_SECONDS, DecayedCounts
from reranker.feedback import says_something
from reranker.recommend import open_reranker
from reranker.replay import replay
from reranker.requests import convert_request
from reranker.serving_log.reading import read_log, segments
from reranker.serving_log.records import AnswerRecord, TrendingRecord, encode
from reranker.serving_log.segments import SegmentWriter
from reranker.session import read_session
from reranker.signals import SIGNALS
from reranker.skew import skew
from reranker.trending_now import FEW, LEAST, MOST, REFRESH_SECONDS, Trending, TrendingNow, first_of, shares_of
from reranker.user_tower import UserNow, UserTower
from schemas.messages import SessionEvent
from schemas.ranker import RankerWeights
from schemas.serving_config import Serve

NOW = float(MADE_AT + 600)
WEIGHTS = RankerWeights(["base_score", "trending_now"], [1.0, 6.0], "space")
BY_MANY = ["a25", "a35", "a38"]
"""Not among the twenty of the list of u0."""


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Its weights know what is trending."""
    monkeypatch.setattr(serving_shop, "default_weights", lambda space_id: WEIGHTS)
    made = Shop(tmp_path / "store")
    made.publish("a")
    return made


@pytest.fixture
def version(shop: Shop) -> Iterator[Version]:
    with Version.open(shop.root, shop.current()) as opened:
        yield opened


def crowd(items: list[str], kind: str = "view") -> dict[str, Any]:
    """Events in which three users more did something with each item than with the next."""
    last = len(items)
    users = [(item, user) for place, item in enumerate(items) for user in range(3 * (last - place))]
    return {"events": [{"user": f"one of many {user}", "item": item, "event": kind} for item, user in users]}


def client_of(shop: Shop, clock: Clock, *overrides: str) -> AsgiClient:
    return AsgiClient(create_app(shop.config(*overrides), now=clock))


def asked(client: AsgiClient, user: str = "u0", **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/recommend", {"user": user, "explain": True, **fields})
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    return found


def shown(shop: Shop) -> list[str]:
    """The list of u0, as far as it is in stock."""
    return [item for item in shop.list_of("u0") if shop.in_stock(item)]


def records(shop: Shop, kind: type) -> list[Any]:
    return [record for record in read_log(shop.root / "events", pytest.fail) if isinstance(record, kind)]


def counted(folder: Path, counts: dict[str, int], now: float) -> DecayedCounts:
    found = DecayedCounts(folder)
    for item, users in counts.items():
        for user in range(users):
            found.add(f"user {user}", item, now)
    return found


def test_what_many_do_is_offered_to_others_at_once(shop: Shop, clock: Clock) -> None:
    assert not set(BY_MANY) & set(shop.list_of("u0"))
    with client_of(shop, clock) as client:
        client.post("/v1/events", crowd(BY_MANY))
        answer = asked(client, k=3)
        stranger = asked(client, "nobody", session=[{"item": "a02"}], k=3)
    assert [item["item"] for item in answer["items"]] == BY_MANY
    assert answer["items"][0]["sources"] == ["trending_now"]
    assert answer["items"][0]["why"] == "what many want just now, not on your list"
    assert [item["signals"]["trending_now"] for item in answer["items"]] == pytest.approx(
        [1.0, *(np.log1p([6, 3]) / np.log1p(9))], abs=1e-5
    )
    assert [item["item"] for item in stranger["items"]] == BY_MANY
    assert {item["rung"] for item in stranger["items"]} == {"session"}


def test_with_nothing_going_on_everything_is_as_ever(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        client.post("/v1/events", crowd(BY_MANY, "impression"))
        answer = asked(client, k=19)
    assert [item["item"] for item in answer["items"]] == shown(shop)
    assert {item["signals"]["trending_now"] for item in answer["items"]} == {0.0}
    assert (records(shop, TrendingRecord), [record.trending for record in records(shop, AnswerRecord)]) == ([], [""])


def test_what_is_on_the_list_is_not_added_again_but_counts(shop: Shop, clock: Clock) -> None:
    last = shown(shop)[-1]
    with client_of(shop, clock) as client:
        client.post("/v1/events", crowd([last]))
        answer = asked(client, k=19)
    items = [item["item"] for item in answer["items"]]
    assert (items[0], items[1:]) == (last, shown(shop)[:-1])
    assert answer["items"][0]["sources"] == ["stored_list", "trending_now"]


def test_it_is_looked_up_anew_after_some_seconds_and_fades(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        client.post("/v1/events", crowd(BY_MANY[:1]))
        tops = [asked(client, k=1)["items"][0]["item"]]
        client.post("/v1/events", crowd([BY_MANY[2], BY_MANY[1]]))
        for later in (1.0, REFRESH_SECONDS, 40 * HALF_LIFE_SECONDS):
            clock.now = NOW + later
            tops.append(asked(client, k=1)["items"][0]["item"])
    assert tops == [BY_MANY[0], BY_MANY[0], BY_MANY[2], shop.list_of("u0")[0]]


def test_one_user_alone_moves_little(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        for _ in range(50):
            client.post("/v1/events", {"events": [{"user": "bot", "item": "a15", "event": "view"}] * 10})
        answer = asked(client, k=20, session=[{"item": "a15"}])
    (own,) = records(shop, TrendingRecord)
    assert np.frombuffer(own.counts, "<f4") == pytest.approx([np.log(2) / np.log1p(FEW)])
    assert answer["items"][0]["signals"]["trending_now"] == 0.0


def test_events_that_say_nothing_do_not_count(shop: Shop) -> None:
    overrides = (
        "data.interactions.event_weights={view=1.0, hide=0.0, skip=0.0}",
        "serve.session_event_weights={skip=1.0}",
    )
    config = shop.config(*overrides)
    told = {kind: says_something(kind, config) for kind in ("view", "hide", "skip", "impression", "never heard of")}
    assert told == {"view": True, "hide": False, "skip": True, "impression": False, "never heard of": True}


def test_none_are_added_where_none_are_wanted(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock, "serve.trending_now_candidates=0") as client:
        client.post("/v1/events", crowd([*BY_MANY, shop.list_of("u0")[-1]]))
        answer = asked(client, k=19)
    assert {item["item"] for item in answer["items"]} == set(shown(shop))
    assert answer["items"][0]["item"] == shop.list_of("u0")[-1], "the signal counts all the same"
    with client_of(shop, clock, "sessions.enabled=false") as client:
        assert [item["item"] for item in asked(client, k=19)["items"]] == shown(shop)


def test_the_log_has_it_before_the_first_answer_and_a_replay_is_the_same(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        client.post("/v1/events", crowd([*BY_MANY, "never heard of"]))
        first = asked(client, k=7, session=[{"item": "a13"}])["request_id"]
        clock.now += 2 * REFRESH_SECONDS
        client.post("/v1/events", crowd(["a31", "a32", "a33", "a34", "a30", "a36"]))
        second = asked(client, k=7)["request_id"]
    happened = [type(record).__name__ for record in read_log(shop.root / "events", pytest.fail)]
    kinds = [kind for kind in happened if kind != "EventsRecord"]
    assert kinds == ["SettingsRecord", *["TrendingRecord", "AnswerRecord"] * 2]
    trending, answers = records(shop, TrendingRecord), records(shop, AnswerRecord)
    assert [answer.trending for answer in answers] == [record.number for record in trending]
    assert trending[0].items == BY_MANY
    for request_id in (first, second):
        found = replay(shop.config(), request_id)
        assert (found.differences, found.recorded.shown.items[:1]) == ([], found.replayed.shown.items[:1])
    assert replay(shop.config(), second).recorded.shown.items[0] != replay(shop.config(), first).recorded.shown.items[0]
    found = skew(shop.config(), 10)
    assert {of.name: of.unequal for of in found.signals} == {"base_score": 0, "trending_now": 0}


def test_a_replay_tells_that_the_log_has_lost_what_was_trending(shop: Shop, clock: Clock) -> None:
    with client_of(shop, clock) as client:
        client.post("/v1/events", crowd(BY_MANY))
        request_id = asked(client, k=3)["request_id"]
    others = [
        record for record in read_log(shop.root / "events", pytest.fail) if not isinstance(record, TrendingRecord)
    ]
    (number,) = [record.trending for record in others if isinstance(record, AnswerRecord)]
    for path in segments(shop.root / "events"):
        path.unlink()
    writer = SegmentWriter(shop.root / "events", shop.config().log, clock)
    writer.append([encode(record) for record in others])
    writer.close()
    found = replay(shop.config(), request_id)
    assert found.differences[0] == f"the log has lost what was trending then, {number}"
    assert any(difference.startswith("rank 1: item a25 then") for difference in found.differences)


def test_workers_count_together_and_lookup_sees_it(shop: Shop, tmp_path: Path) -> None:
    server = Server(shop.root, tmp_path, 2)
    try:
        for event in crowd(BY_MANY)["events"]:  # each by a connection, and so a worker, of its own
            httpx.post(f"{server.url}/v1/events", json={"events": [event]}, timeout=PATIENCE_SECONDS).raise_for_status()
        ends = time.monotonic() + PATIENCE_SECONDS
        workers: set[int] = set()
        while len(workers) < 2:  # one may take every connection for a while
            assert time.monotonic() < ends
            written = read_log(shop.root / "events", lambda tail: None)
            workers = {record.worker for record in written if isinstance(record, AnswerRecord)}
            found = httpx.post(
                f"{server.url}/v1/recommend", json={"user": "u0", "k": 3}, timeout=PATIENCE_SECONDS
            ).json()
            assert [item["item"] for item in found["items"]] == BY_MANY
    finally:
        server.end()
    config = shop.config()
    with open_reranker(config) as reranker:
        assert [item.item for item in reranker.recommend(convert_request({"user": "u0", "k": 3})).items] == BY_MANY


def test_a_server_that_cannot_count_serves_on(shop: Shop, clock: Clock) -> None:
    (shop.root / "sessions" / FILE).mkdir(parents=True)
    with client_of(shop, clock) as client:
        assert client.post("/v1/events", crowd(BY_MANY)).status == 200
        assert [item["item"] for item in asked(client, k=19)["items"]] == shown(shop)


def test_the_first_are_those_of_the_highest_counts() -> None:
    rng = np.random.default_rng(4)
    for size in (0, 3, MOST - 1, MOST, 5 * MOST):
        counts = rng.integers(0, 40, size) * LEAST * 0.4
        expected = [item for item in np.argsort(-counts, kind="stable")[:MOST].tolist() if counts[item] >= LEAST]
        assert first_of(counts).tolist() == expected
    assert shares_of(np.array([9.0, 1.0])) == pytest.approx([1.0, np.log(2) / np.log(10)])
    assert shares_of(np.array([1.0])) == pytest.approx([np.log(2) / np.log1p(FEW)])


def test_a_version_sees_the_items_that_it_has(version: Version, tmp_path: Path) -> None:
    counts = counted(tmp_path, {"new since": 9, "a31": 5, "a07": 2}, NOW)
    now = TrendingNow(counts, lambda: NOW)
    found = now.of(version)
    assert found is not None
    assert found.items.tolist() == [31, 7]
    assert np.flatnonzero(found.counts).tolist() == [7, 31]
    assert now.of(version) is found
    shares = found.counts[[31, 0, 7]].tobytes()
    again = Trending.of(version, TrendingRecord("n", NOW, ["a31", "new since", "a07"], shares))
    assert (again.items.tolist(), again.counts.tolist()) == (found.items.tolist(), found.counts.tolist())
    assert TrendingNow(DecayedCounts(tmp_path), lambda: NOW + 1e9).of(version) is None


@pytest.mark.parametrize("count", [0, 2, 50])
def test_the_pool_ends_with_what_is_trending_and_not_in_it(version: Version, count: int) -> None:
    candidates, serve = version.read("u1"), Serve(trending_now_candidates=count)
    assert candidates is not None
    session = read_session([SessionEvent(item="a02"), SessionEvent(item="a33")], version, serve, NOW)
    user = UserNow(UserTower.of(version), candidates.user_row, session)
    before = sources.personal(version, candidates, session, serve, None, user=user)
    others = [item for item in range(N_ITEMS) if item not in before.items]
    items = np.array([int(before.items[3]), *others[:3], int(before.items[0])], np.uint32)
    trending = Trending("", items, np.isin(np.arange(N_ITEMS), items).astype(np.float32))
    pool = sources.personal(version, candidates, session, serve, None, user=user, trending=trending)
    added = [item for item in items[:count].tolist() if item in others]
    assert pool.items.tolist() == [*before.items.tolist(), *added]
    assert pool.base_scores[before.items.size :] == pytest.approx(
        (version.item_vectors[added] @ version.user_vector(candidates.user_row)).tolist()
    )
    assert pool.listed == before.listed
    assert pool.found()["trending_now"].tolist() == items[:count].tolist()


def test_signals_follow_what_is_trending(version: Version) -> None:
    from reranker.ranking import Ranker
    from reranker.signal_inputs import Circumstances

    ranker = Ranker.of(WEIGHTS)
    one, other = (Trending("", np.array([item], np.uint32), np.eye(N_ITEMS, dtype=np.float32)[item]) for item in (3, 8))
    for is_now in (True, False):
        first = ranker.forms(version, Circumstances(NOW, trending=one), is_now=is_now)
        assert ranker.forms(version, Circumstances(NOW, trending=one), is_now=is_now) is first
        for trending in (other, None, one):
            found = ranker.forms(version, Circumstances(NOW, trending=trending), is_now=is_now)
            assert found.trending is trending
    assert [signal.name for signal in SIGNALS][-1] == "trending_now"


def test_finding_the_places_of_a_version_is_part_of_making_it_ready(version: Version, tmp_path: Path) -> None:
    now = TrendingNow(DecayedCounts(tmp_path), lambda: NOW)
    now.prepare(version)
    made = version.kept[trending_now._KEPT]
    now.of(version)
    assert version.kept[trending_now._KEPT] is made
