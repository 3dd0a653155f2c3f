"""Lists as they are published, against a loop over everything that may be in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from jobs.known import Known
from jobs.list_order import BY_PRODUCTS, Order, Vectors, put_in_order
from schemas.tables import CANDIDATES

ITEMS, USERS, ALL = 30, 7, 1_000


def lists_of(rows: list[tuple[int, list[int], list[float]]]) -> pa.RecordBatch:
    names = CANDIDATES.names
    return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=CANDIDATES)


def known_of(
    recent: list[float], met: list[dict[int, float]], *, late: int = 0, dropped: list[set[int]] | None = None
) -> Known:
    """`met`: item to times, of each user. They lie in another order than the users. `late`: how many items of late."""
    pairs = [(user, item, times) for user in reversed(range(len(met))) for item, times in met[user].items()]
    found = Known(
        np.array(recent, np.float32),
        np.argsort(-np.array(recent), kind="stable")[:late].astype(np.uint32),
        *np.zeros((2, len(met)), np.int64),
        np.array([item for _, item, _ in pairs], np.uint32),
        np.array([times for _, _, times in pairs], np.float32),
        np.array([bool(dropped) and item in dropped[user] for user, item, _ in pairs], np.bool_),
    )
    found.ends[::-1] = np.cumsum([*map(len, met[::-1])])
    found.starts[:] = found.ends - [*map(len, met)]
    return found


def vectors_of(products: list[list[float]]) -> Vectors:
    """Vectors that have these products of each user and item: those of the items are units."""
    users = np.array(products, np.float32).reshape(len(products), len(products[0]) if products else 0)
    return Vectors(users, np.eye(users.shape[1], dtype=np.float32))


def slow_order(
    row: tuple[int, list[int], list[float]], order: Order, known: Known, products: list[float], k: int
) -> list[tuple[int, float]]:
    """(item, score) of one user's list."""
    user, listed, scores = row
    places = range(known.starts[user], known.ends[user])
    times = {int(known.items[place]): float(known.times[place]) for place in places}
    dropped = {int(known.items[place]) for place in places if known.is_dropped[place]}

    def candidates() -> Iterator[tuple[int, float]]:
        yield from zip(listed, scores, strict=True)
        others = [*map(int, known.late), *times]
        for item in dict.fromkeys(others):
            if item not in listed and item not in dropped:
                yield item, products[item]

    found = []
    for item, score in candidates():
        own = order.own + order.again * times[item] if times.get(item) else 0.0
        found.append((item, score + order.recent * float(known.recent[item]) + own))
    return sorted(found, key=lambda pair: -pair[1])[:k]  # a stable sort


@pytest.mark.parametrize("k", [3, 8, 20, ALL])
@pytest.mark.parametrize(
    "order", [Order(recent=0.4), Order(own=0.9, again=0.5), Order(recent=0.3, own=-2.0, again=1.0)]
)
def test_lists_are_as_a_loop_makes_them(order: Order, k: int) -> None:
    rng = np.random.default_rng(2)
    recent = rng.random(ITEMS).tolist()
    met = [{item: 0.1 + rng.random() for item in rng.permutation(9)[: 2 * user].tolist()} for user in range(USERS)]
    dropped: list[set[int]] = [set(items) & {0, 1, 2} for items in met]
    for of_user in met:
        if 2 in of_user:
            of_user[2] = 0.0  # consumed ages ago
    products = rng.normal(size=(USERS, ITEMS)).astype(np.float32)
    known = known_of(recent, met, late=6 if order.recent else 0, dropped=dropped)
    rows: list[Any] = []
    for user in rng.permutation(USERS).tolist():
        may_be = [item for item in np.argsort(-products[user]).tolist() if item not in dropped[user]]
        items = may_be[: min(k, int(rng.integers(0, 15)))]
        rows.append((user, items, products[user, items].tolist()))
    joined = 0
    for lists, expected in ((lists_of(rows), rows), (lists_of(rows).slice(2, 3), rows[2:5])):
        found = put_in_order(lists, order, known, vectors_of(products.tolist()), k)
        assert (found.schema, found.num_rows) == (CANDIDATES, len(expected))
        for row, given in zip(found.to_pylist(), expected, strict=True):
            wanted = slow_order(given, order, known, products[given[0]].tolist(), k)
            assert (row["user_index"], row["items"]) == (given[0], [item for item, _ in wanted])
            np.testing.assert_allclose(row["scores"], [score for _, score in wanted], rtol=0, atol=1e-5)
            joined += len(set(row["items"]) - set(given[1]))
    assert joined


