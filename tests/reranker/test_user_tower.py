"""A user's vector made anew from a session equals, to the last digits, what torch's own tower gives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from jobs.features import Encoding, Scale
from jobs.towers import RECENCY_BUCKETS, Architecture, TwoTowers, UserTensors
from prediction_store.user_tower import Histories, StoredTower, Tower
from reranker.session import EMPTY, Session
from reranker.user_tower import UserNow, UserTower
from schemas.user_tower import TowerFacts

ITEMS, USERS, DIMENSIONS = 300, 12, 16
COUNTRIES = ["de", "fr"]
LONGEST = 2**RECENCY_BUCKETS + 100
"""A history with interactions in every bucket of distance, some beyond the last one's beginning."""


class Shop(NamedTuple):
    """Random towers, as torch has them and as a version has them."""

    torch_tower: torch.nn.Module
    columns: torch.Tensor
    item_vectors: np.ndarray
    histories: list[tuple[np.ndarray, np.ndarray]]
    length: int
    tower: UserTower

    def slow(self, user: int | None, items: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """What torch makes of the whole history, in double precision. Requires: no weight is 0."""
        known = self.histories[user] if user is not None else (np.empty(0, np.int64), np.empty(0, np.float32))
        items = np.concatenate([known[0], items.astype(np.int64)])[-self.length :]
        weights = np.concatenate([known[1], weights])[-self.length :]
        row = 0 if user is None else user + 1
        columns = torch.zeros((1, 1), dtype=torch.int64) if user is None else self.columns[user : user + 1]
        with torch.no_grad():
            pooled = self.torch_tower.pool(
                torch.from_numpy(self.item_vectors).double(),
                torch.from_numpy(items),
                torch.from_numpy(weights.astype(np.float64)),
                torch.tensor([len(items)]),
            )
            return self.torch_tower(UserTensors(torch.tensor([row]), columns), pooled)[0].numpy()


def make_shop(similarity: str = "cosine", length: int = 50, lengths: tuple[int, ...] = (0, 1, 7, 49, 50, 50)) -> Shop:
    torch.manual_seed(3)
    rng = np.random.default_rng(4)
    encoding = Encoding(
        categories=[], brands=[], user_columns=[COUNTRIES], price=Scale(), age=Scale(), made_at=0, title_buckets=4
    )
    shape = Architecture(
        items=ITEMS, users=USERS, dimensions=DIMENSIONS, similarity=similarity, history_length=length, encoding=encoding
    )
    towers = TwoTowers(shape).double().eval()
    with torch.no_grad():
        for parameter in towers.user.parameters():
            parameter.copy_(torch.randn_like(parameter).float())
        towers.user.id.weight[0] = 0.0
        towers.user.columns[0].weight[0] = 0.0
    item_vectors = rng.standard_normal((ITEMS, DIMENSIONS)).astype(np.float32)
    histories = [
        (rng.integers(0, ITEMS, n), rng.choice([1.0, 3.0, 5.0], n).astype(np.float32))
        for n in (lengths[user % len(lengths)] for user in range(USERS))
    ]
    columns = torch.from_numpy(rng.integers(0, 1 + len(COUNTRIES), (USERS, 1)))
    with torch.no_grad():
        bases = towers.user.base(UserTensors(torch.arange(1, USERS + 1), columns)).float().numpy()
        stranger = towers.user.base(UserTensors(torch.zeros(1).long(), torch.zeros((1, 1)).long()))[0].float().numpy()
        recency = towers.user.of_recency().float().numpy()
        matrix = towers.user.history.weight.float().numpy()
    facts = TowerFacts(is_unit=similarity == "cosine", history_length=length, event_weights={"view": 1.0, "buy": 5.0})
    stored = StoredTower(
        Tower(facts, matrix, stranger, recency),
        bases,
        Histories(
            np.cumsum([0, *(len(items) for items, _ in histories)]),
            np.concatenate([items for items, _ in histories]).astype(np.uint32),
            np.concatenate([weights for _, weights in histories]),
        ),
    )
    return Shop(towers.user, columns, item_vectors, histories, length, UserTower(stored, item_vectors))


def session(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, seed])
    return rng.integers(0, ITEMS, n).astype(np.uint32), rng.choice([0.2, 1.0, 5.0], n).astype(np.float32)


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("events", [0, 1, 2, 10, 49, 50, 51, 130])
def test_a_refreshed_vector_is_that_of_torch(similarity: str, events: int) -> None:
    shop = make_shop(similarity)
    for user in [*range(USERS), None]:
        items, weights = session(events, user or 0)
        assert_close(shop.tower.refreshed(user, items, weights), shop.slow(user, items, weights))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_every_distance_counts_as_in_torch(similarity: str) -> None:
    """Histories into the last bucket and beyond its beginning."""
    shop = make_shop(similarity, LONGEST, lengths=(LONGEST, LONGEST - 1, 3))
    for user in range(3):
        for events in (0, 1, 200):
            items, weights = session(events)
            assert_close(shop.tower.refreshed(user, items, weights), shop.slow(user, items, weights))


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 7, 8, 2**10 - 1, 2**10, 2**11 - 1, 2**11, 2**12, 5000])
def test_a_distance_lies_in_the_bucket_that_torch_puts_it_into(distance: int) -> None:
    """Two items: the newest one, and one alone at that distance, all between them being of hardly any weight."""
    shop = make_shop("dot", 5000, lengths=(0,))
    items, weights = np.full(distance, 1, np.uint32), np.full(distance, 1e-30, np.float32)
    items[0], items[-1], weights[0], weights[-1] = 0, 2, 5.0, 5.0
    assert_close(shop.tower.refreshed(0, items, weights), shop.slow(0, items, weights))


