"""One request, one answer: rungs, filters, freshness, and that the session moves the order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from live_changes import change
from serving_shop import MADE_AT, Shop
from shop_store import SPACE, default_lists, small_tower, write_small_version

from prediction_store.columns import Categories, Texts
from prediction_store.item_now import item_now
from prediction_store.layout import version_path
from reranker.errors import InvalidFieldError, NotReadyError
from reranker.recommend import Reranker, open_reranker
from reranker.requests import convert_request
from reranker.signals import SIGNALS
from schemas.messages import RecommendAnswer
from schemas.ranker import RankerWeights

HOUR = 3600.0
Ask = Callable[..., RecommendAnswer]


@contextmanager
def asking(shop: Shop, *overrides: str, now: float = MADE_AT + HOUR) -> Iterator[Ask]:
    with open_reranker(shop.config(*overrides), now=lambda: now) as reranker:
        yield lambda user, **fields: reranker.recommend(convert_request({"user": user, **fields}))


@pytest.fixture(scope="module")
def ask(stocked_shop: Shop) -> Iterator[Ask]:
    with asking(stocked_shop) as ask:
        yield ask


def ids(answer: RecommendAnswer) -> list[str]:
    return [item.item for item in answer.items]


def views(*items: str) -> list[dict[str, str]]:
    return [{"item": item} for item in items]


def test_without_a_session_the_order_is_that_of_the_stored_list(ask: Ask, stocked_shop: Shop) -> None:
    for user in stocked_shop.users:
        stored = [item for item in stocked_shop.list_of(user) if stocked_shop.in_stock(item)]
        answer = ask(user, k=15)
        assert ids(answer) == stored[:15]
        assert (answer.rung, answer.reason, answer.topped_up_from) == ("personal", None, [])


def test_base_scores_are_those_of_the_list_and_ranks_count_from_one(ask: Ask, stocked_shop: Shop) -> None:
    answer = ask("u0", k=15)
    for place, item in enumerate(answer.items):
        assert item.rank == place + 1
        assert stocked_shop.list_of("u0")[item.base_rank - 1] == item.item
        assert item.base_score == pytest.approx(stocked_shop.score("u0", item.item), abs=0.01)


def test_the_session_moves_similar_items_up(ask: Ask) -> None:
    before = ids(ask("u0", k=20))
    after = ids(ask("u0", k=20, session=views("a12", "a14", "a16")))
    cluster = [item for item in after if item.startswith("a1")]
    assert [item[:2] for item in before[:5]] == ["a0"] * 5
    assert [item[:2] for item in after[:5]] == ["a1"] * 5
    assert len(cluster) == 7
    assert not {"a12", "a14", "a16"} & set(after)


def test_an_old_session_moves_less_than_a_fresh_one(ask: Ask) -> None:
    def first_of_cluster(age: float) -> int:
        session = [{"item": item, "time": MADE_AT + HOUR - age} for item in ("a12", "a14", "a16")]
        return next(item.rank for item in ask("u0", k=30, session=session).items if item.item.startswith("a1"))

    places = [first_of_cluster(age) for age in (0.0, 3 * HOUR, 240 * HOUR)]
    assert places[0] == 1
    assert places == sorted(places)
    assert places[2] > 5


def test_the_device_of_a_request_says_which_items_are_met_on_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store")
    shop.publish("a", ranker=RankerWeights(["base_score", "on_device"], [1.0, 10.0], "space"))
    with asking(shop) as ask:
        of_device = [ask("u0", k=15, explain=True, context={"device": name}).items for name in ("phone", "toaster")]
    on_phone, elsewhere = ([(item.signals or {})["on_device"] for item in items] for items in of_device)
    assert on_phone == sorted(on_phone, reverse=True)
    assert on_phone[0] == 1.0
    assert set(elsewhere) == {0.0}, "of a device that the data does not know, nothing"


def test_a_request_may_bring_its_own_time(ask: Ask) -> None:
    moment = MADE_AT + 1000 * HOUR
    session = [{"item": item, "time": moment} for item in ("a12", "a14", "a16")]
    assert ids(ask("u0", k=1, session=session, context={"time": moment}))[0].startswith("a1")


def test_neighbours_of_the_session_join_the_list(stocked_shop: Shop) -> None:
    with asking(stocked_shop, "serve.fresh_candidates=0") as ask:
        answer = ask("u0", k=30, session=views("a31"))
    joined = [item for item in answer.items if item.item not in stocked_shop.list_of("u0")]
    assert joined
    assert {item.item[:2] for item in joined if item.rung == "personal"} == {"a3"}


def test_consumed_items_do_not_come_back_with_the_session_or_a_top_up(ask: Ask, stocked_shop: Shop) -> None:
    consumed = stocked_shop.consumed_by("u1")
    assert consumed
    near = ids(ask("u1", k=40, session=views("a00", "a03")))
    assert not set(consumed) & set(near)
    assert not set(consumed) & set(ids(ask("u1", k=40)))


def test_a_consumed_item_stays_hidden_on_every_rung_whatever_it_scores(ask: Ask, stocked_shop: Shop) -> None:
    for user in stocked_shop.users:
        for session in ([], views("a00", "a13", "a26", "a39")):
            assert not set(stocked_shop.consumed_by(user)) & set(ids(ask(user, k=40, session=session)))


def test_a_known_users_list_that_runs_dry_is_topped_up_from_the_own_segment(ask: Ask, stocked_shop: Shop) -> None:
    answer = ask("u1", k=40)
    added = [item.item for item in answer.items if item.rung == "segment"]
    assert answer.topped_up_from == ["segment", "popular"]
    known = {*stocked_shop.list_of("u1"), *stocked_shop.consumed_by("u1")}
    assert added == [item for item in stocked_shop.popular("DE") if item not in known]


def test_excluded_items_out_of_stock_and_session_items_are_not_shown(ask: Ask) -> None:
    answer = ids(ask("u0", k=40, exclude=["a09", "a19", "unheard of"], session=views("a08")))
    assert not {"a09", "a19", "a08", "a05"} & set(answer)


def test_items_of_the_session_stay_when_the_configuration_says_so(stocked_shop: Shop) -> None:
    with asking(stocked_shop, "serve.seen.policy=allow") as ask:
        assert "a08" in ids(ask("u0", k=10, session=views("a08")))


@pytest.mark.parametrize("settings", [(), ("serve.neighbour_candidates=0", "serve.fresh_candidates=0")])
def test_an_unknown_user_gets_neighbours_of_the_session(stocked_shop: Shop, settings: tuple[str, ...]) -> None:
    """Also where a stored list gets none."""
    with asking(stocked_shop, *settings) as ask:
        answer = ask("nobody", k=4, session=views("a31"), context={"segment": "DE"})
    assert (answer.rung, answer.reason) == ("session", "unknown_user")
    assert {item.item[:2] for item in answer.items} == {"a3"}


def test_without_a_session_the_segments_popular_list_and_then_everybodys(ask: Ask, stocked_shop: Shop) -> None:
    of_segment = ask("nobody", k=5, context={"segment": "DE"})
    assert (of_segment.rung, ids(of_segment)) == ("segment", stocked_shop.popular("DE")[:5])
    of_all = ask("nobody", k=5)
    assert (of_all.rung, ids(of_all)) == ("popular", stocked_shop.popular("")[:5])
    elsewhere = ask("nobody", k=5, context={"segment": "XX"})
    assert (elsewhere.rung, ids(elsewhere)) == ("popular", stocked_shop.popular("")[:5])


def test_a_session_of_unknown_items_is_no_session(ask: Ask) -> None:
    answer = ask("nobody", k=5, session=views("unheard of", "of too"))
    assert (answer.rung, answer.ignored_events) == ("popular", 2)


def test_events_that_say_nothing_move_no_order_and_hide_their_items(ask: Ask, stocked_shop: Shop) -> None:
    dismissed = [{"item": "a31", "event": "dismiss"}, {"item": "a02", "event": "dismiss"}]
    answer = ask("nobody", k=5, session=[{"item": stocked_shop.popular("")[0], "event": "dismiss"}])
    assert (answer.rung, ids(answer)) == ("popular", stocked_shop.popular("")[1:6])
    silent, without = ask("u0", k=20, session=dismissed), ask("u0", k=20, exclude=["a31", "a02"])
    assert [(item.item, item.score) for item in silent.items] == [(item.item, item.score) for item in without.items]
    beside_views, views_alone = ask("u0", k=20, session=views("a12") + dismissed), ask("u0", k=21, session=views("a12"))
    shown = [(item.item, item.score) for item in views_alone.items if item.item not in {"a31", "a02"}]
    assert [(item.item, item.score) for item in beside_views.items] == shown[:20]


def test_a_list_that_runs_dry_is_filled_up_and_the_answer_says_so(ask: Ask, stocked_shop: Shop) -> None:
    excluded = stocked_shop.list_of("u0")[:18]
    answer = ask("u0", k=10, exclude=excluded, context={"segment": "DE"})
    assert answer.rung == "personal"
    assert answer.topped_up_from == ["segment", "popular"]
    assert [item.rung for item in answer.items] == ["personal"] * 2 + ["segment"] * 5 + ["popular"] * 3
    assert [item.rank for item in answer.items] == list(range(1, 11))
    assert len(set(ids(answer))) == 10
    assert not set(excluded) & set(ids(answer))


def test_when_nothing_is_left_the_answer_is_empty_and_says_so(ask: Ask, stocked_shop: Shop) -> None:
    answer = ask("u0", exclude=stocked_shop.items)
    assert (answer.items, answer.rung, answer.reason) == ([], "empty", "list_ran_dry")


def test_a_list_of_which_nothing_may_be_shown_gives_way_and_the_answer_says_why(ask: Ask, stocked_shop: Shop) -> None:
    answer = ask("u0", k=5, exclude=stocked_shop.list_of("u0"))
    assert (answer.rung, answer.reason) == ("popular", "list_ran_dry")
    rest = [item for item in stocked_shop.popular("") if item not in stocked_shop.list_of("u0")]
    assert ids(answer) == rest[:5]
    with_session = ask("u0", k=5, exclude=stocked_shop.list_of("u0"), session=views("a31"))
    assert (with_session.rung, with_session.reason) == ("personal", None), "its neighbours belong to the list's pool"


def test_a_session_that_runs_dry_is_filled_up_from_what_is_popular(stocked_shop: Shop) -> None:
    with asking(stocked_shop, "serve.fresh_candidates=0") as ask:
        answer = ask("nobody", k=10, session=views("a31"))
        near = [item.item for item in answer.items if item.rung == "session"]
        gone = ask("nobody", k=10, session=views("a31"), exclude=near)
    assert (answer.rung, answer.topped_up_from, len(near)) == ("session", ["popular"], 5)
    rest = [item for item in stocked_shop.popular("") if item not in {"a31", *near}]
    assert ids(answer)[5:] == rest[:5]
    assert (gone.rung, gone.topped_up_from, gone.reason) == ("popular", [], "unknown_user")


def test_what_rules_exclude_runs_a_list_dry_too(stocked_shop: Shop) -> None:
    middle = 'serve.rules=[{name = "m", where = "popularity > 0.06 and popularity < 0.96", action = "exclude"}]'
    with asking(stocked_shop, middle) as ask:
        answer = ask("u0", k=5, context={"segment": "DE"})
    listed = [item for item in stocked_shop.list_of("u0") if item in ("a00", "a01")]
    assert (answer.rung, answer.topped_up_from) == ("personal", ["popular"]), "of the segment nothing is left"
    assert ids(answer) == [*listed, "a39", "a38"]


def test_an_expired_list_is_served_and_marked_stale(stocked_shop: Shop) -> None:
    with asking(stocked_shop, now=MADE_AT + 73 * HOUR) as ask:
        answer = ask("u0", k=3)
        assert (answer.rung, answer.stale, answer.age_seconds) == ("personal", True, 73 * 3600)


def test_an_expired_list_gives_way_to_the_next_rung_when_the_policy_says_so(stocked_shop: Shop) -> None:
    with asking(stocked_shop, "store.expired=fallback", now=MADE_AT + 73 * HOUR) as ask:
        answer = ask("u0", k=3)
        assert (answer.rung, answer.reason, answer.stale) == ("popular", "expired_record", False)
    with asking(stocked_shop, "store.expired=fallback", now=MADE_AT + 169 * HOUR) as ask:
        answer = ask("u0", k=3)
        assert (answer.rung, answer.reason, answer.stale) == ("popular", "expired_record", True)


def test_a_list_from_the_future_counts_as_new(stocked_shop: Shop) -> None:
    with asking(stocked_shop, now=MADE_AT - HOUR) as ask:
        answer = ask("u0", k=3)
        assert (answer.rung, answer.stale, answer.age_seconds) == ("personal", False, 0)


def test_a_damaged_record_gives_way_to_the_next_rung(shop: Shop) -> None:
    shop.publish("a")
    with asking(shop) as ask:
        assert ask("u0").reason is None
        shop.damage("u0")
        answer = ask("u0", k=5)
        assert (answer.rung, answer.reason) == ("popular", "damaged_record")
        assert ids(answer) == shop.popular("")[:5]
        assert ask("u1").reason is None


def test_the_same_request_gets_the_same_answer(ask: Ask) -> None:
    session = [{"item": "a31", "time": MADE_AT}, {"item": "a12", "time": MADE_AT + 60}]
    first, second = (ask("u0", k=40, session=session, explain=True) for _ in range(2))
    assert first.items == second.items
    assert first.request_id != second.request_id


def test_scores_fall_within_a_rung_and_contributions_add_up(ask: Ask) -> None:
    answer = ask("u0", k=40, session=views("a31", "a12"), explain=True)
    for rung in {item.rung for item in answer.items}:
        scores = [item.score for item in answer.items if item.rung == rung]
        assert scores == sorted(scores, reverse=True)
    for item in answer.items:
        assert isinstance(item.contributions, dict)
        assert item.score == pytest.approx(sum(item.contributions.values()), abs=1e-5)
        assert math.isfinite(item.score)


def test_no_part_of_an_explanation_is_a_negative_zero(shop: Shop) -> None:
    names = [signal.name for signal in SIGNALS]
    shop.publish("a", ranker=RankerWeights(names, [-1.0] * len(names), "space"))
    hardly = '{name = "hardly", where = "price > 0", action = "boost", weight = -1e-8}'
    with asking(shop, f"serve.rules=[{hardly}]") as ask:
        answer = ask("u0", k=40, session=views("a31", "a12"), explain=True)
    parts = [part for item in answer.items for part in (*item.signals.values(), *item.contributions.values())]  # type: ignore[union-attr]
    assert 0.0 in parts and "-0.0" not in map(repr, parts)


def test_the_reason_names_the_item_of_the_session_that_is_most_alike(ask: Ask) -> None:
    answer = ask("u0", k=1, session=views("a12", "a14", "a16"), explain=True)
    assert "because you looked at Title of a1" in str(answer.items[0].why)


@pytest.mark.parametrize(
    ("signal", "item", "why"),
    [
        ("together_last", "item-7", "because you looked at Title 2"),
        ("together_session", "item-9", "because you looked at Title 4"),
        ("session_last", "item-6", "because you looked at Title 2"),
        ("session_price", "item-3", "priced like what you looked at"),
        ("met_before", "item-1", "because you looked at it before"),
    ],
)
def test_the_reason_is_that_of_the_signal_that_says_the_most(tmp_path: Path, signal: str, item: str, why: str) -> None:
    """Item 4 counts twice; item 2 came last. An item is met with the one five on, and near in vector every fourth.
    The history has items 1 and 0."""
    names = [one.name for one in SIGNALS]
    weights = [{signal: 3.0, "base_score": 0.1}.get(name, 0.0) for name in names]
    together = (np.roll(np.arange(12, dtype=np.int32), -5)[:, None], np.ones((12, 1), np.float32))
    ranker = RankerWeights(names, weights, SPACE)
    shop = Shop(tmp_path / "store")
    tower = small_tower(n_users=len(default_lists(12)), n_items=12, dimensions=4)
    write_small_version(shop.root, ranker=ranker, together=together, tower=tower, cut_over=True)
    with asking(shop) as ask:
        answer = ask("ann", session=views("item-4", "item-4", "item-2"), explain=True)
        without = ask("ann", explain=True)
    assert {found.item: found.why for found in answer.items}[item].startswith(f"{why};")
    told = [found.item for found in without.items if ";" in str(found.why)]
    assert told == (["item-0", "item-1"] if signal == "met_before" else [])


def test_what_was_looked_at_often_is_no_reason_for_the_likeness_to_something_else(tmp_path: Path) -> None:
    """For the nearest item of the session each counts as one view at most."""
    weights = [3.0 if one.name == "session_nearest" else 0.0 for one in SIGNALS]
    shop = Shop(tmp_path / "store")
    write_small_version(shop.root, ranker=RankerWeights([one.name for one in SIGNALS], weights, SPACE), cut_over=True)
    with asking(shop) as ask:
        answer = ask("ann", session=views(*["item-4"] * 30, "item-2"), explain=True)
    told = {found.item: str(found.why) for found in answer.items}
    assert told["item-6"].startswith("because you looked at Title 2;")
    assert told["item-8"].startswith("because you looked at Title 4;")


def test_limits_hold_in_process_too(ask: Ask) -> None:
    with pytest.raises(InvalidFieldError):
        ask("u0", k=201)


def test_without_a_version_there_is_an_error_and_no_answer(shop: Shop) -> None:
    with asking(shop) as ask, pytest.raises(NotReadyError):
        ask("u0")


def test_the_reranker_follows_its_store(shop: Shop) -> None:
    first = shop.publish("a")
    with open_reranker(shop.config(), now=lambda: MADE_AT + HOUR) as reranker:
        assert _version_of(reranker) == (first, "a")
        second = shop.publish("b")
        assert _version_of(reranker) == (first, "a")
        assert reranker.store.refresh()
        assert _version_of(reranker) == (second, "b")
        shop.roll_back()
        reranker.store.refresh()
        assert _version_of(reranker) == (first, "a")


def test_of_versions_before_the_last_nothing_is_kept_open(shop: Shop) -> None:
    """Files that are mapped take room on the disk when they are retired. The one before is open for a rollback."""
    names = [shop.publish("a")]
    with open_reranker(shop.config()) as reranker:
        for kind in "bcd":
            _version_of(reranker)
            names.append(shop.publish(kind))
            reranker.store.refresh()
        _version_of(reranker)
        mapped = Path("/proc/self/maps").read_text()
    assert [name for name in names if str(version_path(shop.root, name)) in mapped] == names[-2:]


@pytest.mark.parametrize("setting", ["serve.neighbour_candidates", "serve.fresh_candidates"])
def test_more_candidates_may_be_wanted_than_there_are(stocked_shop: Shop, setting: str) -> None:
    found = []
    for wanted in (1000, 2**63 - 1):
        with asking(stocked_shop, f"{setting}={wanted}") as ask:
            found.append(ids(ask("u0", k=40, session=views("a01", "a22"))))
    assert found[0] == found[1]


def _version_of(reranker: Reranker) -> tuple[str, str]:
    answer = reranker.recommend(convert_request({"user": "u0", "k": 5}))
    (kind,) = {item[0] for item in ids(answer)}
    return answer.version, kind


COLUMNS = ("title", "category", "brand", "price", "released", "popularity", "in_stock")


@pytest.mark.parametrize("lacking", [*COLUMNS, "all", "all, being of another kind"])
def test_a_version_answers_without_columns_of_items(tmp_path: Path, lacking: str) -> None:
    """Whoever writes a version by hand need not write them."""
    shop = Shop(tmp_path / "store")
    columns = {
        name: (Categories if name == "title" else Texts)(["7"] * 12) if lacking.endswith("kind") else None
        for name in COLUMNS
        if lacking.startswith((name, "all"))
    }
    weights = RankerWeights([signal.name for signal in SIGNALS], [0.5] * len(SIGNALS), SPACE)
    write_small_version(
        shop.root, columns=columns, cut_over=True, lists={"ann": range(1, 9)}, made_at=MADE_AT,
        tower=small_tower(1, 12, 4), ranker=weights,
    )  # fmt: skip
    config = shop.config("serve.order.caps={category = 4}")
    with open_reranker(config, now=lambda: MADE_AT + HOUR) as reranker:
        with reranker.store.acquire() as version:
            reranker.prepare(version)
            known = item_now("item-11", None, version, MADE_AT + HOUR)
        request = {"user": "ann", "k": 20, "session": views("item-1", "item-2"), "explain": True}
        answer = reranker.recommend(convert_request(request))
        reranker.live.set([change("item-3", price=3.0, in_stock=False), change("item-4", in_stock=None)], now=5.0)
        after = reranker.recommend(convert_request(request))
    assert answer.rung == "personal"
    assert ("item-3" in ids(answer), "item-3" in ids(after)) == (True, False)
    signals = {"category": "session_category", "brand": "session_brand", "price": "session_price"}
    signals |= {"released": "freshness", "popularity": "popularity"}
    for name, signal in signals.items():
        said = [item.signals[signal] for item in answer.items if isinstance(item.signals, dict)]
        assert len(said) == len(answer.items)
        assert any(said) == (name not in columns)
    assert answer.items[0].title == ("" if "title" in columns else f"Title {answer.items[0].item[5:]}")
    assert known is not None
    assert known.is_shown == ("in_stock" in columns), "the last item is out of stock where anything says so"