def test_what_is_met_often_comes_first_and_equals_stay_as_they_were() -> None:
    lists = lists_of([(0, [4, 1, 3, 0, 2], [5.0, 2.0, 1.0, 1.0, 1.0]), (1, [], []), (2, [2, 1, 0], [1.0, 0.5, 0.5])])
    known = known_of([0.0] * 5, [{3: 2.0, 2: 0.1, 4: 0.1}, {}, {}])
    nothing = vectors_of([[0.0] * 5] * 3)
    rows = put_in_order(lists, Order(own=1.0, again=10.0), known, nothing, 5).to_pylist()
    assert [row["items"] for row in rows] == [[3, 4, 2, 1, 0], [], [2, 1, 0]]
    assert rows[0]["scores"] == pytest.approx([22.0, 7.0, 3.0, 2.0, 1.0])
    many = lists_of([(0, list(range(400)), [0.5] * 400)])
    known = known_of([0.0] * 400, [dict.fromkeys(range(1, 400, 2), 0.5)])
    (row,) = put_in_order(many, Order(own=1.0), known, vectors_of([[0.0] * 400]), 400).to_pylist()
    assert row["items"] == [*range(1, 400, 2), *range(0, 400, 2)]


def test_a_list_takes_what_many_or_its_user_have_met_for_its_last_items() -> None:
    lists = lists_of([(0, [0, 1, 2], [0.9, 0.5, 0.4]), (1, [3, 1, 0], [0.8, 0.7, 0.6]), (2, [], [])])
    # Item 4 is of late; 5 is user 0's own, as 4 is of user 1, who may not be offered it again.
    met: list[dict[int, float]] = [{5: 1.0}, {4: 1.0}, {}]
    known = known_of([0.0] * 4 + [2.0, 0.0], met, late=1, dropped=[set(), {4}, set()])
    vectors = vectors_of(
        [[0.9, 0.5, 0.4, 0.0, 0.1, 0.2], [0.6, 0.7, 0.1, 0.8, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.5, 0.0]]
    )
    rows = put_in_order(lists, Order(recent=0.25, own=0.25), known, vectors, 3).to_pylist()
    assert [row["items"] for row in rows] == [[0, 4, 1], [3, 1, 0], [4]]
    assert rows[0]["scores"] == pytest.approx([0.9, 0.6, 0.5])
    (row,) = put_in_order(lists.slice(0, 1), Order(recent=0.25, own=0.31), known, vectors, 3).to_pylist()
    assert row["items"] == [0, 4, 5]
    (row,) = put_in_order(lists.slice(0, 1), Order(recent=0.25, own=0.3), known, vectors, 3).to_pylist()
    assert row["items"] == [0, 4, 1], "what is as good as the last one does not take its place"


def test_nothing_can_be_put_in_order() -> None:
    for lists in ([], [(0, [], [])]):
        nobody = vectors_of([[]] * len(lists))
        found = put_in_order(lists_of(lists), Order(recent=1.0, own=1.0), known_of([], [{}] * len(lists)), nobody, 9)
        assert found == lists_of(lists)


def test_by_products_nothing_is_touched() -> None:
    lists = lists_of([(0, [1, 0], [0.5, 0.5])])
    known = known_of([1.0, 9.0, 9.0], [{0: 1.0}], late=3)
    assert put_in_order(lists, BY_PRODUCTS, known, vectors_of([[0.5, 0.5, 9.0]]), 2) is lists
