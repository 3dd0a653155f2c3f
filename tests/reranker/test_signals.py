"""Every signal against a slow, obvious version: one candidate and one session item at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from serving_shop import Shop

from prediction_store.reader import Version
from reranker.forms import strength_of
from reranker.pool import Pool
from reranker.session import EMPTY, Session, read_session
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import FRESH_HALF_LIFE_SECONDS, SIGNALS, Signal
from reranker.trending_now import Trending
from reranker.user_tower import UserNow, UserTower
from schemas.messages import SessionEvent
from schemas.serving_config import Serve

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def version(stocked_shop: Shop) -> Iterator[Version]:
    opened = Version.open(stocked_shop.root, stocked_shop.current())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def given(version: Version) -> SignalInputs:
    rng = np.random.default_rng(5)
    items = rng.permutation(version.n_items)[:25].astype(np.uint32)
    scores = np.sort(rng.normal(size=25).astype(np.float32))[::-1].copy()
    session = Session(
        items=np.array([3, 31, 17, 8], np.uint32),
        weights=np.array([1.0, 0.25, 2.0, 0.5], np.float32),
        visits=np.array([8, 17, 31, 17, 3], np.uint32),
        kinds=("view", "cart", "view", "cart", "view"),
    )
    ignored = {int(items[2]): 1, int(items[9]): 3, 39: 2}
    many = items[[4, 0, 19]].astype(np.uint32)
    counts = np.zeros(version.n_items, np.float32)
    counts[many] = [1.0, 0.7, 0.2]
    user, trending = UserNow(UserTower.of(version), 1, session), Trending("", many, counts)
    at = Circumstances(NOW, device="phone", ignored=ignored, user=user, trending=trending)
    return SignalInputs(version, Pool(items, scores, listed=20), session, at)


def cosine(version: Version, one: int, other: int) -> float:
    a, b = version.item_vectors[one].tolist(), version.item_vectors[other].tolist()
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length


def value_of(version: Version, column: str, item: int) -> str:
    values = version.column(column)
    return values.values[values.codes[item]] if values.codes[item] >= 0 else ""


def pairs(given: SignalInputs) -> list[tuple[int, float]]:
    return list(zip(given.session.items.tolist(), given.session.weights.tolist(), strict=True))


def slow_base_score(given: SignalInputs, position: int) -> float:
    listed = given.pool.base_scores.tolist()[: given.pool.listed]
    share = (float(given.pool.base_scores[position]) - min(listed)) / (max(listed) - min(listed))
    return max(-1.0, min(1.0, share))


def slow_base_rank(given: SignalInputs, position: int) -> float:
    return 1 / math.log2(position + 2)


def slow_similarity(given: SignalInputs, position: int) -> float:
    item = int(given.pool.items[position])
    total = sum(weight * cosine(given.version, item, visited) for visited, weight in pairs(given))
    return total / max(1.0, sum(weight for _, weight in pairs(given)))


def slow_nearest(given: SignalInputs, position: int) -> float:
    item = int(given.pool.items[position])
    return max(min(weight, 1.0) * cosine(given.version, item, visited) for visited, weight in pairs(given))


def slow_affinity(column: str) -> Callable[[SignalInputs, int], float]:
    def affinity(given: SignalInputs, position: int) -> float:
        mine = value_of(given.version, column, int(given.pool.items[position]))
        shared = [
            weight for visited, weight in pairs(given) if mine and mine == value_of(given.version, column, visited)
        ]
        return sum(shared) / max(1.0, sum(weight for _, weight in pairs(given)))

    return affinity


def slow_popularity(given: SignalInputs, position: int) -> float:
    return float(given.version.column("popularity")[int(given.pool.items[position])])


def slow_freshness(given: SignalInputs, position: int) -> float:
    released = float(given.version.column("released")[int(given.pool.items[position])])
    return 0.0 if math.isnan(released) else 0.5 ** (max(0.0, NOW - released) / FRESH_HALF_LIFE_SECONDS)


def slow_in_list(given: SignalInputs, position: int) -> float:
    return 1.0 if position < given.pool.listed else 0.0


def slow_last(given: SignalInputs, position: int) -> float:
    return cosine(given.version, int(given.pool.items[position]), int(given.session.items[0]))


def of_length_1(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def slow_mean(given: SignalInputs, position: int) -> float:
    visited = [(of_length_1(given.version.item_vectors[item].tolist()), weight) for item, weight in pairs(given)]
    mean = of_length_1([sum(weight * vector[place] for vector, weight in visited) for place in range(4)])
    mine = of_length_1(given.version.item_vectors[given.pool.items[position]].tolist())
    return sum(x * y for x, y in zip(mean, mine, strict=True))


def slow_refreshed(given: SignalInputs, position: int) -> float:
    tower = UserTower.of(given.version)
    assert tower is not None
    weights = np.array([{"view": 1.0, "cart": 2.0}[kind] for kind in given.session.kinds], np.float32)
    user = of_length_1(tower.refreshed(1, given.session.visits, weights).tolist())
    mine = of_length_1(given.version.item_vectors[given.pool.items[position]].tolist())
    return sum(x * y for x, y in zip(user, mine, strict=True))


def slow_together(count: int) -> Callable[[SignalInputs, int], float]:
    def together(given: SignalInputs, position: int) -> float:
        total, weights = 0.0, 0.0
        for visited, weight in pairs(given)[:count]:
            near = given.version.together(visited)
            scores = dict(zip(near.items.tolist(), near.scores.tolist(), strict=True))
            total += weight * scores.get(int(given.pool.items[position]), 0.0)
            weights += weight
        return total / max(1.0, weights)

    return together


def slow_price(given: SignalInputs, position: int) -> float:
    prices = given.version.column("price")
    logs = [(math.log2(prices[visited]), weight) for visited, weight in pairs(given)]
    usual = sum(log * weight for log, weight in logs) / sum(weight for _, weight in logs)
    return 0.5 ** abs(math.log2(prices[given.pool.items[position]]) - usual)


def slow_context(kind: str, value: str) -> Callable[[SignalInputs, int], float]:
    def context(given: SignalInputs, position: int) -> float:
        lifts = given.version.context(kind, value)
        assert lifts is not None
        return float(lifts[given.pool.items[position]])

    return context


def slow_trend(given: SignalInputs, position: int) -> float:
    return float(given.version.column("trend")[int(given.pool.items[position])])


def slow_ignored(given: SignalInputs, position: int) -> float:
    return 1.0 - 0.5 ** given.at.ignored.get(int(given.pool.items[position]), 0)


def slow_met_before(given: SignalInputs, position: int) -> float:
    tower = UserTower.of(given.version)
    assert tower is not None
    return 1.0 - 0.5 ** tower.history_of(1).tolist().count(int(given.pool.items[position]))


# NOW is 8 in the morning, UTC, of a Friday.
SLOW: dict[str, Callable[[SignalInputs, int], float]] = {
    "base_score": slow_base_score,
    "base_rank": slow_base_rank,
    "in_list": slow_in_list,
    "session_similarity": slow_similarity,
    "session_nearest": slow_nearest,
    "session_last": slow_last,
    "session_mean": slow_mean,
    "refreshed_user": slow_refreshed,
    "together_last": slow_together(1),
    "together_session": slow_together(10),
    "session_category": slow_affinity("category"),
    "session_brand": slow_affinity("brand"),
    "session_price": slow_price,
    "at_hour": slow_context("hour", "8"),
    "on_weekday": slow_context("weekday", "4"),
    "on_device": slow_context("device", "phone"),
    "popularity": slow_popularity,
    "trend": slow_trend,
    "ignored": slow_ignored,
    "met_before": slow_met_before,
    "trending_now": lambda given, position: {4: 1.0, 0: 0.7, 19: 0.2}.get(position, 0.0),
    "freshness": slow_freshness,
}


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_a_signal_equals_its_slow_version(signal: Signal, given: SignalInputs) -> None:
    found = signal.values(given)
    assert found.dtype == np.float32
    expected = [SLOW[signal.name](given, position) for position in range(given.pool.items.size)]
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(set(np.round(found, 6).tolist())) > 1, "the data does not tell this signal from a constant"


# The base signals say where a candidate stands among the others.
@pytest.mark.parametrize("signal", SIGNALS[3:], ids=lambda signal: signal.name)
def test_a_signal_is_the_same_for_one_candidate_as_among_many(signal: Signal, given: SignalInputs) -> None:
    together = signal.values(given)
    for position in (0, 7, 24):
        alone = Pool(given.pool.items[[position]], given.pool.base_scores[[position]], listed=1)
        one = signal.values(SignalInputs(given.version, alone, given.session, given.at))
        assert one[0] == pytest.approx(float(together[position]), abs=1e-6)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_a_signal_of_nothing_is_empty_and_without_a_session_says_nothing(signal: Signal, given: SignalInputs) -> None:
    nothing = Pool(np.empty(0, np.uint32), np.empty(0, np.float32), listed=0)
    assert signal.values(SignalInputs(given.version, nothing, given.session, given.at)).shape == (0,)
    if signal.of_session:
        assert not signal.values(SignalInputs(given.version, given.pool, EMPTY, given.at)).any()


def test_equal_base_scores_say_nothing_instead_of_dividing_by_zero(given: SignalInputs) -> None:
    level = Pool(given.pool.items, np.ones(25, np.float32), listed=25)
    by_name = {signal.name: signal for signal in SIGNALS}
    assert not by_name["base_score"].values(SignalInputs(given.version, level, EMPTY, given.at)).any()


SERVE = Serve(session_half_life_seconds=100.0, session_event_weights={"view": 1.0, "cart": 2.0})


def test_an_event_counts_half_after_the_half_life_and_by_its_type(version: Version) -> None:
    events = [
        SessionEvent(item="a01", event="view", time=NOW - 200),
        SessionEvent(item="a02", event="cart", time=NOW - 100),
        SessionEvent(item="a03", event="wink", time=NOW),
    ]
    session = read_session(events, version, SERVE, NOW)
    assert version.item_ids(session.items) == ["a03", "a02", "a01"]
    assert session.weights.tolist() == [1.0, 1.0, 0.25]


def test_a_type_that_weighs_nothing_in_the_data_says_nothing_in_a_session_unless_it_is_listed(version: Version) -> None:
    events = [SessionEvent(item="a01", time=NOW), SessionEvent(item="a02", event="dismiss", time=NOW)]
    session = read_session(events, version, SERVE, NOW)
    assert (version.item_ids(session.items), session.weights.tolist()) == (["a01"], [1.0])
    assert (version.item_ids(session.silent), session.ignored) == (["a02"], 0)
    listed = read_session(events, version, Serve(session_event_weights={"dismiss": 0.5}), NOW)
    assert (version.item_ids(listed.items), listed.weights.tolist()) == (["a02", "a01"], [0.5, 1.0])
    silenced = read_session(events, version, Serve(session_event_weights={"view": 0.0, "dismiss": 0.5}), NOW)
    assert (version.item_ids(silenced.items), version.item_ids(silenced.silent)) == (["a02"], ["a01"])


def test_by_default_no_view_is_listed_so_that_the_data_may_say_that_it_weighs_nothing(version: Version) -> None:
    assert Serve().session_event_weights == {"cart": 2.0}
    views = [SessionEvent(item="a01", event=event, time=NOW) for event in ("view", "purchase")]
    assert read_session(views, version, Serve(), NOW).weights.tolist() == [2.0]


def test_what_also_says_something_keeps_the_place_of_that(version: Version) -> None:
    events = [
        SessionEvent(item="a01", time=NOW - 20),
        SessionEvent(item="a02", time=NOW - 10),
        SessionEvent(item="a01", event="dismiss", time=NOW),
    ]
    session = read_session(events, version, SERVE, NOW)
    assert version.item_ids(session.items) == ["a02", "a01"]
    assert session.silent.tolist() == []


def test_an_event_without_a_time_or_from_the_future_happened_now(version: Version) -> None:
    events = [SessionEvent(item="a01", time=NOW + 500), SessionEvent(item="a02")]
    session = read_session(events, version, SERVE, NOW)
    assert session.weights.tolist() == [1.0, 1.0]
    assert version.item_ids(session.items) == ["a02", "a01"]


def test_events_of_one_item_add_up_and_the_latest_gives_its_place(version: Version) -> None:
    events = [
        SessionEvent(item="a01", time=NOW),
        SessionEvent(item="a02", time=NOW - 50),
        SessionEvent(item="a01", time=NOW - 100),
    ]
    session = read_session(events, version, SERVE, NOW)
    assert version.item_ids(session.items) == ["a01", "a02"]
    assert session.weights[0] == pytest.approx(1.5)


def test_unknown_items_are_ignored_and_counted(version: Version) -> None:
    events = [SessionEvent(item="a01"), SessionEvent(item="b01"), SessionEvent(item="ü" * 255)]
    session = read_session(events, version, SERVE, NOW)
    assert (version.item_ids(session.items), session.ignored) == (["a01"], 2)


def test_a_session_that_the_data_had_already_leaves_the_users_vector_as_it_was(version: Version) -> None:
    end = version.manifest.made_at
    row = 1
    tower = UserTower.of(version)
    assert tower is not None
    known = version.item_ids(tower.history_of(row)[-2:])
    events = [SessionEvent(item=item, time=end - 60.0 + place) for place, item in enumerate(known)]
    session = read_session(events, version, SERVE, end + 600.0)
    stored = tower.refreshed(row, EMPTY.visits, EMPTY.weights)
    assert np.array_equal(UserNow(tower, row, session).vector, stored)
    again = [SessionEvent(item=item, time=end + place) for place, item in enumerate(known)]
    repeated = read_session(again, version, SERVE, end + 600.0)
    assert not np.array_equal(UserNow(tower, row, repeated).vector, stored)


def test_an_event_of_long_ago_weighs_nothing_and_breaks_nothing(version: Version) -> None:
    session = read_session([SessionEvent(item="a01", time=0.0)], version, SERVE, NOW)
    assert session.weights.tolist() == [0.0]
    assert strength_of(session.weights) == 1.0
