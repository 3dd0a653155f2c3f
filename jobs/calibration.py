"""How to search: exact or grouped, how far each query looks, and what that finds, from a sample of the queries.

Decided by counted work, not by the clock, so that the same inputs choose the same on any machine. The unit of work is
the float32 product of a query with one item.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jobs import index as item_index
from jobs.index import ItemIndex
from jobs.search import EXACT, Found, Method, Ragged, reach_needed, search
from schemas.config import Retrieve

AIM = 0.8
"""Share of the allowed misses that the sample may have, because users outside the sample miss a little more."""
PER_LIST = 2.0
"""Work of a list's bound: a float64 product."""
PER_PROBE = 40.0
"""Work of looking into a list beside the products: the query is copied, and shares the block with fewer others."""

FAR = 1e30
"""Stands for infinity, which times a spread of zero would be no number."""


class Queries(NamedTuple):
    """Some queries, and what must not be found for each."""

    vectors: np.ndarray  # float32[m, d]
    excluded: Ragged


def choose(
    index: ItemIndex, sample: Queries, others: Queries, k: int, wanted: Retrieve
) -> tuple[Method, dict[str, object]]:
    """The search method that meets `wanted`, and its facts for the manifest.

    Args:
        sample: what is calibrated on.
        others: what the recall is measured on.
    """
    facts: dict[str, object] = {"lists": index.lists}
    more: dict[str, int] = {}
    method = EXACT
    if wanted.method in ("hnsw", "ivfpq"):
        method = _breadth(index, sample, k, wanted)
    elif wanted.method != "exact" and len(sample.vectors):
        if wanted.probes:
            method = Method("grouped", probes=wanted.probes)
        else:
            method, more = _reach(index, sample, k, wanted.min_recall)
            if wanted.method == "auto" and more["work_grouped"] >= more["work_exact"]:
                method = EXACT
    recall = 1.0 if method == EXACT else _recall_of(index, others, k, method)
    facts |= {"method": method.name, "recall_on_sample": round(recall, 4), **more}
    if method.name == "grouped" and not method.probes:
        facts["reach"] = round(method.reach, 4)
    if method.probes:
        facts["probes"] = method.probes
    return method, facts


def _recall_of(index: ItemIndex, queries: Queries, k: int, method: Method) -> float:
    """Share of the exact best k that the method finds."""
    best = search(index, *queries, k)
    return _share(best, search(index, *queries, k, method), len(index.vectors))


def _reach(index: ItemIndex, sample: Queries, k: int, recall: float) -> tuple[Method, dict[str, int]]:
    """The least reach with which the sample finds enough of the exact best k; the work per query, and that of exact."""
    best = search(index, *sample, k)
    needed = reach_needed(index, *sample, k)  # [m, lists]
    of_best = np.sort(needed[_rows(best), item_index.list_of(index.starts)[best.items]])
    share = 1 - AIM * (1 - recall)
    reach = float(of_best[math.ceil(share * len(of_best)) - 1]) if len(of_best) else -math.inf
    # A little more, for `search` adds in another order; -inf: the first lists were enough.
    reach = reach + 1e-6 * abs(reach) if math.isfinite(reach) else reach
    lengths = np.diff(index.starts)
    is_probed = needed <= reach
    first = float((np.isneginf(needed) @ lengths).mean())
    bounds = PER_LIST * index.lists
    work = {
        "work_exact": round(len(index.vectors) + bounds + first),
        "work_grouped": round(float((is_probed @ lengths).mean() + PER_PROBE * is_probed.sum(axis=1).mean()) + bounds),
    }
    return Method("grouped", reach=min(max(reach, -FAR), FAR)), work


def _breadth(index: ItemIndex, sample: Queries, k: int, wanted: Retrieve) -> Method:
    """hnsw or ivfpq with the breadth asked for, else the first power of two with the wanted recall."""
    if wanted.probes:
        return Method(wanted.method, probes=wanted.probes)
    most = index.lists if wanted.method == "ivfpq" else len(index.vectors)
    best = search(index, *sample, k)
    probes = 1 if wanted.method == "ivfpq" else min(most, k)
    while probes < most:
        found = search(index, *sample, k, Method(wanted.method, probes=probes))
        if _share(best, found, len(index.vectors)) >= wanted.min_recall:
            break
        probes = min(most, 2 * probes)
    return Method(wanted.method, probes=probes)


def _share(best: Found, found: Found, items: int) -> float:
    """The share of what is in `best` that is in `found`, too; 1 where there is nothing. `items` is all there are."""
    wanted, got = (_rows(one) * items + one.items for one in (best, found))
    return len(np.intersect1d(wanted, got, assume_unique=True)) / len(wanted) if len(wanted) else 1.0


def _rows(found: Found) -> np.ndarray:
    """int64[items found]: the row of the query of each."""
    return np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
