"""What users went on to do, and what was known before: the ground on which every ranking is judged alike.

Interactions of weight 0 say nothing here, as everywhere, but that something was consumed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from jobs import index
from jobs.datasets import Dataset
from jobs.evaluation.segments import popularity_bands
from schemas.tables import TEST

IS_TEST = pa.dataset.field("split") == TEST
SAYS_SOMETHING = pa.dataset.field("weight") > 0


class Pairs(NamedTuple):
    """Distinct (user, item) pairs sorted by user; both int32[pairs], items as dense indexes."""

    user: np.ndarray
    item: np.ndarray


class HeldOut(NamedTuple):
    """The test part, and what was known before it. Items are dense indexes throughout."""

    dense_of: np.ndarray
    """int32[items]: item_index to dense index."""
    all_wanted: Pairs
    """Whatever a user did in the test part."""
    wanted: Pairs
    """The same without what could not have been offered: items consumed before, where the policy drops these."""
    consumed: Pairs
    """What must not be offered to the users of the test part; empty where the policy keeps it."""
    known_items: np.ndarray
    """int64[items]: interactions with each item before the test part."""
    known_users: np.ndarray
    """int64[users]: interactions of each user before the test part."""
    band_of: np.ndarray
    """int8[items]: see `segments.popularity_bands`."""
    popular: np.ndarray
    """int32[items]: by `known_items`, most first; ties by item_index."""
    time: tuple[int, int] | None
    """The first and the last moment of the test part; None: there is none."""


def read_held_out(prepared: Dataset, order: np.ndarray, *, drop_consumed: bool) -> HeldOut:
    """The test part of `prepared`; `order` is int[items], the item_index of each dense index.

    Cost: two numbers per user and item, and the distinct pairs of the users of the test part.
    """
    dense_of = index.inverse(order)
    all_wanted = _pairs(prepared, IS_TEST & SAYS_SOMETHING, dense_of)
    consumed = Pairs(all_wanted.user[:0], all_wanted.item[:0])
    if drop_consumed:
        is_consumed = ~IS_TEST & pa.dataset.field("consumed")
        consumed = _pairs(prepared, is_consumed, dense_of, only=np.unique(all_wanted.user))
    by_item, by_user = _known(prepared, len(order))
    return HeldOut(
        dense_of,
        all_wanted,
        _without(all_wanted, consumed, len(order)),
        consumed,
        by_item[order],
        by_user,
        popularity_bands(by_item)[order],
        dense_of[np.argsort(-by_item, kind="stable")],
        _time(prepared),
    )


def rows_of(pairs: Pairs, users: np.ndarray) -> Pairs:
    """The pairs of these users, with the row of `users` in place of the user."""
    start, stop = np.searchsorted(pairs.user, users, "left"), np.searchsorted(pairs.user, users, "right")
    lengths = stop - start
    row = np.repeat(np.arange(len(users)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(start, lengths)
    return Pairs(row, pairs.item[place])


def _pairs(
    prepared: Dataset, rows: pa.dataset.Expression, dense_of: np.ndarray, only: np.ndarray | None = None
) -> Pairs:
    """The distinct (user, item) pairs of some interactions; `only` limits them to these users."""
    keys = [np.empty(0, dtype=np.int64)]
    for batch in prepared.arrow("interactions").to_batches(columns=["user_index", "item_index"], filter=rows):
        user = batch.column("user_index").to_numpy().astype(np.int64)
        key = user * len(dense_of) + dense_of[batch.column("item_index").to_numpy()]
        keys.append(np.unique(key if only is None else key[np.isin(user, only)]))
    distinct = np.unique(np.concatenate(keys))
    return Pairs(*(part.astype(np.int32) for part in np.divmod(distinct, len(dense_of))))


def _without(pairs: Pairs, others: Pairs, items: int) -> Pairs:
    keys, unwanted = (part.user.astype(np.int64) * items + part.item for part in (pairs, others))
    keep = ~np.isin(keys, unwanted)
    return Pairs(pairs.user[keep], pairs.item[keep])


def _known(prepared: Dataset, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Interactions before the test part: int64[items] by item_index, int64[users] by user_index."""
    by_item, by_user = (np.zeros(size, dtype=np.int64) for size in (items, prepared.rows["users"]))
    rows = ~IS_TEST & SAYS_SOMETHING
    for batch in prepared.arrow("interactions").to_batches(columns=["user_index", "item_index"], filter=rows):
        by_item += np.bincount(batch.column("item_index").to_numpy(), minlength=items)
        by_user += np.bincount(batch.column("user_index").to_numpy(), minlength=len(by_user))
    return by_item, by_user


def _time(prepared: Dataset) -> tuple[int, int] | None:
    found = [
        (pa.compute.min(batch.column(0)).as_py(), pa.compute.max(batch.column(0)).as_py())
        for batch in prepared.arrow("interactions").to_batches(columns=["time"], filter=IS_TEST)
        if batch.num_rows
    ]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None
