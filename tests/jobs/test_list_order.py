"""Lists in their order, against a loop over their items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from jobs.known import Known
from jobs.list_order import BY_PRODUCTS, Order, put_in_order
from schemas.tables import CANDIDATES

ITEMS, USERS = 30, 7


def lists_of(rows: list[tuple[int, list[int], list[float]]]) -> pa.RecordBatch:
    names = CANDIDATES.names
    return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=CANDIDATES)


def known_of(recent: list[float], met: list[dict[int, float]]) -> Known:
    """`met`: item to times, of each user. They lie in another order than the users."""
    found = Known(
        np.array(recent, np.float32),
        *np.zeros((2, len(met)), np.int64),
        np.array([item for of_user in met[::-1] for item in of_user], np.uint32),
        np.array([times for of_user in met[::-1] for times in of_user.values()], np.float32),
    )
    found.ends[::-1] = np.cumsum([*map(len, met[::-1])])
    found.starts[:] = found.ends - [*map(len, met)]
    return found


def slow_order(
    items: list[int], scores: list[float], order: Order, recent: list[float], met: dict[int, float]
) -> list[tuple[int, float]]:
    found = []
    for item, score in zip(items, scores, strict=True):
        own = order.own + order.again * met[item] if item in met else 0.0
        found.append((item, score + order.recent * recent[item] + own))
    return sorted(found, key=lambda pair: -pair[1])  # a stable sort


@pytest.mark.parametrize(
    "order", [Order(recent=0.4), Order(own=0.9, again=0.5), Order(recent=0.3, own=-2.0, again=1.0)]
)
def test_lists_are_as_a_loop_orders_them(order: Order) -> None:
    rng = np.random.default_rng(2)
    recent = rng.random(ITEMS).tolist()
    met = [{item: 0.1 + rng.random() for item in rng.permutation(9)[: 2 * user].tolist()} for user in range(USERS)]
    known = known_of(recent, met)
    rows: list[Any] = []
    for user in rng.permutation(USERS).tolist():
        items = rng.permutation(ITEMS)[: rng.integers(0, ITEMS)]
        scores = -np.sort(-rng.normal(size=len(items)).astype(np.float32))
        rows.append((user, items.tolist(), scores.tolist()))
    for lists, expected in ((lists_of(rows), rows), (lists_of(rows).slice(2, 3), rows[2:5])):
        found = put_in_order(lists, order, known)
        assert (found.schema, found.num_rows) == (CANDIDATES, len(expected))
        for row, (user, items, scores) in zip(found.to_pylist(), expected, strict=True):
            wanted = slow_order(items, scores, order, recent, met[user])
            assert (row["user_index"], row["items"]) == (user, [item for item, _ in wanted])
            np.testing.assert_allclose(row["scores"], [score for _, score in wanted], rtol=0, atol=1e-6)


def test_what_is_met_often_comes_first_and_equals_stay_as_they_were() -> None:
    lists = lists_of([(0, [4, 1, 3, 0, 2], [5.0, 2.0, 1.0, 1.0, 1.0]), (1, [], []), (2, [2, 1, 0], [1.0, 0.5, 0.5])])
    known = known_of([0.0] * 5, [{3: 2.0, 2: 0.1, 4: 0.1}, {1: 1.0}, {}])
    rows = put_in_order(lists, Order(own=1.0, again=10.0), known).to_pylist()
    assert [row["items"] for row in rows] == [[3, 4, 2, 1, 0], [], [2, 1, 0]]
    assert rows[0]["scores"] == pytest.approx([22.0, 7.0, 3.0, 2.0, 1.0])
    many = lists_of([(0, list(range(400)), [0.5] * 400)])
    (row,) = put_in_order(
        many, Order(own=1.0), known_of([0.0] * 400, [dict.fromkeys(range(1, 400, 2), 0.5)])
    ).to_pylist()
    assert row["items"] == [*range(1, 400, 2), *range(0, 400, 2)]


def test_nothing_can_be_put_in_order() -> None:
    for lists in ([], [(0, [], [])]):
        found = put_in_order(lists_of(lists), Order(recent=1.0, own=1.0), known_of([], [{}] * len(lists)))
        assert found == lists_of(lists)


def test_by_products_nothing_is_touched() -> None:
    lists = lists_of([(0, [1, 0], [0.5, 0.5])])
    assert put_in_order(lists, BY_PRODUCTS, known_of([1.0, 9.0], [{0: 1.0}])) is lists
