"""Gates that look at sampled lists: how long they are, how they spread over the catalogue, what must not be in them."""

from __future__ import annotations

from typing import Final

import numpy as np

from prediction_store.gates.finding import Finding, incomparable, owed
from prediction_store.gates.judged import Judged
from prediction_store.measures import gini as gini_of

POPULAR_SHARE: Final = 0.01
"""The most popular items: this share of the catalogue, at least one item."""
NO_LISTS: Final = "no sampled user has a list"


def list_length(given: Judged) -> Finding:
    """Mean length of a list, as a share of a full one; over all users who have a list."""
    mean = given.counts.list_items / max(1, given.counts.lists)
    return Finding(mean / max(1, given.full_list), f"{mean:,.1f} of {given.full_list:,} items")


def short_lists(given: Judged) -> Finding:
    """Share of sampled users whose list has less than half of a full one's items; no list at all is short, too."""
    if not given.sample:
        return owed("there are no users")
    lengths = np.array([len(sampled.candidates.items) for sampled in given.sample])
    numbers = {"p01": float(np.quantile(lengths, 0.01)), "median": float(np.median(lengths))}
    numbers["empty_share"] = float((lengths == 0).mean())
    return Finding(float((lengths < given.full_list / 2).mean()), f"of {len(lengths):,} sampled users", numbers)


def gini(given: Judged) -> Finding:
    """Gini coefficient of how often the items of the catalogue are in the first places of sampled lists."""
    _, counts = given.shown
    if not len(counts):
        return owed(NO_LISTS)
    share = len(counts) / given.counts.items
    return Finding(gini_of(counts, given.counts.items), f"{len(counts):,} items shown", {"shown_share": share})


def popularity_share(given: Judged) -> Finding:
    """Share of the first places of sampled lists that the most popular items take."""
    popularity = given.version.numbers("popularity")
    if popularity is None:
        return incomparable("the version has no column of popularity")
    shown, counts = given.shown
    if not len(counts):
        return owed(NO_LISTS)
    n = max(1, round(POPULAR_SHARE * given.counts.items))
    top = np.argsort(-np.nan_to_num(popularity), kind="stable")[:n]
    return Finding(float(counts[np.isin(shown, top)].sum() / counts.sum()), f"by the {n:,} most popular items")


def consumed(given: Judged) -> Finding:
    """Share of sampled candidates that their user has consumed; the version knows what must not be shown again."""
    found = total = users = 0
    for _, candidates in given.sample:
        again = int(np.isin(candidates.items, given.version.consumed(candidates.user_row)).sum())
        found, total, users = found + again, total + len(candidates.items), users + (again > 0)
    if not total:
        return owed(NO_LISTS)
    return Finding(found / total, f"{found:,} candidates of {users:,} sampled users")


def out_of_stock(given: Judged) -> Finding:
    """Share of sampled candidates that are out of stock."""
    in_stock = given.version.numbers("in_stock")
    if in_stock is None:
        return incomparable("the version has no column of stock")
    lists = [sampled.candidates.items for sampled in given.sample if len(sampled.candidates.items)]
    if not lists:
        return owed(NO_LISTS)
    is_out = ~in_stock.astype(np.bool_)
    found = is_out[np.concatenate(lists)].mean()
    return Finding(float(found), f"of the catalogue {is_out.mean():.1%}", {"catalogue": float(is_out.mean())})
