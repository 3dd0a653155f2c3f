"""The towers, their features, the loss and the examples, each against a slow obvious version."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from jobs.examples import TARGETS, Histories, Windows, histories
from jobs.factors import factorise
from jobs.features import TITLE_WORDS, item_features, learn_encoding, user_features
from jobs.fit import pool_windows
from jobs.losses import same_items, sampled_softmax
from jobs.towers import FIRST_DECAY, Architecture, ItemTensors, TwoTowers, UserTensors
from schemas import tables

DAY = 86_400


def items_table(**columns: list) -> pa.Table:
    """Four items; whole columns can be replaced."""
    rows = {
        "item_index": [0, 1, 2, 3],
        "item_id": ["a", "b", "c", "d"],
        "title": ["Red Cup", "red mug!", "", "Étui"],
        "category": ["cup", "cup", "", "case"],
        "brand": ["", "", "", ""],
        "price": [1.0, 3.0, None, 1e9],
        "released": [None, 0, 9 * DAY, 20 * DAY],
        "in_stock": [True] * 4,
        "interactions": [5, 2, 1, 0],
    } | columns
    return pa.table([pa.array(rows[f.name], f.type) for f in tables.ITEMS], schema=tables.ITEMS)


def users_table(features: list[list[str]], interactions: list[int]) -> pa.Table:
    n = len(features)
    columns = [range(n), [f"u{k}" for k in range(n)], [""] * n, features, interactions, [True] * n]
    return pa.table(
        [pa.array(list(c), f.type) for c, f in zip(columns, tables.USERS, strict=True)], schema=tables.USERS
    )


@pytest.fixture
def towers() -> TwoTowers:
    torch.manual_seed(1)
    users = users_table([["de"], ["fr"], ["xx"]], [3, 1, 0])
    encoding = learn_encoding(items_table(), users, made_at=10 * DAY, title_buckets=32)
    shape = Architecture(items=4, users=3, dimensions=8, history_length=5, encoding=encoding)
    return TwoTowers(shape).eval()


def test_what_training_never_saw_is_unknown(towers: TwoTowers) -> None:
    encoding = towers.architecture.encoding
    found = item_features(items_table(), encoding)
    assert found.ids.tolist() == [1, 2, 3, 4]
    assert found.categories.tolist() == [1, 1, 0, 0], "the category of an untrained item is unknown"
    users = user_features(users_table([["de"], ["fr"], ["xx"]], [3, 1, 0]), encoding)
    assert users.columns[:, 0].tolist() == [1, 2, 0]
    towers.forget(np.array([False, False, True]), np.array([False, False, False, True]))
    assert towers.item.id.weight.abs().sum(dim=1).gt(0).tolist() == [False, True, True, True, False]
    assert towers.user.id.weight.abs().sum(dim=1).gt(0).tolist() == [False, True, True, False]


def test_numbers_are_normalised_over_the_known_and_flagged_where_missing(towers: TwoTowers) -> None:
    found = item_features(items_table(), towers.architecture.encoding).numbers
    assert found[:, 1].tolist() == [0, 0, 1, 0]
    assert found[:, 3].tolist() == [1, 0, 0, 0]
    logs = np.log1p([1.0, 3.0])
    np.testing.assert_allclose(found[:2, 0], (logs - logs.mean()) / logs.std(), rtol=1e-6)
    assert found[3, 0] == 5.0, "an absurd price is cut off"
    assert np.isfinite(found).all()


def test_title_words_are_the_same_whatever_their_case_and_punctuation(towers: TwoTowers) -> None:
    long = " ".join(f"w{k}" for k in range(99))
    words = item_features(items_table(title=["Red Cup", "red mug!", "", long]), towers.architecture.encoding).words
    assert words[0, 0] == words[1, 0] > 0
    assert (words[2] == 0).all()
    assert words.shape == (4, TITLE_WORDS)
    assert (words[3] > 0).all()


def test_vectors_have_length_one_and_no_nan_even_with_nothing_known(towers: TwoTowers) -> None:
    nothing = items_table(title=[""] * 4, category=[""] * 4, price=[None] * 4, released=[None] * 4)
    with torch.no_grad():
        vectors = towers.item(ItemTensors.of(item_features(nothing, towers.architecture.encoding)))
        users = UserTensors.of(user_features(users_table([[""]] * 3, [0, 0, 0]), towers.architecture.encoding))
        found = towers.user(users, torch.zeros(3, 8))
    for matrix in (vectors, found):
        np.testing.assert_allclose(matrix.norm(dim=1).numpy(), 1.0, rtol=1e-6)


def test_a_dropped_id_is_the_id_of_the_unknown(towers: TwoTowers) -> None:
    known = item_features(items_table(), towers.architecture.encoding)
    with torch.no_grad():
        dropped = towers.item(ItemTensors.of(known), torch.zeros(4, dtype=torch.bool))
        towers.forget(np.ones(3, dtype=bool), np.ones(4, dtype=bool))
        assert torch.equal(dropped, towers.item(ItemTensors.of(known)))


def test_the_pooled_history_equals_a_slow_loop(towers: TwoTowers) -> None:
    rng = np.random.default_rng(5)
    vectors = torch.from_numpy(rng.standard_normal((6, 8)).astype(np.float32))
    lengths = [3, 0, 1, 5]
    items, weights = rng.integers(0, 6, 9), rng.uniform(0.5, 5.0, 9).astype(np.float32)
    with torch.no_grad():
        towers.user.recency.copy_(torch.linspace(0.5, -3.0, len(towers.user.recency)))
        found = towers.user.pool(*map(torch.as_tensor, (vectors, items, weights, lengths)))
    start = 0
    for row, length in zip(found.numpy(), lengths, strict=True):
        total, mean = 0.0, np.zeros(8)
        for k in range(length):
            recency = towers.user.recency[int(math.log2(length - k))].item()
            weight = math.sqrt(weights[start + k]) * math.exp(recency)
            mean += weight * vectors[items[start + k]].numpy()
            total += weight
        np.testing.assert_allclose(row, mean / total if total else mean, rtol=1e-5, atol=1e-6)
        start += length


def test_before_training_each_step_into_the_past_counts_a_little_less(towers: TwoTowers) -> None:
    weights = towers.user.weights(torch.ones(9), torch.arange(1, 10)).detach()
    assert weights[:2].tolist() == pytest.approx([1.0, FIRST_DECAY**2])
    assert (weights.diff() <= 0).all()


@pytest.mark.parametrize("cut", ["day", "event"])
def test_an_example_sees_what_was_before_it_and_never_its_own_item(towers: TwoTowers, cut: str) -> None:
    rng = np.random.default_rng(11)
    known = random_histories(rng, users=7, items=9, events=160)
    length = 5
    vectors = torch.from_numpy(rng.standard_normal((9, 8)).astype(np.float32))
    windows = Windows(known, history_length=length, cut=cut, newest=0)
    seen: set[tuple[int, int]] = set()
    for batch in windows.batches(rng, batch_size=16, limit=0):
        with torch.no_grad():
            pooled = pool_windows(towers, vectors[batch.items], batch).numpy()
        for user, item, row in zip(batch.users.tolist(), batch.targets.tolist(), pooled, strict=True):
            assert (user, item) not in seen, "an example came twice"
            seen.add((user, item))
            expected = slow_pool(towers, vectors.numpy(), known, (user, item), cut=cut, length=length)
            np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
    every = {(u, int(i)) for u in range(7) for i in known.items[known.starts[u] : known.starts[u + 1]]}
    assert seen == every
    assert windows.examples == len(every)


def test_an_example_without_a_history_teaches_nothing_of_recency_however_steep_the_loss(towers: TwoTowers) -> None:
    """In a small batch each example has a large share of the slope."""
    rng = np.random.default_rng(12)
    known = random_histories(rng, users=7, items=9, events=60)
    vectors = torch.from_numpy(rng.standard_normal((9, 8)).astype(np.float32))
    for batch in Windows(known, history_length=5, cut="event", newest=0).batches(rng, batch_size=8, limit=0):
        (100.0 * pool_windows(towers, vectors[batch.items], batch)).sum().backward()
    assert towers.user.recency.grad is not None
    assert torch.isfinite(towers.user.recency.grad).all()


def test_the_oldest_example_still_counts_something(towers: TwoTowers) -> None:
    """Or a batch of such examples alone would have no mean."""
    known = random_histories(np.random.default_rng(13), users=7, items=9, events=60)
    windows = Windows(known, history_length=5, cut="event", newest=10**9, half_life_days=0.1)
    for batch in windows.batches(np.random.default_rng(0), batch_size=8, limit=0):
        assert (batch.importance > 0).all()


def random_histories(rng: np.random.Generator, *, users: int, items: int, events: int) -> Histories:
    table = pa.table(
        {
            "user_index": rng.integers(0, users, events).astype(np.int32),
            "item_index": rng.integers(0, items, events).astype(np.int32),
            "weight": rng.choice([1.0, 3.0], events).astype(np.float32),
            "time": rng.integers(0, 3 * DAY, events),
        }
    )
    return histories(table, users)


def slow_pool(
    towers: TwoTowers, vectors: np.ndarray, known: Histories, pair: tuple[int, int], *, cut: str, length: int
) -> np.ndarray:
    """The history of the first meeting of user and item, pooled one interaction at a time."""
    user, item = pair
    first, last = known.starts[user], known.starts[user + 1]
    position = next(p for p in range(first, last) if known.items[p] == item)
    end = position
    while cut == "day" and end > first and known.times[end - 1] // DAY == known.times[position] // DAY:
        end -= 1
    mean, total = np.zeros(vectors.shape[1]), 0.0
    for p in range(max(first, end - length), end):
        if known.items[p] != item:
            recency = towers.user.recency[int(math.log2(end - p))].item()
            weight = math.sqrt(known.weights[p]) * math.exp(recency)
            mean += weight * vectors[known.items[p]]
            total += weight
    return mean / total if total else mean


def test_a_limit_cuts_an_epoch_short() -> None:
    rng = np.random.default_rng(2)
    known = random_histories(rng, users=40, items=50, events=900)
    windows = Windows(known, history_length=4, cut="event", newest=0)
    limited = sum(len(batch.users) for batch in windows.batches(rng, batch_size=64, limit=200))
    assert 200 <= limited < 200 + TARGETS
    assert sum(len(batch.users) for batch in windows.batches(rng, batch_size=64, limit=10**9)) == windows.examples


def test_an_older_example_counts_less_by_its_half_life() -> None:
    rng = np.random.default_rng(12)
    known = random_histories(rng, users=5, items=10**9, events=60)  # nobody meets an item twice
    windows = Windows(known, history_length=4, cut="day", newest=int(known.times.max()), half_life_days=1.5)
    when = {(u, known.items[p]): known.times[p] for u in range(5) for p in range(known.starts[u], known.starts[u + 1])}
    for batch in windows.batches(rng, batch_size=8, limit=0):
        for user, item, found in zip(
            *map(torch.Tensor.tolist, (batch.users, batch.targets, batch.importance)), strict=True
        ):
            age_days = (known.times.max() - when[user, item]) / DAY
            assert found == pytest.approx(0.5 ** (age_days / 1.5), rel=1e-5)


def test_the_sampled_softmax_equals_a_slow_obvious_one() -> None:
    rng = np.random.default_rng(3)
    users, catalogue, importance = rng.standard_normal((5, 4)), rng.standard_normal((7, 4)), rng.random(5)
    positives, negatives = np.array([0, 1, 2, 3, 3]), np.array([3, 5, 0, 3, 6, 1])
    expected = []
    for user, positive in zip(users, positives, strict=True):
        target = math.exp(user @ catalogue[positive] / 0.5)
        others = sum(math.exp(user @ catalogue[n] / 0.5) * 6 / 6 for n in negatives if n != positive)
        expected.append(-math.log(target / (target + others)))
    found = sampled_softmax(
        torch.from_numpy(users),
        torch.from_numpy(catalogue[positives]),
        torch.from_numpy(catalogue[negatives]),
        same_items(torch.from_numpy(positives), torch.from_numpy(negatives)),
        torch.from_numpy(importance),
        temperature=0.5,
        catalogue=7,
    )
    assert found.item() == pytest.approx(np.average(expected, weights=importance), rel=1e-6)


def test_the_pairs_of_equal_items_are_found() -> None:
    rng = np.random.default_rng(4)
    positives, negatives = rng.integers(0, 20, 50), rng.integers(0, 20, 30)
    rows, columns = same_items(torch.from_numpy(positives), torch.from_numpy(negatives))
    expected = np.argwhere(positives[:, None] == negatives[None, :])
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [tuple(pair) for pair in expected.tolist()]


@pytest.mark.parametrize("cuts", [[], [1, 7, 20]])
def test_the_factorisation_equals_the_exact_one(cuts: list[int]) -> None:
    """Of the whole matrix at once, and of a few users at a time."""
    rng = np.random.default_rng(6)
    met = rng.random((30, 20)) < 0.3
    blocks = [np.flatnonzero(part) + 20 * first for part, first in zip(np.split(met, cuts), [0, *cuts], strict=True)]
    left, right = factorise(lambda: blocks, met.sum(axis=0), users=30, dimensions=4, seed=1)
    counts = [np.maximum(met.sum(axis=axis), 1) for axis in (1, 0)]
    matrix = met / counts[0][:, None] ** 0.5 / counts[1] ** 0.4
    u, s, v = np.linalg.svd(matrix)
    exact = (u[:, :4] * s[:4]) @ v[:4] * np.sqrt(counts[1])
    np.testing.assert_allclose(left @ right.T, exact, atol=1e-4)


def test_fewer_items_than_dimensions_can_be_factorised() -> None:
    left, right = factorise(lambda: [np.array([0, 3, 4])], np.array([2, 1]), users=3, dimensions=8, seed=1)
    assert left.shape == (3, 2)
    assert right.shape == (2, 2)


def test_a_matrix_of_fewer_directions_than_dimensions_gives_no_noise() -> None:
    everybody_met_everything = [np.arange(60)]
    left, right = factorise(lambda: everybody_met_everything, np.full(5, 12), users=12, dimensions=4, seed=1)
    assert left.shape == (12, 1)
    np.testing.assert_allclose(left @ right.T, np.full((12, 5), 5**-0.5 * 12**-0.4 * 12**0.5), rtol=1e-5)
