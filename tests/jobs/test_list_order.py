"""Lists in their order, against a loop over their items."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from jobs import datasets, list_order, user_histories
from jobs.decay import DAY_SECONDS
from jobs.list_order import BY_PRODUCTS, Known, Order, put_in_order, recent_of
from schemas.tables import CANDIDATES

ITEMS, USERS = 30, 7


def lists_of(rows: list[tuple[int, list[int], list[float]]]) -> pa.RecordBatch:
    names = CANDIDATES.names
    return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=CANDIDATES)


def known_of(recent: list[float], histories: list[list[int]]) -> Known:
    offsets = np.cumsum([0, *map(len, histories)])
    return Known(np.array(recent, np.float32), offsets, np.array([*itertools.chain(*histories)], np.uint32))


def slow_order(user: int, items: list[int], scores: list[float], order: Order, known: Known) -> list[tuple[int, float]]:
    history = known.met[known.offsets[user] : known.offsets[user + 1]].tolist()
    found = []
    for item, score in zip(items, scores, strict=True):
        times = history.count(item)
        own = order.own + order.again * math.log(times) if times else 0.0
        found.append((item, score + order.recent * float(known.recent[item]) + own))
    return sorted(found, key=lambda pair: -pair[1])  # a stable sort


@pytest.mark.parametrize(
    "order", [Order(recent=0.4), Order(own=0.9, again=0.5), Order(recent=0.3, own=-2.0, again=1.0)]
)
def test_lists_are_as_a_loop_orders_them(order: Order) -> None:
    rng = np.random.default_rng(2)
    known = known_of(rng.random(ITEMS).tolist(), [rng.integers(0, 9, 3 * user).tolist() for user in range(USERS)])
    rows: list[Any] = []
    for user in rng.permutation(USERS).tolist():
        items = rng.permutation(ITEMS)[: rng.integers(0, ITEMS)]
        scores = -np.sort(-rng.normal(size=len(items)).astype(np.float32))
        rows.append((user, items.tolist(), scores.tolist()))
    for lists, expected in ((lists_of(rows), rows), (lists_of(rows).slice(2, 3), rows[2:5])):
        found = put_in_order(lists, order, known)
        assert (found.schema, found.num_rows) == (CANDIDATES, len(expected))
        for row, (user, items, scores) in zip(found.to_pylist(), expected, strict=True):
            wanted = slow_order(user, items, scores, order, known)
            assert (row["user_index"], row["items"]) == (user, [item for item, _ in wanted])
            np.testing.assert_allclose(row["scores"], [score for _, score in wanted], rtol=0, atol=1e-6)


def test_what_is_met_often_comes_first_and_equals_stay_as_they_were() -> None:
    lists = lists_of([(0, [4, 1, 3, 0, 2], [5.0, 2.0, 1.0, 1.0, 1.0]), (1, [], []), (2, [2, 1, 0], [1.0, 0.5, 0.5])])
    known = known_of([0.0] * 5, [[3, 2, 3, 4], [1], []])
    rows = put_in_order(lists, Order(own=1.0, again=10.0), known).to_pylist()
    assert [row["items"] for row in rows] == [[3, 4, 1, 2, 0], [], [2, 1, 0]]
    # 4 is in the history too, and so is 2: each once; 3 is there twice.
    assert rows[0]["scores"] == pytest.approx([2.0 + 10 * math.log(2), 6.0, 2.0, 2.0, 1.0])
    many = lists_of([(0, list(range(400)), [0.5] * 400)])
    (row,) = put_in_order(many, Order(own=1.0), known_of([0.0] * 400, [[*range(1, 400, 2)]])).to_pylist()
    assert row["items"] == [*range(1, 400, 2), *range(0, 400, 2)]


def test_nothing_can_be_put_in_order(tmp_path: Path) -> None:
    for lists in ([], [(0, [], [])]):
        known = known_of([], [[]] * len(lists))
        for name, array in zip((list_order.RECENT, "offsets.npy", "items.npy"), known, strict=True):
            np.save(tmp_path / name, array)
        found = put_in_order(lists_of(lists), Order(recent=1.0, own=1.0), list_order.open_known(tmp_path))
        assert found == lists_of(lists)


def test_by_products_nothing_is_touched() -> None:
    lists = lists_of([(0, [1, 0], [0.5, 0.5])])
    assert put_in_order(lists, BY_PRODUCTS, known_of([1.0, 9.0], [[0]])) is lists


def test_what_is_of_late_halves_every_two_days_from_the_newest_on() -> None:
    newest = 1_000 * DAY_SECONDS
    ages = [0, 2, 4, 0, 8]  # days
    table = pa.table(
        {
            "item_index": [2, 0, 0, 2, 1],
            "weight": pa.array([1.0, 1.0, 4.0, 2.0, 16.0], pa.float32()),
            "time": [newest - age * DAY_SECONDS for age in ages],
        }
    )
    found = recent_of(lambda: table.to_batches(max_chunksize=2), 4)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.log1p([0.5 + 1.0, 1.0, 3.0, 0.0]))
    assert recent_of(lambda: [table.slice(0, 0)], 2).tolist() == [0.0, 0.0]


def test_what_is_of_late_is_the_same_in_whatever_order_the_interactions_come() -> None:
    # So near to the next number of 32 bits that old interactions, added up first, reach it; one by one they vanish.
    newest, weight = 1_000 * DAY_SECONDS, 14_464_286 / 2**23
    times = [newest] + [newest - 108 * DAY_SECONDS] * 2_000
    table = pa.table({"item_index": [0] * 2_001, "weight": [weight] + [1.0] * 2_000, "time": times})
    found = [recent_of(rows.to_batches, 1) for rows in (table, table.take(np.arange(2_001)[::-1]))]
    assert found[0] == found[1]


def test_what_is_known_counts_to_a_moment_and_lies_in_dense_order(
    make_world: Any, world_day: str, tmp_path: Path
) -> None:
    # The last one says nothing, and so is not the newest.
    events = [(0, 1, 1.0, 90, False, 0), (1, 2, 3.0, 92, False, 2), (2, 3, 0.0, 99, False, 0)]
    world = make_world(events=[(*event[:3], event[3] * DAY_SECONDS, *event[4:]) for event in events])
    world.write(tmp_path)
    prepared, embeddings = (datasets.open_dataset(tmp_path, world_day, name) for name in ("prepared", "embeddings"))
    order = np.arange(world.items)[::-1]
    folder = tmp_path / "known"
    user_histories.gather(embeddings.part("users"), world.users, order, folder)
    everything = list_order.write_known(prepared, order, folder)
    assert {item: float(everything.recent[world.items - 1 - item]) for item in (0, 1, 2)} == pytest.approx(
        {0: 0.0, 1: math.log1p(0.5), 2: math.log1p(3.0)}
    )
    assert everything.met.tolist() == [world.items - 2, world.items - 3, world.items - 4]
    before = list_order.write_known(prepared, order, folder, interactions=pa.dataset.field("split") < 2)
    assert before.recent.sum() == pytest.approx(math.log1p(1.0))
