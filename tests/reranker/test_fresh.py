"""New and trending items join the candidates where they suit the user whom the session has made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from asgi_client import AsgiClient
from serving_shop import MADE_AT, N_ITEMS, OUT_OF_STOCK, Shop
from shop_store import small_tower, write_small_version

from prediction_store.reader import Version
from reranker import sources
from reranker.app import create_app
from reranker.fresh import MOST_NEW, MOST_TRENDING, Fresh
from reranker.recommend import open_reranker
from reranker.requests import convert_request
from reranker.session import Session, read_session
from reranker.user_tower import UserNow, UserTower
from schemas.messages import RecommendAnswer, SessionEvent
from schemas.serving_config import Serve

NOW = float(MADE_AT + 60)
NEW = {item for item in range(N_ITEMS) if item % 5 and item != OUT_OF_STOCK}
"""Of the shop: those whose release is known, all of them before the version."""
TRENDING = {0, 1}
VIEWS = [SessionEvent(item="a02", time=NOW - 40), SessionEvent(item="a33", time=NOW - 20)]


@pytest.fixture(scope="module")
def version(stocked_shop: Shop) -> Iterator[Version]:
    with Version.open(stocked_shop.root, stocked_shop.current()) as opened:
        yield opened


@pytest.fixture(scope="module")
def fresh(version: Version) -> Fresh:
    made = Fresh.of(version)
    assert made is not None
    return made


def session_of(version: Version) -> Session:
    return read_session(VIEWS, version, Serve(), NOW)


def ask(shop: Shop, *overrides: str, **fields: object) -> RecommendAnswer:
    with open_reranker(shop.config(*overrides), now=lambda: NOW) as reranker:
        return reranker.recommend(convert_request({"explain": True, **fields}))


def user_now(version: Version, user_row: int | None, session: Session | None = None) -> UserNow:
    return UserNow(UserTower.of(version), user_row, session_of(version) if session is None else session)


def vector_of(version: Version, user_row: int | None, session: Session | None = None) -> np.ndarray:
    vector = user_now(version, user_row, session).vector
    assert vector is not None
    return vector


def suiting(version: Version, user_row: int | None, count: int) -> list[int]:
    """The obvious way: every new or trending item, by its product with the refreshed vector."""
    vector = vector_of(version, user_row)
    scores = {item: float(version.item_vectors[item] @ vector) for item in sorted(NEW | TRENDING)}
    return sorted(scores, key=lambda item: -scores[item])[:count]


def test_the_set_is_what_is_new_or_trending_and_in_stock(fresh: Fresh) -> None:
    assert set(fresh.items.tolist()) == NEW | TRENDING
    assert set(fresh.items[fresh.is_new].tolist()) == NEW
    assert set(fresh.items[fresh.is_trending].tolist()) == TRENDING


@pytest.mark.parametrize("user_row", [None, 0, 1, 2])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_what_suits_is_what_the_slow_way_finds(
    version: Version, fresh: Fresh, user_row: int | None, count: int
) -> None:
    found = fresh.items[fresh.suiting(vector_of(version, user_row), count)].tolist()
    assert found == suiting(version, user_row, count)


def test_what_suits_depends_on_the_session(version: Version, fresh: Fresh) -> None:
    one, other = (read_session([SessionEvent(item=item)], version, Serve(), NOW) for item in ("a02", "a22"))
    found, others = (fresh.suiting(vector_of(version, None, session), 5).tolist() for session in (one, other))
    assert found != others


def test_equal_items_are_taken_in_their_dense_order(version: Version, fresh: Fresh) -> None:
    level = fresh._replace(vectors=np.ones_like(fresh.vectors))
    assert level.suiting(vector_of(version, 0), 4).tolist() == [0, 1, 2, 3]


def test_they_join_the_pool_after_list_and_neighbours_each_once(version: Version, fresh: Fresh) -> None:
    candidates = version.read("u1")
    assert candidates is not None
    session, serve = session_of(version), Serve(fresh_candidates=24)
    user = user_now(version, candidates.user_row)
    before = sources.personal(version, candidates, session, serve, None, user=user)
    pool = sources.personal(version, candidates, session, serve, fresh, user=user)
    wanted = set(suiting(version, candidates.user_row, 24))
    added = pool.items[before.items.size :].tolist()
    assert pool.items[: before.items.size].tolist() == before.items.tolist()
    assert set(added) == wanted - set(before.items.tolist()) != set()
    assert len(set(pool.items.tolist())) == pool.items.size
    scores = version.item_vectors[added] @ version.user_vector(candidates.user_row)
    assert pool.base_scores[before.items.size :] == pytest.approx(scores)
    assert (np.diff(scores) <= 0).all()
    assert pool.listed == before.listed


@pytest.mark.parametrize("compiled", [True, False])
def test_what_joins_the_list_has_what_its_order_adds_for_being_met_of_late(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    if compiled and not sources.is_compiled:
        pytest.skip("there is no compiler here")
    monkeypatch.setattr(sources, "is_compiled", compiled)
    pools, serve = [], Serve(fresh_candidates=24)
    for recent in (None, np.linspace(3.0, 0.0, N_ITEMS, dtype=np.float32)):
        shop.recent = recent
        with Version.open(shop.root, shop.publish("a" if recent is None else "b")) as opened:
            candidates, fresh = opened.read("u1"), Fresh.of(opened)
            assert candidates is not None
            views = [SessionEvent(item=shop.items[int(event.item[1:])], time=event.time) for event in VIEWS]
            session = read_session(views, opened, serve, NOW)
            user = UserNow(UserTower.of(opened), candidates.user_row, session)
            pools.append(sources.personal(opened, candidates, session, serve, fresh, user=user))
    before, after = pools
    assert before.items.tolist() == after.items.tolist()
    added = after.base_scores - before.base_scores
    assert not added[: after.listed].any()
    assert added[after.listed :] == pytest.approx(np.linspace(3.0, 0.0, N_ITEMS)[after.items[after.listed :]], abs=1e-6)
    assert after.items.size > after.listed


def test_an_unknown_user_with_a_session_gets_them_too(stocked_shop: Shop, version: Version) -> None:
    answer = ask(stocked_shop, "serve.fresh_candidates=6", user="nobody", k=20, session=[{"item": "a02"}])
    assert answer.rung == "session"
    vector = vector_of(version, None, read_session([SessionEvent(item="a02")], version, Serve(), NOW))
    best = sorted(sorted(NEW | TRENDING), key=lambda item: -float(version.item_vectors[item] @ vector))[:6]
    of_session = {item.item: item for item in answer.items if item.rung == "session"}
    named = {name for name, item in of_session.items() if {"new", "trending"} & set(item.sources or ())}
    assert named == {f"a{item:02}" for item in best} - {"a02"}


def test_an_explained_item_names_its_sources(stocked_shop: Shop, version: Version) -> None:
    session = [{"item": event.item, "time": event.time} for event in VIEWS]
    answer = ask(stocked_shop, "serve.fresh_candidates=24", user="u1", k=40, session=session)
    best = suiting(version, 1, 24)
    for item in answer.items:
        assert isinstance(item.sources, list)
        if item.rung != "personal":
            assert item.sources == [{"popular": "popular", "segment": "segment_popular"}[item.rung]]
            continue
        index = int(item.item[1:])
        assert ("stored_list" in item.sources) == (item.item in stocked_shop.list_of("u1"))
        assert ("new" in item.sources) == (index in best and index in NEW)
        assert ("trending" in item.sources) == (index in best and index in TRENDING)
        if item.sources == ["new"]:
            assert str(item.why).endswith("new, not on your list")
    assert any(item.sources == ["new"] for item in answer.items)
    assert any("session_neighbours" in (item.sources or ()) for item in answer.items)


def test_without_a_session_and_with_none_wanted_nothing_joins(version: Version, fresh: Fresh) -> None:
    candidates = version.read("u0")
    assert candidates is not None
    nobody = read_session([], version, Serve(), NOW)
    user = user_now(version, candidates.user_row, nobody)
    assert sources.personal(version, candidates, nobody, Serve(), fresh, user=user).items.size == candidates.items.size
    none, user = Serve(fresh_candidates=0), user_now(version, candidates.user_row)
    with_none = sources.personal(version, candidates, session_of(version), none, fresh, user=user)
    without = sources.personal(version, candidates, session_of(version), none, None, user=user)
    assert with_none.items.tolist() == without.items.tolist()


def test_a_fresh_item_that_is_hidden_within_the_day_is_not_shown(shop: Shop) -> None:
    shop.publish("a")
    request = {"user": "nobody", "k": 15, "session": [{"item": "a02"}], "explain": True}
    with AsgiClient(create_app(shop.config())) as client:
        first = next(
            item for item in client.post("/v1/recommend", request).json()["items"] if item["sources"] == ["new"]
        )
        client.post("/v1/items", {"items": [{"item": first["item"], "hidden": True}]})
        after = client.post("/v1/recommend", request).json()["items"]
    assert first["item"] not in [item["item"] for item in after]


def test_the_set_is_bounded_and_what_is_not_released_yet_does_not_count(tmp_path: Path) -> None:
    count = 1500
    released = MADE_AT - np.arange(count, dtype=np.float64)[::-1] * 86_400.0  # item 1499 on the last day
    released[-10:] = MADE_AT + 1.0
    name = write_small_version(
        tmp_path,
        n_items=count,
        lists={"ann": [0]},
        made_at=MADE_AT,
        columns={"released": released},
        trending={"": list(range(800))},
        tower=small_tower(1, count, 4),
    )
    with Version.open(tmp_path, name) as version:
        fresh = Fresh.of(version)
        assert fresh is not None
        assert fresh.items[fresh.is_new].tolist() == list(range(1490 - MOST_NEW, 1490))
        assert fresh.items[fresh.is_trending].tolist() == list(range(MOST_TRENDING))


def test_a_version_is_made_ready_before_requests_reach_it(shop: Shop) -> None:
    shop.publish("a")
    with open_reranker(shop.config()) as reranker, reranker.store.acquire() as version:
        reranker.prepare(version)
        assert reranker.fresh_of(version) is reranker.fresh_of(version) is not None
