"""Which lists of items each query looks into, compiled; decided by numbers that are the same in any batch.

Numba keeps what it compiled until this file changes. What comes from `top_k` is compiled into it: after a change there,
while developing, touch this file too.
"""

from __future__ import annotations

import numpy as np

from jobs.compiled import compiled, strict
from jobs.top_k import kth_largest


@compiled
def first_lists(bounds, lengths, wanted, chosen):  # type: ignore[no-untyped-def]
    """Mark in bool[m, lists] the lists of largest bound that together hold `wanted[m]` items."""
    lists = len(lengths)
    mean = max(1, lengths.sum() // lists)
    for query in range(len(bounds)):
        size = min(lists, 2 + wanted[query] // mean)
        while True:  # a few lists are enough as a rule: look at half as many more each time
            kth = kth_largest(bounds[query], size)
            held = 0
            for number in range(lists):
                chosen[query, number] = bounds[query, number] >= kth
                if chosen[query, number]:
                    held += lengths[number]
            if held >= wanted[query] or size == lists:
                break
            size = min(lists, size + size // 2 + 1)


@compiled
def largest(bounds, probes, chosen):  # type: ignore[no-untyped-def]
    """Mark in bool[m, lists] the `probes` largest bounds of each query; of equal ones the first."""
    for query in range(len(bounds)):
        kth = kth_largest(bounds[query], probes)
        left = probes
        for number in range(bounds.shape[1]):
            chosen[query, number] = bounds[query, number] > kth
            left -= chosen[query, number]
        for number in range(bounds.shape[1]):
            if left and bounds[query, number] == kth:
                chosen[query, number] = True
                left -= 1


@strict
def reaching(bounds, spans, spreads, floors, but):  # type: ignore[no-untyped-def]
    """bool[m, lists]: where a bound, raised by `spans[m]` spreads, gets to the floor; not where `but` is set."""
    chosen = np.empty(bounds.shape, dtype=np.bool_)
    for query in range(len(bounds)):
        floor, span = np.float64(floors[query]), spans[query]
        for number in range(len(spreads)):
            raised = np.float64(bounds[query, number]) + span * spreads[number]
            chosen[query, number] = raised >= floor and not but[query, number]
    return chosen


@compiled
def by_list(chosen):  # type: ignore[no-untyped-def]
    """(int64[lists + 1], int32[…]): for each list the queries that bool[m, lists] marks, ascending."""
    m, lists = chosen.shape
    offsets = np.zeros(lists + 1, dtype=np.int64)
    for query in range(m):
        for number in range(lists):
            offsets[number + 1] += chosen[query, number]
    for number in range(lists):
        offsets[number + 1] += offsets[number]
    rows = np.empty(offsets[lists], dtype=np.int32)
    at = offsets[:-1].copy()
    for query in range(m):
        for number in range(lists):
            if chosen[query, number]:
                rows[at[number]] = query
                at[number] += 1
    return offsets, rows
