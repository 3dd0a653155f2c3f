"""The order of an answer under constraints: pins, caps on columns, diversity, and places left to chance.

Source of the diversity: Carbonell, Goldstein 1998, The use of MMR, diversity-based reranking for reordering documents.
"""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reranker.arrays import Float32, Indexes, Mask, Positions

MMR_AMONG = 200
"""Candidates that diversity chooses among: those of the best scores."""
TINY = 1e-12


class Counts:
    """Caps on columns, and how many of each value are shown."""

    def __init__(self, caps: Sequence[tuple[npt.NDArray[np.int32], int]]) -> None:
        """`caps`: int32[items] codes of a column, -1 for none, and the most of one code."""
        self._caps = [(codes, most, collections.Counter[int]()) for codes, most in caps]

    def allow(self, item: int) -> bool:
        """True when one more of its values may be shown."""
        return all((code := int(codes[item])) < 0 or seen[code] < most for codes, most, seen in self._caps)

    def add(self, item: int) -> None:
        """It is shown."""
        for codes, _, seen in self._caps:
            seen[int(codes[item])] += 1


class Ordered(NamedTuple):
    """What is shown, in order."""

    positions: Positions
    """int64[k]: places in the pool."""
    propensities: Float32
    """float32[k]: the chance that just this item stood here; 1 where chance had no say."""


CERTAIN: Float32 = np.ones(1_000, np.float32)
CERTAIN.flags.writeable = False


def as_they_are(positions: Positions) -> Ordered:
    """The positions in their order, in which chance had no say."""
    count = positions.size
    return Ordered(positions, CERTAIN[:count] if count <= CERTAIN.size else np.ones(count, np.float32))


def order(
    scores: Float32,
    is_eligible: Mask,
    k: int,
    *,
    items: Indexes | None = None,
    counts: Counts | None = None,
    pins: Sequence[tuple[int, Mask]] = (),
    diversity: float = 0.0,
    vectors: Float32 | None = None,
    explore: Sequence[int] = (),
    explore_among: int = 1,
    seed: str = "",
) -> Ordered:
    """The best k eligible candidates by score, ties by their place in the pool, as far as the constraints let them.

    Args:
        items: uint32[n], what `counts` knows the candidates by; None: their places.
        counts: the caps, and what stands above already; it counts on. A pin is not bound by them, but counts.
        pins: (position from 1, bool[n]): the best of these that is eligible and not shown already stands there.
        diversity: share of the cosine to the nearest one above that is taken from a score; needs `vectors`.
        vectors: float32[n, d], of any length but 0.
        explore: positions from 1 that chance fills; a pin comes first.
        seed: what chance depends on: the same one draws the same.
    """
    best = _descending(scores, is_eligible)
    if diversity and vectors is not None:
        best = _diverse(best, scores, vectors, diversity, k)
    pinned = _pinned(pins, best, k)
    counts = Counts(()) if counts is None else counts
    names = np.arange(len(scores)) if items is None else items
    for position in pinned.values():
        counts.add(int(names[position]))
    left = [position for position in best.tolist() if position not in pinned.values()]
    dice = random.Random(seed)
    shown: list[int] = []
    chances: list[float] = []
    for place in range(1, min(k, best.size) + 1):
        if place in pinned:
            shown.append(pinned[place])
            chances.append(1.0)
            continue
        # What does not fit now never will: counts only grow.
        fitting = (position for position in left if counts.allow(int(names[position])))
        among = list(itertools.islice(fitting, explore_among if place in explore else 1))
        if not among:  # the list is dry; pins below move up
            rest = [position for at, position in sorted(pinned.items()) if at > place]
            shown, chances = shown + rest, chances + [1.0] * len(rest)
            break
        drawn = dice.choice(among)
        counts.add(int(names[drawn]))
        left.remove(drawn)
        shown.append(drawn)
        chances.append(1.0 / len(among))
    return Ordered(np.array(shown, np.int64), np.array(chances, np.float32))


def _descending(scores: Float32, is_eligible: Mask) -> Positions:
    positions = np.flatnonzero(is_eligible)
    return positions[np.argsort(-scores[positions], kind="stable")]


def _pinned(pins: Sequence[tuple[int, Mask]], best: Positions, k: int) -> Mapping[int, int]:
    found: dict[int, int] = {}
    for place, holds in pins:
        candidates = (int(position) for position in best[holds[best]] if int(position) not in found.values())
        position = next(candidates, None)
        if position is not None and place <= k and place not in found:
            found[place] = position
    return found


def _diverse(best: Positions, scores: Float32, vectors: Float32, share: float, k: int) -> Positions:
    """The first MMR_AMONG in the order in which each is worth the most beside those chosen before it."""
    among = best[:MMR_AMONG]
    unit = vectors[among] / np.maximum(np.linalg.norm(vectors[among], axis=1, keepdims=True), TINY)
    nearest = np.zeros(len(among), np.float32)  # the cosine to the nearest that is chosen; the first has none
    is_left = np.ones(len(among), np.bool_)
    chosen: list[int] = []
    for _ in range(min(k, len(among))):
        worth = np.where(is_left, (1.0 - share) * scores[among] - share * nearest, -np.inf)
        now = int(worth.argmax())
        chosen.append(now)
        is_left[now] = False
        cosines = unit @ unit[now]
        nearest = cosines if len(chosen) == 1 else np.maximum(nearest, cosines)
    return np.concatenate([among[chosen], among[is_left], best[MMR_AMONG:]])
