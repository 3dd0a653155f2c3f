"""The stored session and the one that a request brings, as one."""

from __future__ import annotations

import pytest

from reranker.sessions.stored import Happened, with_stored
from schemas.messages import RecommendRequest, SessionEvent


def seen(item: str, kind: str = "view", time: float | None = None) -> SessionEvent:
    return SessionEvent(item=item, event=kind, time=time)


def happened(item: str, kind: str = "view", time: float = 0.0, sent: float | None = None) -> Happened:
    return Happened(time, time if sent is None else sent, item, kind)


def test_the_stored_session_comes_before_the_requests_own_and_nothing_counts_twice() -> None:
    request = RecommendRequest(user="u", session=[seen("b", time=2.0), seen("a")])
    merged = with_stored(request, [happened("a", time=1.0), happened("b", time=2.0), happened("b", "cart", 2.0)], 10)
    assert merged.session == [seen("a", time=1.0), seen("b", "cart", 2.0), seen("b", time=2.0), seen("a")]
    assert with_stored(request, [], limit=10) is request


@pytest.mark.parametrize("stored", [[], [happened("c", time=1.0)]])
def test_an_impression_that_a_request_brings_is_no_part_of_its_session(stored: list[Happened]) -> None:
    request = RecommendRequest(user="u", session=[seen("a", "impression"), seen("b")])
    merged = with_stored(request, stored, limit=2)
    assert merged.session == [*(seen(one.item, time=one.sent) for one in stored), seen("b")]


def test_a_stored_event_from_the_future_is_the_requests_own_by_the_time_that_was_sent() -> None:
    request = RecommendRequest(user="u", session=[seen("a", time=9.0)])
    stored = [happened("a", time=5.0, sent=9.0), happened("b", time=5.0, sent=9.0), happened("a", time=9.0, sent=10.0)]
    merged = with_stored(request, stored, limit=10)
    assert merged.session == [seen("b", time=5.0), seen("a", time=9.0), seen("a", time=9.0)]


@pytest.mark.parametrize(("limit", "kept"), [(2, []), (3, ["d"]), (4, ["c", "d"]), (9, ["a", "c", "d"])])
def test_beyond_the_limit_the_oldest_stored_events_give_way(limit: int, kept: list[str]) -> None:
    request = RecommendRequest(user="u", session=[seen("x"), seen("y")])
    stored = [happened(item, time=place) for place, item in enumerate(["a", "c", "d"])]
    assert [one.item for one in with_stored(request, stored, limit).session] == [*kept, "x", "y"]
