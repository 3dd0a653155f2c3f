"""The inner loops of a search, compiled: which scores pass a threshold, and which of those are the best.

A float32 score of a matrix product is off by up to `slack` of its query. Here it only decides what is looked at: every
choice between items within twice that slack is made by exact dot products of vectors on the grid (`vectors.on_grid`),
so no result depends on how a matrix was cut into blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jobs.compiled import compiled

NO_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Sorts behind every item."""

LOWEST = np.float32(-3.4028235e38)
"""Everything finite is above it."""

_STRIPE = 32
_DIGIT = 11


class Asked(NamedTuple):
    """The queries of a search, and what is searched."""

    wide: np.ndarray  # float64[m, d], on the grid
    slacks: np.ndarray  # float32[m]
    offsets: np.ndarray  # int64[m + 1]: what query i excludes is excluded[offsets[i]:offsets[i + 1]]
    excluded: np.ndarray  # int32, ascending for each query
    vectors: np.ndarray  # float32[n, d], on the grid
    ranks: np.ndarray  # int32[n]: of two items with equal scores the one of lower rank is the better; a permutation
    k: int


class Seen(NamedTuple):
    """A buffer for each query: items that can be among its best, with their float32 scores."""

    items: np.ndarray  # int32[m, room]
    scores: np.ndarray  # float32[m, room]
    counts: np.ndarray  # int32[m]: places filled
    floors: np.ndarray  # float32[m]: what a score must reach


def room_for(k: int, width: int) -> int:
    """Places that a buffer needs: for what `_keep_best` leaves, for blocks of `width`, and some to fill meanwhile."""
    return k + k // 8 + 8 + min(max(k, 256), 1024) + width


@compiled
def _order_of(value):  # type: ignore[no-untyped-def]
    """uint32 that grows with a float32; -0 counts as 0."""
    if value == 0:
        return np.uint32(0x80000000)
    bits = np.float32(value).view(np.uint32)
    return np.uint32(bits ^ np.uint32(0xFFFFFFFF) if bits >> np.uint32(31) else bits | np.uint32(0x80000000))


@compiled
def _value_of(order):  # type: ignore[no-untyped-def]
    """The float32 whose `_order_of` this is."""
    bits = np.uint32(order)
    bits = np.uint32(bits ^ np.uint32(0x80000000) if bits >> np.uint32(31) else bits ^ np.uint32(0xFFFFFFFF))
    return bits.view(np.float32)


@compiled
def _kth_order(orders, k):  # type: ignore[no-untyped-def]
    """The k-th largest (from 1) of uint32[n], n ≥ k; by counting its digits, the highest first."""
    found = np.uint32(0)
    known = np.uint32(0)  # mask of the bits that are settled
    left = k
    counts = np.empty(1 << _DIGIT, dtype=np.int32)
    for shift in (21, 10, 0):
        bits = _DIGIT if shift else 10
        mask = np.uint32((1 << bits) - 1)
        counts[:] = 0
        for place in range(len(orders)):
            if (orders[place] & known) == found:
                counts[np.int64((orders[place] >> np.uint32(shift)) & mask)] += 1
        digit = (1 << bits) - 1
        while counts[digit] < left:
            left -= counts[digit]
            digit -= 1
        found = np.uint32(found | (np.uint32(digit) << np.uint32(shift)))
        known = np.uint32(known | (mask << np.uint32(shift)))
    return found


@compiled
def kth_largest(values, k):  # type: ignore[no-untyped-def]
    """The k-th largest (from 1) of float32[n], n ≥ k."""
    orders = np.empty(len(values), dtype=np.uint32)
    for place in range(len(values)):
        orders[place] = _order_of(values[place])
    return _value_of(_kth_order(orders, k))


@compiled
def exact_score(query, vector):  # type: ignore[no-untyped-def]
    """The dot product of float64[d] and float32[d], both on the grid, rounded once."""
    total = 0.0
    for place in range(len(query)):
        total += query[place] * np.float64(vector[place])
    return np.float32(total)


@compiled
def _keep_best(asked, seen, query):  # type: ignore[no-untyped-def]
    """Drop what cannot be among a query's best k of its buffer; the k-th score.

    Left are k items or a few more.

    Requires: the buffer holds k items at least.
    """
    k, slack = asked.k, asked.slacks[query]
    items, scores = seen.items[query], seen.scores[query]
    kth = kth_largest(scores[: seen.counts[query]], k)
    kept = 0
    for place in range(seen.counts[query]):
        if scores[place] >= kth - 2 * slack:
            items[kept] = items[place]
            scores[kept] = scores[place]
            kept += 1
    seen.counts[query] = kept
    if kept > k + k // 8 + 8:
        kth = _keep_exactly(asked, seen, query, kth)
    seen.floors[query] = max(seen.floors[query], kth - 2 * slack)
    return kth


