"""A list as it is published: what the search found, what else may belong there, and the order of it all.

Two towers say who might like what. They learn from first meetings, and of a whole month alike: so they know little of
what is bought or read again and again, and of what is on everybody's lips this week. Two-stage systems leave that to a
ranker behind several sources of candidates; these are ours: the items that the search found, by product; those that
many have met of late; and those that the user has met before. The ranker is three numbers, which `order_fit` learns.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from jobs.compiled import strict
from jobs.known import Known
from jobs.top_k import exact_score
from jobs.vectors import on_grid
from schemas.tables import CANDIDATES


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to the product of a user and an item, in its unit. All 0: the order of the products."""

    recent: float = 0.0
    """Times `Known.recent`, at least 0."""
    own: float = 0.0
    """Where the user has met the item."""
    again: float = 0.0
    """Times `Known.times` of it."""

    def of_times(self, times: np.ndarray) -> np.ndarray:
        """float32, as many: what is added for what the user has met; `times` is 0 for what is new."""
        return np.where(times > 0, self.own + self.again * times, 0.0).astype(np.float32)


BY_PRODUCTS = Order()


class Vectors(NamedTuple):
    """What products are made of. Both may be mapped."""

    users: np.ndarray
    """float32[users, d], by user_index"""
    items: np.ndarray
    """float32[items, d], by dense index, on the grid"""


def put_in_order(lists: pa.RecordBatch, order: Order, known: Known, vectors: Vectors, k: int) -> pa.RecordBatch:
    """Rows of CANDIDATES, each with the best k of its own items, of `Known.late` and of what its user has met.

    The scores are those of the order. Of equal ones those of the list come first, as they were. What the user must not
    be offered again does not come in. By products nothing is touched.
    """
    if order == BY_PRODUCTS:
        return lists
    users, offsets = lists.column("user_index").to_numpy(), lists.column("items").offsets.to_numpy()
    listed = offsets - offsets[0], *(lists.column(name).flatten().to_numpy() for name in ("items", "scores"))
    wide = on_grid(vectors.users[users]).astype(np.float64)
    late = known.late if order.recent else known.late[:0]
    of_late = (wide @ vectors.items[late].T.astype(np.float64)).astype(np.float32)  # exact: of two on the grid
    weights = np.array([order.recent, order.own, order.again], np.float32)
    starts, items, scores = _candidates(listed, (users, wide, vectors.items), (late, of_late), (weights, known), k)
    rows = [slice(*ends) for ends in pairwise(starts.tolist())]
    best = [row.start + np.argsort(-scores[row], kind="stable")[:k] for row in rows]
    places = np.concatenate([np.empty(0, np.int64), *best])
    starts = np.cumsum([0, *map(len, best)]).astype(np.int32)
    ordered = (pa.ListArray.from_arrays(starts, values[places]) for values in (items, scores))
    return pa.RecordBatch.from_arrays([lists.column("user_index"), *ordered], schema=CANDIDATES)


@strict
def _candidates(listed, made_of, others, by, k):  # type: ignore[no-untyped-def]
    """(int64[rows + 1], items, scores): what can be among the best k of each row, one row after the other.

    Left out is what is no better than the last item of a list of k. `own` and `is_in` are of the row at hand: what
    items get for having been met, and which need not come in.
    """
    offsets, items, scores = listed
    users, wide, vectors = made_of
    late, of_late = others
    (recent, own_weight, again), known = by
    room = len(items) + len(users) * len(late)
    for user in users:
        room += known.ends[user] - known.starts[user]
    found, sums = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.float32)
    starts, n = np.zeros(len(users) + 1, dtype=np.int64), 0
    own, is_in = np.zeros(len(known.recent), dtype=np.float32), np.zeros(len(known.recent), dtype=np.bool_)
    for row in range(len(users)):
        met = range(known.starts[users[row]], known.ends[users[row]])
        for place in met:
            item = known.items[place]
            own[item] = own_weight + again * known.times[place] if known.times[place] > 0 else 0.0
            is_in[item] = known.is_dropped[place]
        least = np.float32(np.inf)
        for place in range(offsets[row], offsets[row + 1]):
            item = items[place]
            found[n], sums[n], is_in[item] = item, scores[place] + recent * known.recent[item] + own[item], True
            least = min(least, sums[n])
            n += 1
        if n - starts[row] < k:
            least = -np.float32(np.inf)  # there is room for whatever comes
        for at in range(len(late)):
            item = late[at]
            score = of_late[row, at] + recent * known.recent[item] + own[item]
            if not is_in[item] and score > least:
                found[n], sums[n], is_in[item] = item, score, True
                n += 1
        for place in met:
            item = known.items[place]
            if not is_in[item]:
                score = exact_score(wide[row], vectors[item]) + recent * known.recent[item] + own[item]
                if score > least:
                    found[n], sums[n] = item, score
                    n += 1
        for place in met:
            own[known.items[place]], is_in[known.items[place]] = 0.0, False
        for place in range(starts[row], n):
            is_in[found[place]] = False
        starts[row + 1] = n
    return starts, found[:n], sums[:n]
