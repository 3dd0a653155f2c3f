"""Users of whom nothing was known before the test part, and what they would have been shown: no list of their own.

A version has a record of whoever had an interaction by then, of whatever weight, or has a row in the table of users.
That table is today's: who got a row in the test part counts as known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jobs.datasets import Dataset
from jobs.decay import halved
from jobs.evaluation.held_out import IS_TEST, HeldOut
from jobs.evaluation.judged import Batches
from schemas.config import Lists


class Strangers(NamedTuple):
    """Who they are, and their list."""

    is_one: np.ndarray
    """bool[users]"""
    popular: np.ndarray
    """int64: the popular list of everybody as it would have been served, in dense indexes. They have no segment."""


def find_strangers(prepared: Dataset, held_out: HeldOut, config: Lists) -> Strangers:
    """One pass over the interactions before the test part; what is popular is counted as `lists` counts it."""
    is_one, units = np.zeros(prepared.rows["users"], dtype=bool), np.zeros(len(held_out.dense_of), dtype=np.int64)
    for batch in prepared.arrow("users").to_batches(columns=["user_index", "has_row"]):
        is_one[batch.column("user_index").to_numpy()] = ~batch.column("has_row").to_numpy(zero_copy_only=False)
    start = held_out.time[0] if held_out.time else 0
    columns = ["user_index", "item_index", "weight", "time"]
    for batch in prepared.arrow("interactions").to_batches(columns=columns, filter=~IS_TEST):
        user, item, weight, when = (column.to_numpy() for column in batch.columns)
        is_one[user] = False
        np.add.at(units, item, halved(weight, start - when, config.popular_half_life_days))
    popular = np.argsort(-units, kind="stable")[: config.length]
    return Strangers(is_one, held_out.dense_of[popular[units[popular] > 0]].astype(np.int64))


def with_popular(batches: Batches, strangers: Strangers) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches with the popular list for each stranger in them."""
    for users, lists in batches:
        width = max(lists.shape[1], len(strangers.popular))
        shown = np.full((len(users), width), -1, dtype=np.int64)
        shown[:, : lists.shape[1]] = lists
        is_one = strangers.is_one[users]
        shown[is_one] = -1
        shown[is_one, : len(strangers.popular)] = strangers.popular
        yield users, shown
