"""What was trending at moments of the past: against a loop, and as the counts of a server have it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from interactions_of import write_prepared
from serving_shop import MADE_AT, Shop

from jobs.trending_then import SPAN_SECONDS, Events, TrendingThen, events_of
from prediction_store.reader import Version
from reranker.decayed_counts import HALF_LIFE_SECONDS, DecayedCounts
from reranker.trending_now import REFRESH_SECONDS, TrendingNow

ITEMS = [f"a{number:02}" for number in range(12)] + ["new since"]


def some_events(seed: int = 0, count: int = 400) -> Events:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(MADE_AT - 86_400, MADE_AT + 86_400, count))
    return Events(rng.integers(9, size=count), rng.integers(len(ITEMS), size=count), times, ITEMS)


@pytest.fixture
def version(shop: Shop) -> Version:
    with Version.open(shop.root, shop.current()) as opened:
        yield opened


def test_it_is_what_a_server_would_have_counted(version: Version, tmp_path: Path) -> None:
    events = some_events()
    then, counts = TrendingThen(version, events), DecayedCounts(tmp_path)
    now = [0.0]
    served = TrendingNow(counts, lambda: now[0])
    at = iter(zip(events.user.tolist(), events.item.tolist(), events.time.tolist(), strict=True))
    user, item, time = next(at)
    compared = 0
    for moment in range(MADE_AT - 43_200, MADE_AT + 86_400, 5_000):
        now[0] = moment // REFRESH_SECONDS * REFRESH_SECONDS
        while time < now[0]:
            counts.add(f"user {user}", ITEMS[item], float(time))
            user, item, time = next(at, (0, 0, math.inf))
        found, expected = then.at(moment), served.of(version, ["new since"])
        assert found is not None
        assert expected is not None
        np.testing.assert_allclose(found.counts, expected.counts, atol=0.01)
        assert found.items[:3].tolist() == expected.items[:3].tolist()
        assert ([*found.arrivals], found.arrived) == (expected.arrivals, pytest.approx(expected.arrived, abs=0.01))
        assert found.since.tolist() == expected.since.tolist()
        compared += np.count_nonzero(found.counts) + bool(found.arrivals)
    assert compared > 100


def test_nothing_of_what_came_later_is_known(version: Version) -> None:
    events = some_events()
    for moment in (MADE_AT, MADE_AT + 40_000):
        until = int(np.searchsorted(events.time, moment))
        known = Events(events.user[:until], events.item[:until], events.time[:until], ITEMS)
        one, other = TrendingThen(version, events).at(moment), TrendingThen(version, known).at(moment)
        assert one is not None
        assert other is not None
        assert (one.items.tolist(), one.counts.tolist()) == (other.items.tolist(), other.counts.tolist())


def test_it_is_looked_up_as_often_as_a_server_does(version: Version) -> None:
    then = TrendingThen(version, some_events())
    assert then.at(MADE_AT // 30 * 30 + 1.0) is then.at(MADE_AT // 30 * 30 + 29.0)
    assert then.at(MADE_AT // 30 * 30 + 31.0) is not then.at(MADE_AT // 30 * 30 + 1.0)


def test_there_may_be_nothing(version: Version) -> None:
    nothing = Events(*np.zeros((3, 0), np.int64), ITEMS)
    unknown = Events(np.zeros(1, np.int64), np.array([12]), np.array([MADE_AT]), ITEMS)
    assert [TrendingThen(version, events).at(MADE_AT + 60.0) for events in (nothing, unknown)] == [None, None]


def test_what_the_version_lacks_has_arrived(version: Version) -> None:
    unknown = Events(np.arange(9), np.full(9, 12), np.full(9, MADE_AT), ITEMS)
    found = TrendingThen(version, unknown).at(MADE_AT + 60.0)
    assert found is not None
    assert (found.items.size, found.arrivals, found.arrived) == (0, ["new since"], pytest.approx([9.0], abs=0.1))


def test_the_interactions_that_count_are_read(tmp_path: Path) -> None:
    since, span = 10_000_000, int(SPAN_SECONDS)
    times = [since - span - 1, since - span, since + 5, since + 9, since + 10]
    rows = [(f"u{time % 2}", f"i{place}", time, None) for place, time in enumerate(times)]
    prepared = write_prepared(tmp_path, "2026-03-02", rows[::-1], [1.0, 0.0, 1.0, 2.0, 1.0])
    found = events_of(prepared, since=since, until=since + 10)
    assert [found.items[item] for item in found.item.tolist()] == ["i1", "i2"]
    assert found.time.tolist() == [since - span, since + 5]
    assert SPAN_SECONDS == 8 * HALF_LIFE_SECONDS