@compiled
def _keep_exactly(asked, seen, query, kth):  # type: ignore[no-untyped-def]
    """Keep a query's best k, of equal scores those of lower rank; the exact k-th score. The order stays.

    Args:
        kth: the k-th largest of the scores as they are; only those within twice the slack of it are scored again.
    """
    k, slack = asked.k, asked.slacks[query]
    items, scores = seen.items[query], seen.scores[query]
    near = np.empty(seen.counts[query], dtype=np.float32)
    left, close = k, 0
    for place in range(seen.counts[query]):
        if scores[place] > kth + 2 * slack:
            left -= 1
        else:
            near[close] = exact_score(asked.wide[query], asked.vectors[items[place]])
            close += 1
    exact = kth_largest(near[:close], left)
    equals = np.empty(close, dtype=np.uint32)
    close, n_equal = 0, 0
    for place in range(seen.counts[query]):
        if scores[place] > kth + 2 * slack:
            continue
        if near[close] > exact:
            left -= 1
        elif near[close] == exact:
            equals[n_equal] = ~np.uint32(asked.ranks[items[place]])  # larger for lower ranks
            n_equal += 1
        close += 1
    last = ~np.uint32(_kth_order(equals[:n_equal], left))
    close, kept = 0, 0
    for place in range(seen.counts[query]):
        is_kept = scores[place] > kth + 2 * slack
        score = scores[place]
        if not is_kept:
            score = near[close]
            is_kept = score > exact or (score == exact and np.uint32(asked.ranks[items[place]]) <= last)
            close += 1
        if is_kept:
            items[kept] = items[place]
            scores[kept] = score
            kept += 1
    seen.counts[query] = kept
    return exact


@compiled
def _key(score, rank):  # type: ignore[no-untyped-def]
    """uint64 that sorts by score, the largest first, then by rank."""
    return (np.uint64(_order_of(score) ^ np.uint32(0xFFFFFFFF)) << np.uint64(32)) | np.uint64(rank)


@compiled
def _first_from(asked, query, begin):  # type: ignore[no-untyped-def]
    """The place of the first item from `begin` on among those that a query excludes; the end where there is none.

    Written out: to slice the array, as `np.searchsorted` needs, takes longer than to search.
    """
    low, high = asked.offsets[query], asked.offsets[query + 1]
    while low < high:
        middle = (low + high) >> 1
        if asked.excluded[middle] < begin:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def take_above(block, rows, begin, asked, seen):  # type: ignore[no-untyped-def]
    """Append to each query's buffer the scores of a block that are not below its floor; raise the floor when full.

    Args:
        block: float32[r, width], scores of the items begin, begin + 1, …; those of excluded items become -inf.
        rows: int32[r], the query of each row.
    """
    width = block.shape[1]
    room = seen.items.shape[1]
    for row in range(len(rows)):
        query = rows[row]
        place, last = _first_from(asked, query, begin), asked.offsets[query + 1]
        while place < last and asked.excluded[place] < begin + width:
            block[row, asked.excluded[place] - begin] = -np.inf
            place += 1
        if seen.counts[query] + width > room:
            _keep_best(asked, seen, query)
        floor = max(seen.floors[query], LOWEST)
        count = seen.counts[query]
        for start in range(0, width, _STRIPE):
            stop = min(start + _STRIPE, width)
            passing = 0
            for place in range(start, stop):
                passing += block[row, place] >= floor
            if passing:
                for place in range(start, stop):
                    seen.items[query, count] = begin + place
                    seen.scores[query, count] = block[row, place]
                    count += block[row, place] >= floor
        seen.counts[query] = count


@compiled
def settle(asked, seen):  # type: ignore[no-untyped-def]
    """float32[m]: the exact k-th best score of each buffer, -inf where it holds fewer; it keeps little more than k."""
    found = np.full(len(asked.wide), -np.inf, dtype=np.float32)
    near = np.empty(seen.items.shape[1], dtype=np.float32)
    for query in range(len(asked.wide)):
        if seen.counts[query] < asked.k:
            continue
        kth = _keep_best(asked, seen, query)
        surely, close = 0, 0
        for place in range(seen.counts[query]):
            if seen.scores[query, place] > kth + 2 * asked.slacks[query]:
                surely += 1
            else:
                near[close] = exact_score(asked.wide[query], asked.vectors[seen.items[query, place]])
                close += 1
        found[query] = kth_largest(near[:close], asked.k - surely)
    return found


@compiled
def best_keys(asked, seen, keys):  # type: ignore[no-untyped-def]
    """Fill uint64[m, k] with the keys of each query's best items, in no order; NO_KEY where there are fewer.

    A key's high half is the bits of the exact score, turned so that the largest sorts first; the low half is the item's
    rank.
    """
    for query in range(len(asked.wide)):
        if seen.counts[query] > asked.k:
            kth = _keep_best(asked, seen, query)
            if seen.counts[query] > asked.k:
                _keep_exactly(asked, seen, query, kth)
        count = seen.counts[query]
        for place in range(count):
            item = seen.items[query, place]
            keys[query, place] = _key(exact_score(asked.wide[query], asked.vectors[item]), asked.ranks[item])
        keys[query, count:] = NO_KEY


@compiled
def read_keys(keys, of_rank, offsets, items, scores):  # type: ignore[no-untyped-def]
    """The items and scores of the sorted keys of each query, one query after the other from `offsets` on.

    Args:
        of_rank: int32[n], the item of each rank.
    """
    for query in range(len(keys)):
        for place in range(offsets[query + 1] - offsets[query]):
            key = keys[query, place]
            items[offsets[query] + place] = of_rank[key & np.uint64(0xFFFFFFFF)]
            scores[offsets[query] + place] = _value_of(np.uint32(key >> np.uint64(32)) ^ np.uint32(0xFFFFFFFF))
