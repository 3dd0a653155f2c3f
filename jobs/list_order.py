"""The order of a list: the products that found its items, what many have met of late, and what its user has met before.

Two towers say who might like what. They learn from first meetings, and of a whole month alike: so they know little of
what is bought or read again and again, and of what is on everybody's lips this week. Two-stage systems leave that to a
ranker behind the retrieval; this is ours, with three numbers that `order_fit` learns. Which items are in a list is
decided by the products alone.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from jobs.compiled import strict
from jobs.known import Known
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


def put_in_order(lists: pa.RecordBatch, order: Order, known: Known) -> pa.RecordBatch:
    """Rows of CANDIDATES, each list in its new order with the scores that it has by them; equal ones as they were."""
    if order == BY_PRODUCTS:
        return lists
    offsets = lists.column("items").offsets.to_numpy()
    offsets = offsets - offsets[0]
    items, scores = (lists.column(name).flatten().to_numpy() for name in ("items", "scores"))
    scores = scores + np.float32(order.recent) * known.recent[items]
    _add_own((lists.column("user_index").to_numpy(), offsets, items), scores, (order.own, order.again), known)
    places = _best_first(offsets, scores)
    sorted_lists = (pa.ListArray.from_arrays(offsets, values[places]) for values in (items, scores))
    return pa.RecordBatch.from_arrays([lists.column("user_index"), *sorted_lists], schema=CANDIDATES)


@strict
def _add_own(lists, scores, order, known):  # type: ignore[no-untyped-def]
    """Add to the scores of each user's list what its items get for having been met."""
    users, offsets, items = lists
    own, again = order
    added = np.zeros(len(known.recent), dtype=np.float32)
    for row in range(len(users)):
        met = range(known.starts[users[row]], known.ends[users[row]])
        for place in met:
            added[known.items[place]] = own + again * known.times[place]
        for place in range(offsets[row], offsets[row + 1]):
            scores[place] += added[items[place]]
        for place in met:
            added[known.items[place]] = 0.0


def _best_first(offsets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """int64[scores]: the places of each list's scores, the highest first; equal ones in the order that they have."""
    lengths = np.diff(offsets)
    padded = np.full((len(lengths), lengths.max(initial=0)), np.inf, dtype=np.float32)
    is_there = np.arange(padded.shape[1]) < lengths[:, None]
    padded[is_there] = -scores
    order = np.argsort(padded, axis=1, kind="stable")
    return (order + offsets[:-1, None])[is_there]
