"""Which two things of a list are together in many lists, counted for each thing at a time, compiled.

Counting needs the memory of one number a thing, however many pairs there are; the lists may be mapped files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jobs.compiled import strict

BATCH = 4096
"""Things that are counted in one compiled call: Ctrl-C is heard between two."""


class Lists(NamedTuple):
    """Lists of distinct things, one after the other: list i is values[starts[i]:starts[i + 1]]."""

    starts: np.ndarray  # int64[lists + 1]
    values: np.ndarray  # int32, from 0


class Best(NamedTuple):
    """Of things `first`, `first` + 1, …: the best others of each, best first; of fewer the row's end says nothing."""

    first: int
    counts: np.ndarray  # int64[things]: how many there are in each row
    others: np.ndarray  # int32[things, k]
    scores: np.ndarray  # float32[things, k]


class _Room(NamedTuple):
    both: np.ndarray  # int64[things], zero between two things
    met: np.ndarray  # int32[things]


def turned(lists: Lists, things: int, numbers: np.ndarray) -> Lists:
    """Of each thing the numbers of the lists that it is in, ascending.

    Args:
        things: how many there are; all values are below.
        numbers: uint32[len(values)] to write to; a mapped file, perhaps.
    """
    starts = np.zeros(things + 1, np.int64)
    _count(lists.values, starts[1:])
    np.cumsum(starts, out=starts)
    _turn(lists.starts, lists.values, starts[:-1].copy(), numbers)
    return Lists(starts, numbers)


def best(lists: Lists, lists_of: Lists, k: int, shrinkage: float) -> Iterator[Best]:
    """The k others that each thing is with most, equal ones by number, one batch of things after the other.

    What two score is how many lists have both, over the geometric mean of how many have either plus the shrinkage: in
    float64, from whole numbers.

    Args:
        lists_of: of `turned`.
    """
    things = len(lists_of.starts) - 1
    room = _Room(np.zeros(things, np.int64), np.empty(things, np.int32))
    for first in range(0, things, BATCH):
        last = min(first + BATCH, things)
        found = Best(
            first,
            np.zeros(last - first, np.int64),
            np.empty((last - first, k), np.int32),
            np.empty((last - first, k), np.float32),
        )
        _find_best(lists, lists_of, shrinkage, room, found)
        yield found


@strict
def _count(values, counts):  # type: ignore[no-untyped-def]
    for value in values:
        counts[value] += 1


@strict
def _turn(starts, values, places, numbers):  # type: ignore[no-untyped-def]
    """Write each list's number to the next of its things' `places`, which are where these begin."""
    for number in range(len(starts) - 1):
        for at in range(starts[number], starts[number + 1]):
            numbers[places[values[at]]] = number
            places[values[at]] += 1


@strict
def _find_best(lists, lists_of, shrinkage, room, found):  # type: ignore[no-untyped-def]
    """Fill `found`."""
    both, met, k = room.both, room.met, found.others.shape[1]
    scores = np.empty(k, np.float64)
    for row in range(len(found.counts)):
        thing = found.first + row
        begin, end = lists_of.starts[thing], lists_of.starts[thing + 1]
        n_met = 0
        for at in range(begin, end):
            number = lists_of.values[at]
            for place in range(lists.starts[number], lists.starts[number + 1]):
                other = lists.values[place]
                if both[other] == 0:
                    met[n_met] = other
                    n_met += 1
                both[other] += 1
        others, count = found.others[row], 0
        for place in range(n_met):
            other = met[place]
            lists_of_other = lists_of.starts[other + 1] - lists_of.starts[other]
            score = both[other] / (math.sqrt(np.float64(end - begin) * np.float64(lists_of_other)) + shrinkage)
            both[other] = 0
            if other == thing or (count == k and not _is_better(score, other, scores[k - 1], others[k - 1])):
                continue
            count = min(count + 1, k)
            at = count - 1
            while at > 0 and _is_better(score, other, scores[at - 1], others[at - 1]):
                scores[at], others[at] = scores[at - 1], others[at - 1]
                at -= 1
            scores[at], others[at] = score, other
        found.counts[row] = count
        found.scores[row, :count] = scores[:count]


@strict
def _is_better(score, number, than, its):  # type: ignore[no-untyped-def]
    return score > than or (score == than and number < its)
