"""Measures of ranked lists against what users went on to do. Plain functions of arrays; a perfect score is 1.0.

`lists` is int[users, width]: item indexes, best first, -1 from the end of a list on, no item twice in a row.
`relevant` is bool[users, width]: whether the item at that place is one the user went on to. `wanted` is int[users]: how
many such items there are, in the list or not, each of them at least 1.
"""

from __future__ import annotations

import numpy as np

MAX_CELLS = 1 << 24
"""Users × items looked at at a time, a byte each."""


def mark_relevant(lists: np.ndarray, user: np.ndarray, item: np.ndarray, items: int) -> np.ndarray:
    """bool[users, width]: whether each place of `lists` holds one of its row's wanted items.

    Args:
        user, item: int[pairs] each: row of `lists` and wanted item.
        items: size of the catalogue.
    """
    order = np.argsort(user, kind="stable")
    user, item = user[order], item[order]
    found = np.zeros(lists.shape, dtype=bool)
    size = max(1, min(len(lists), MAX_CELLS // (items + 1)))
    is_wanted = np.zeros((size, items + 1), dtype=bool)  # the last column is that of -1, where nothing is wanted
    for start in range(0, len(lists), size):
        part = lists[start : start + size]
        own = slice(*np.searchsorted(user, [start, start + len(part)]))
        cells = user[own] - start, item[own]
        is_wanted[cells] = True
        found[start : start + size] = np.take_along_axis(is_wanted[: len(part)], part, axis=1)
        is_wanted[cells] = False
    return found


def recall_at(k: int, relevant: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """float64[users]: the share of the wanted items among the first k, of at most k that could be there.

    Source: Liang et al., "Variational Autoencoders for Collaborative Filtering", 2018, section 4.2.
    """
    return relevant[:, :k].sum(axis=1) / np.minimum(wanted, k)


def ndcg_at(k: int, relevant: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """float64[users]: discounted gain of the first k, as a share of what the best order of all items would gain.

    A wanted item at place p (from 1) gains 1 / log2(p + 1).
    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002, with gains 0 and 1.
    """
    gains = 1.0 / np.log2(np.arange(2, k + 2))  # [k]
    width = min(k, relevant.shape[1])
    best = np.cumsum(gains)[np.minimum(wanted, k) - 1]  # [users]
    return relevant[:, :width] @ gains[:width] / best


def reciprocal_rank_at(k: int, relevant: np.ndarray) -> np.ndarray:
    """float64[users]: 1 / the place, from 1, of the first relevant item among the first k; 0 where there is none.

    Source: Voorhees, "The TREC-8 Question Answering Track Report", 1999.
    """
    first = relevant[:, :k]
    if not first.shape[1]:
        return np.zeros(len(first))
    return np.where(first.any(axis=1), 1.0 / (first.argmax(axis=1) + 1), 0.0)


def coverage(shown: np.ndarray) -> float:
    """The share of the catalogue that is in at least one list; `shown` is int[items], filled by `count_shown`.

    Source: Herlocker et al., "Evaluating collaborative filtering recommender systems", 2004, section 3.2 (catalogue
    coverage).
    """
    return float((shown > 0).mean())


def count_shown(lists: np.ndarray, k: int, items: int) -> np.ndarray:
    """int64[items]: in how many lists each item is among the first k."""
    first = lists[:, :k]
    return np.bincount(first[first >= 0], minlength=items)