def test_events_without_weight_are_as_if_they_were_not_there() -> None:
    shop = make_shop()
    items, weights = session(20)
    weights[[0, 3, 4, 19]] = 0.0
    kept = weights > 0
    for user in [*range(USERS), None]:
        found = shop.tower.refreshed(user, items, weights)
        assert_close(found, shop.slow(user, items[kept], weights[kept]))
        nothing = shop.tower.refreshed(user, items, np.zeros(20, np.float32))
        assert_close(nothing, shop.slow(user, *session(0)))


@pytest.mark.parametrize("old", [0, 1, 3, 5])
def test_events_that_the_history_ends_with_count_once_if_they_may_be_in_it(old: int) -> None:
    shop = make_shop()
    for user, (history, _) in enumerate(shop.histories):
        items, _ = session(5)
        shared = min(old, len(history))
        items[:shared] = history[len(history) - shared :]
        kinds = ("view",) * 5
        times_known = Session(EMPTY.items, EMPTY.weights, visits=items, kinds=kinds, old=old)
        ones = np.ones(5, np.float32)
        assert_close(UserNow(shop.tower, user, times_known).vector, shop.slow(user, items[shared:], ones[shared:]))
        new = times_known._replace(old=0)
        assert_close(UserNow(shop.tower, user, new).vector, shop.slow(user, items, ones))
        assert_close(UserNow(shop.tower, None, times_known).vector, shop.slow(None, items, ones))


def test_events_without_weight_between_those_that_the_history_ends_with_are_as_if_they_were_not_there() -> None:
    shop = make_shop()
    history, _ = shop.histories[3]
    visits = np.array([history[-2], 7, history[-1], 8, 9], np.uint32)
    known = Session(EMPTY.items, EMPTY.weights, visits=visits, kinds=("view", "wink", "view", "wink", "view"), old=4)
    found = UserNow(shop.tower, 3, known).vector
    assert_close(found, shop.slow(3, np.array([9], np.uint32), np.ones(1, np.float32)))


def test_the_order_of_a_session_matters() -> None:
    shop = make_shop()
    items, weights = np.array([3, 200], np.uint32), np.ones(2, np.float32)
    found, turned = shop.tower.refreshed(0, items, weights), shop.tower.refreshed(0, items[::-1], weights)
    assert np.abs(found - turned).max() > 1e-3


def test_the_arguments_and_the_stored_numbers_stay_as_they_were() -> None:
    shop = make_shop()
    items, weights = session(60)
    before = items.copy(), weights.copy()
    first = shop.tower.refreshed(4, items, weights)
    shop.tower.refreshed(None, *session(0))[:] = 7.0
    shop.tower.refreshed(0, *session(0))[:] = 7.0
    assert np.array_equal(items, before[0])
    assert np.array_equal(weights, before[1])
    assert np.array_equal(shop.tower.refreshed(4, items, weights), first)
    assert_close(shop.tower.refreshed(None, *session(0)), shop.slow(None, *session(0)))


def test_an_event_weighs_what_it_did_in_training_and_others_nothing() -> None:
    weights = make_shop().tower.weights_of(["buy", "wink", "view"])
    assert (weights.dtype, weights.tolist()) == (np.float32, [5.0, 0.0, 1.0])
