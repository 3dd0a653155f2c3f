"""Sessions cut into moments, and replayed through a version by the re-ranker's own code."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from interactions_of import write_prepared
from serving_shop import MADE_AT, N_ITEMS, TASTES, Shop

from jobs.moments import Moment, Moments, Replayed, Stage, Visit, replay, sessions
from jobs.trending_then import Events, TrendingThen
from prediction_store.reader import Version
from reranker import ranking
from reranker.recommend import open_reranker
from reranker.session import read_session
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import SIGNALS
from reranker.user_tower import UserNow, UserTower
from schemas.messages import Context, RecommendRequest, SessionEvent
from schemas.serving_config import Serve

DAY = "2026-03-02"
HOUR = 3600


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("replayed") / "store")
    made.publish("a")
    return made


@pytest.fixture(scope="module")
def version(shop: Shop) -> Iterator[Version]:
    with Version.open(shop.root, shop.current()) as opened:
        yield opened


def found(prepared: Path, since: int = 0, until: int = 10**10) -> list[list[tuple[str, str, float]]]:
    return [
        [(visit.user, visit.event.item, visit.event.time) for visit in session]
        for session in sessions(prepared, since=since, until=until, gap_minutes=30)
    ]


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """What is kept of all that is made inside the block, in bytes of Python and of Arrow."""
    gc.collect()
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - arrow
    finally:
        tracemalloc.stop()


def of_all_hours(days: int) -> list[Moment]:
    """A moment or more of every hour, of any of the users and on any device."""
    rng = np.random.default_rng(4)
    found: list[Moment] = []
    for hour in range(24 * days):
        user, device = str(rng.choice([*TASTES])), str(rng.choice(["phone", "tablet", ""]))
        items = [f"a{item:02}" for item in rng.integers(N_ITEMS, size=4)]
        kinds = rng.choice(["view", "cart"], len(items)).tolist()
        times = MADE_AT + HOUR * hour + np.cumsum(rng.integers(1, 600, len(items)))
        events = [
            SessionEvent(item=item, event=kind, time=time)
            for item, kind, time in zip(items, kinds, times.astype(float).tolist(), strict=True)
        ]
        found += Moments([[Visit(user, event, device) for event in events]], most_events=50)
    return found


def defined(version: Version, moment: Moment, case: Replayed) -> np.ndarray:
    """float32[n, signals] of all candidates by the definitions."""
    request, candidates = moment.request, version.read(moment.request.user)
    assert candidates is not None
    assert request.context.time is not None
    session = read_session(request.session, version, Serve(), request.context.time)
    user = UserNow(UserTower.of(version), candidates.user_row, session)
    at = Circumstances(request.context.time, request.context.device or "", user=user)
    given = SignalInputs(version, case.pool, session, at)
    return np.stack([signal.values(given) for signal in SIGNALS], axis=1)


def test_a_session_id_makes_a_session_and_without_one_a_pause_ends_it(tmp_path: Path) -> None:
    prepared = write_prepared(
        tmp_path,
        DAY,
        [
            ("ann", "a", 10, "s2"),
            ("ann", "b", 9000, "s2"),
            ("ann", "c", 20, "s1"),
            ("bob", "a", 100, None),
            ("bob", "b", 100 + 29 * 60, None),
            ("bob", "c", 100 + 59 * 60, None),
        ],
    )
    assert found(prepared) == [
        [("ann", "a", 10.0), ("ann", "b", 9000.0)],
        [("ann", "c", 20.0)],
        [("bob", "a", 100.0), ("bob", "b", 1840.0)],
        [("bob", "c", 3640.0)],
    ]


def test_only_what_lies_between_two_times_is_replayed(tmp_path: Path) -> None:
    prepared = write_prepared(
        tmp_path, DAY, [("ann", item, time, "s") for item, time in (("a", 5), ("b", 6), ("c", 7))]
    )
    assert found(prepared, since=6, until=7) == [[("ann", "b", 6.0)]]
    assert found(prepared, since=8) == []


def test_what_weighs_nothing_is_no_part_of_a_session(tmp_path: Path) -> None:
    rows = [("ann", item, time, "s") for time, item in enumerate("abc")]
    assert found(write_prepared(tmp_path, DAY, rows, [1.0, 0.0, 3.0])) == [[("ann", "a", 0.0), ("ann", "c", 2.0)]]


def test_a_moment_is_before_each_item_that_is_new_to_the_session() -> None:
    visits = [Visit("ann", SessionEvent(item=item, time=float(n)), "phone") for n, item in enumerate("abacb")]
    made = [*Moments([visits], most_events=2)]
    assert [moment.wanted for moment in made] == ["b", "c"]
    assert [[event.item for event in moment.request.session] for moment in made] == [["a"], ["b", "a"]]
    assert [(moment.request.context.time, moment.request.context.device) for moment in made] == [
        (1.0, "phone"),
        (3.0, "phone"),
    ]


def test_moments_and_sessions_that_are_not_asked_for_are_numbers_alone(tmp_path: Path) -> None:
    rows = [(f"u{n % 100}", f"i{n % 83}", 1000 + n, f"session {n % 500}") for n in range(10_000)]
    prepared = write_prepared(tmp_path, DAY, rows)
    sessions(prepared, since=0, until=10**10, gap_minutes=30)  # whatever the first use of Arrow keeps
    with traced() as kept_bytes:
        every = Moments(sessions(prepared, since=0, until=10**10, gap_minutes=30), most_events=50)
        assert kept_bytes() < 60 * len(rows)
    assert len(every) == 9500
    assert every[-1] == [*every].pop()


def test_a_replay_ranks_what_a_server_would(version: Version, shop: Shop) -> None:
    now = float(MADE_AT + 60)
    events = [SessionEvent(item="a31", time=now - 30), SessionEvent(item="a12", event="cart", time=now - 5)]
    request = RecommendRequest(user="u1", session=events, context=Context(time=now, device="phone"), k=40)
    case = replay(Stage.of(version), Moment(request, "a13"), Serve())
    assert case is not None
    weights = np.array([signal.default_weight for signal in SIGNALS], np.float32)
    scores = case.signals(np.arange(case.pool.items.size)) @ weights
    order = np.argsort(-scores, kind="stable")
    order = order[case.is_eligible[order]]
    with open_reranker(shop.config()) as reranker:
        answer = reranker.recommend(request)
    of_list = [item for item in answer.items if item.rung == "personal"]
    assert [item.item for item in of_list] == version.item_ids(case.pool.items[order])
    assert [item.score for item in of_list] == pytest.approx(scores[order].tolist(), abs=1e-5)
    assert version.item_ids(case.pool.items[[case.wanted]]) == ["a13"]


@pytest.mark.parametrize("is_compiled", [True, False])
def test_the_signals_of_a_moment_are_those_of_the_definitions(
    version: Version, is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "is_compiled", is_compiled and ranking.is_compiled)
    stage, rng, seen = Stage.of(version), np.random.default_rng(6), []
    for moment in of_all_hours(days=2):
        case = replay(stage, moment, Serve())
        assert case is not None
        expected = defined(version, moment, case)
        everything = np.arange(case.pool.items.size)
        np.testing.assert_allclose(case.signals(everything), expected, atol=1e-5)
        some = rng.permutation(everything)[:7]
        np.testing.assert_allclose(case.signals(some), expected[some], atol=1e-5)
        seen.append(expected)
    spread = np.ptp(np.concatenate(seen), axis=0)
    constant = [signal.name for signal, width in zip(SIGNALS, spread, strict=True) if width < 1e-3]
    silent = ["ignored", "trending_now"]
    assert constant == silent, "this replay knows of nothing shown in vain, and of nobody else; the data tells the rest"


def test_what_was_trending_at_the_moment_is_a_candidate_and_counts(version: Version) -> None:
    now = float(MADE_AT + 60)
    events = Events(np.arange(3), np.zeros(3, np.int64), np.full(3, MADE_AT + 5), ["a25"])
    stage = Stage.of(version, TrendingThen(version, events))
    request = RecommendRequest(user="u0", session=[SessionEvent(item="a02", time=now)], context=Context(time=now))
    moment, serve = Moment(request, "a25"), Serve(fresh_candidates=0)
    without, case = (replay(made, moment, serve) for made in (Stage.of(version), stage))
    assert without is not None
    assert case is not None
    assert (without.wanted, case.wanted) == (-1, case.pool.items.size - 1)
    column = [signal.name for signal in SIGNALS].index("trending_now")
    values = case.signals(np.arange(case.pool.items.size))[:, column]
    assert (values[case.wanted], np.count_nonzero(values)) == (pytest.approx(np.log(4) / np.log(5), abs=1e-3), 1)
    earlier = msgspec.structs.replace(request, context=Context(time=float(MADE_AT)))
    before = replay(stage, Moment(earlier, "a25"), serve)
    assert before is not None
    assert before.wanted == -1, "what lies ahead was not known then"


def test_what_a_replay_keeps_with_the_version_does_not_grow_with_its_hours(version: Version) -> None:
    stage, every = Stage.of(version), of_all_hours(days=6)
    begun = len(every) // 3
    for moment in every[:begun]:
        replay(stage, moment, Serve())
    before = len(version.kept)
    for moment in every[begun:]:
        replay(stage, moment, Serve())
    assert len(version.kept) == before


def test_what_is_no_candidate_and_who_has_no_list_are_told_apart(version: Version) -> None:
    request = RecommendRequest(user="u0", session=[SessionEvent(item="a00")], context=Context(time=float(MADE_AT)))
    case = replay(Stage.of(version), Moment(request, "never heard of"), Serve())
    assert case is not None
    assert case.wanted == -1
    stranger = RecommendRequest(user="nobody", session=request.session, context=request.context)
    assert replay(Stage.of(version), Moment(stranger, "a01"), Serve()) is None


def test_lines_of_one_time_come_in_an_order_that_ids_do_not_make(tmp_path: Path) -> None:
    items = [f"i{n:02}" for n in range(30)]
    prepared = write_prepared(tmp_path, DAY, [("ann", item, 100, "invoice") for item in items])
    (session,) = found(prepared)
    order = [item for _, item, _ in session]
    assert sorted(order) == items
    assert order != items
    assert pa.array(order).equals(pa.array([item for _, item, _ in found(prepared)[0]]))
