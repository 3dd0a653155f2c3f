"""The rules that the re-ranker is held against, by known answers, and the places that they give."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import sessions
from benchmarks.session_rules import ItemToItem, Popularity, SessionNeighbours, wanted_now
from jobs.moments import Moment, Replayed
from jobs.trending_then import Events
from reranker.arrivals import Arrivals, Wanted
from reranker.decayed_counts import HALF_LIFE_SECONDS
from reranker.pool import Pool
from schemas.messages import RecommendRequest, SessionEvent

PAST = [["a", "b", "c"], ["a", "b"], ["b", "d"], ["e", "f"]]


def moment(wanted: str, *items: str) -> Moment:
    return Moment(RecommendRequest(user="ann", session=[SessionEvent(item=item) for item in items]), wanted)


def test_session_neighbours_score_what_sessions_alike_held_besides() -> None:
    scores = SessionNeighbours(PAST).scores(["a"])
    assert set(scores) == {"b", "c"}
    # c is in one of four sessions and in one of two neighbours, b in three and in both; rarity is a logarithm.
    assert scores["c"] == pytest.approx(np.log(4))
    assert scores["b"] == pytest.approx(2 * np.log(4 / 3))


def test_session_neighbours_count_later_items_of_the_session_more() -> None:
    scores = SessionNeighbours([["a", "x"], ["b", "y"]]).scores(["a", "b"])
    assert scores["y"] > scores["x"] > 0


def test_item_to_item_counts_sessions_with_the_last_item() -> None:
    assert ItemToItem(PAST).scores(["e", "a"]) == {"b": 2, "c": 1}
    assert ItemToItem(PAST).scores(["never heard of"]) == {}


def test_popularity_counts_sessions() -> None:
    assert Popularity([*PAST, ["a", "a"]]).scores(["e"]) == {"a": 3, "b": 3, "c": 1, "d": 1, "e": 1, "f": 1}


@pytest.mark.parametrize("rule", [SessionNeighbours, ItemToItem, Popularity])
def test_a_rule_to_which_sessions_are_added_is_that_of_all_of_them(
    rule: type[SessionNeighbours | ItemToItem | Popularity],
) -> None:
    growing = rule(PAST[:1])
    for session in PAST[1:]:
        growing.add(session)
    for session in (["a"], ["e", "b"], ["a", "d", "never heard of"]):
        assert dict(growing.scores(session)) == dict(rule(PAST).scores(session))


def test_most_wanted_now_counts_each_user_once_and_the_earlier_for_less() -> None:
    half_life = int(HALF_LIFE_SECONDS)
    events = [(0, 0, 0), (1, 0, 0), (1, 0, half_life), (2, 1, half_life), (3, 1, 5 * half_life)]
    user, item, time = np.array(events).T
    happened = Events(user, item, time, ["a", "b"])
    assert wanted_now(happened, 2.0 * half_life) == {"a": 0.75, "b": 0.5}
    assert wanted_now(happened, 0.0) == {}


def test_a_place_among_candidates_skips_what_may_not_be_shown_and_ties_go_to_the_list() -> None:
    pool = Pool.of_list(np.arange(5, dtype=np.uint32), np.zeros(5, np.float32))
    may_be_shown = np.array([True, False, True, True, True])
    case = Replayed(pool, may_be_shown, lambda places: np.zeros((len(places), 1), np.float32), wanted=3)
    assert sessions._rank(np.array([0.5, 0.9, 0.5, 0.5, 0.7]), case) == 4
    assert sessions._rank(np.array([0.0, 0.9, 0.0, 0.5, 0.0]), case) == 1
    assert sessions._rank(np.zeros(5), case._replace(wanted=1)) == 0
    assert sessions._rank(np.zeros(5), case._replace(wanted=-1)) == 0


def test_a_place_in_the_catalogue_leaves_out_the_session() -> None:
    scores = {"a": 3.0, "b": 2.0, "c": 2.0, "d": 1.0}
    assert sessions._rank_of(scores, moment("c", "x")) == 3
    assert sessions._rank_of(scores, moment("c", "a")) == 2
    assert sessions._rank_of(scores, moment("c", "a", "b", "d")) == 1
    assert sessions._rank_of(scores, moment("never heard of", "a")) == 0


def test_a_place_among_what_is_not_consumed_leaves_out_the_rest() -> None:
    scores = {"a": 3.0, "b": 2.0, "c": 2.0, "d": 1.0}
    assert sessions._rank_of(scores, moment("c", "x"), {"b", "d", "x"}) == 2
    assert sessions._rank_of(scores, moment("c", "a"), {"a", "b"}) == 1
    assert sessions._rank_of(scores, moment("c", "x"), {"c"}) == 0


def test_nights_follow_each_other_without_a_gap() -> None:
    for data in sessions.DATA:
        nights = list(sessions.nights(data))
        assert nights[0][0] == data.first
        ends = [until for _, until in nights]
        assert ends == sorted(set(ends))
        assert [sessions.datasets.end_of(day) for day, _ in nights[1:]] == ends[:-1]
        assert data.first < data.learn_until < data.last


def test_arrivals_push_others_down_and_stand_at_their_places() -> None:
    arrivals = Arrivals(places=[2, 4], shown=Wanted(items=["x", "y"]))
    assert [sessions._rank_around(arrivals, rank, "known") for rank in (0, 1, 2, 3)] == [0, 1, 3, 5]
    assert [sessions._rank_around(arrivals, 0, wanted) for wanted in ("x", "y", "z")] == [2, 4, 0]
