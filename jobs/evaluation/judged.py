"""One ranking, judged: a few numbers per user, and how often each item was shown. Lists pass by and are forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jobs import index, metrics
from jobs.evaluation.held_out import HeldOut, rows_of
from jobs.evaluation.segments import BANDS

RECALL_AT = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SEGMENT_AT = (20, 100, 1000)
"""Lengths of list at which segments are told apart and exposure is counted."""
RANKED_AT = 20
"""Length of list for NDCG, hit rate and reciprocal rank."""

ROW = np.dtype(
    [
        ("user", "<i4"),
        ("known", "<i4"),  # interactions before the test part
        ("wanted", "<i4"),
        ("found", "<i4", (len(RECALL_AT),)),  # wanted items among the first 1, 2, 5, …
        ("ndcg", "<f8"),
        ("reciprocal", "<f8"),  # 1 / place of the first wanted item
        ("wanted_in", "<i4", (len(BANDS),)),  # by band of popularity
        ("found_in", "<i4", (len(BANDS), len(SEGMENT_AT))),
    ]
)
"""What is kept of a judged user."""

Batches = Iterable[tuple[np.ndarray, np.ndarray]]
"""(users int[m], lists int[m, width]): dense indexes, best first, -1 where there is no item; a user once in all."""


class Judged(NamedTuple):
    """What is known of a ranking when all its lists have passed by."""

    rows: np.ndarray
    """ROW[judged users], sorted by user, so that it does not matter how the lists were divided among batches."""
    lists: int
    """How many lists there were, those of users with nothing to judge them by included."""
    shown: np.ndarray
    """int64[len(SEGMENT_AT), items]: in how many lists an item is among the first 20, 100, 1000."""


def judge(batches: Batches, held_out: HeldOut) -> Judged:
    """Judge every list on what its user went on to; a user who wanted nothing is shown things and not judged."""
    items, lists = len(held_out.band_of), 0
    shown = np.zeros((len(SEGMENT_AT), items), dtype=np.int64)
    parts = [np.empty(0, dtype=ROW)]
    for users, offered in batches:
        lists += len(users)
        for place, k in enumerate(SEGMENT_AT):
            shown[place] += metrics.count_shown(offered, k, items)
        parts.append(_rows(users, offered, held_out))
    rows = np.concatenate(parts)
    return Judged(rows[np.argsort(rows["user"])], lists, shown)


def columns(rows: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    """(measure, length of list) to float64[rows]: each user's own value."""
    found = {("recall", k): _recall(rows["found"][:, at], rows["wanted"], k) for at, k in enumerate(RECALL_AT)}
    at = RECALL_AT.index(RANKED_AT)
    return found | {
        ("ndcg", RANKED_AT): rows["ndcg"],
        ("hit_rate", RANKED_AT): (rows["found"][:, at] > 0).astype(np.float64),
        ("mrr", RANKED_AT): rows["reciprocal"],
    }


def segment_columns(rows: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    """The same of what is told of every segment."""
    return {("recall", k): _recall(rows["found"][:, RECALL_AT.index(k)], rows["wanted"], k) for k in SEGMENT_AT}


def band_columns(rows: np.ndarray, band: int) -> dict[tuple[str, int], np.ndarray]:
    """The same as `segment_columns`, of the wanted items in one band of popularity; NaN for who wanted none of them."""
    wanted = rows["wanted_in"][:, band]
    return {("recall", k): _recall(rows["found_in"][:, band, at], wanted, k) for at, k in enumerate(SEGMENT_AT)}


def first_of(held_out: HeldOut, users: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The popularity order as lists, for `size` users at a time, without what each of them has consumed."""
    popular, width = held_out.popular, max(RECALL_AT)
    place_of = index.inverse(popular)
    for start in range(0, len(users), size):
        part = users[start : start + size]
        excluded = rows_of(held_out.consumed, part)
        most = int(np.bincount(excluded.user, minlength=len(part)).max())
        reach = min(len(popular), width + most)
        is_left = np.ones((len(part), reach), dtype=bool)
        place = place_of[excluded.item]
        is_left[excluded.user[place < reach], place[place < reach]] = False
        at = np.argsort(~is_left, axis=1, kind="stable")[:, :width]
        yield part, np.where(np.take_along_axis(is_left, at, axis=1), popular[at], -1)


def _recall(found: np.ndarray, wanted: np.ndarray, k: int) -> np.ndarray:
    """float64[users]: as `metrics.recall_at`, from counts; NaN where nothing was wanted."""
    return np.divide(found, np.minimum(wanted, k), out=np.full(len(found), np.nan), where=wanted > 0)


def _rows(users: np.ndarray, offered: np.ndarray, held_out: HeldOut) -> np.ndarray:
    band_of = held_out.band_of
    wanted = rows_of(held_out.wanted, users)
    count = np.bincount(wanted.user, minlength=len(users))
    is_relevant = metrics.mark_relevant(offered, wanted.user, wanted.item, len(band_of))
    rows = np.zeros(len(users), dtype=ROW)
    rows["user"], rows["known"], rows["wanted"] = users, held_out.known_users[users], count
    row, place = np.nonzero(is_relevant)
    band = band_of[offered[row, place]]
    for at, k in enumerate(RECALL_AT):
        rows["found"][:, at] = np.bincount(row[place < k], minlength=len(users))
    np.add.at(rows["wanted_in"], (wanted.user, band_of[wanted.item]), 1)
    for at, k in enumerate(SEGMENT_AT):
        is_first = place < k
        np.add.at(rows["found_in"][:, :, at], (row[is_first], band[is_first]), 1)
    is_judged = count > 0
    rows = rows[is_judged]
    rows["ndcg"] = metrics.ndcg_at(RANKED_AT, is_relevant[is_judged], count[is_judged])
    rows["reciprocal"] = metrics.reciprocal_rank_at(RANKED_AT, is_relevant[is_judged])
    return rows
