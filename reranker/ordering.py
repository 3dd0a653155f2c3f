"""The order of an answer under constraints: pins, caps on columns, diversity, and places left to chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reranker.arrays import Float32, Indexes, Mask, Positions
from reranker.caps import NO_CAPS, Caps
from reranker.chance import Chance
from reranker.diversity import MMR_AMONG, Unlike


class Ordered(NamedTuple):
    """What is shown, in order."""

    positions: Positions
    """int64[k]: places in the pool."""
    propensities: Float32
    """float32[k]: the chance that just this item stood here, whatever chance did above; 1 where it had no say."""


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
    caps: Caps = NO_CAPS,
    pins: Sequence[tuple[int, Mask]] = (),
    diversity: float = 0.0,
    vectors: Callable[[Sequence[int]], Float32] | None = None,
    explore: Sequence[int] = (),
    explore_among: int = 1,
    seed: str = "",
) -> Ordered:
    """The best k eligible candidates by score, ties by their place in the pool, as far as the constraints let them.

    Args:
        items: uint32[n], what `caps` knows the candidates by; None: their places.
        caps: with what stands above already; they count on. A pin is not bound by them, but counts.
        pins: (position from 1, bool[n]): the best of these that is eligible and not shown already stands there.
        diversity: share of the cosine to the nearest one above that is taken from a score; needs `vectors`.
        vectors: of some of the candidates, float32[m, d], of any length but 0.
        explore: positions from 1 that chance fills, from `explore_among` items, see `Chance`. A pin comes first.
        seed: what chance depends on: the same one draws the same.
    """
    best = _descending(scores, is_eligible)
    pinned = _pinned(pins, best, k)
    caps = caps if items is None else caps.by_place(items)
    for position in pinned.values():
        caps.add(position)
    left = best.tolist()
    if pinned:
        left = [position for position in left if position not in pinned.values()]
    places = range(1, min(k, best.size) + 1)
    if not explore and not diversity:
        drawn = [(left[row], 1.0) for row in caps.add_first(left, len(places) - len(pinned))]
        return _around(pinned, drawn)
    unlike = Unlike(left[: MMR_AMONG + k], scores, vectors, diversity) if diversity and vectors is not None else None
    chance = Chance([place for place in places if place not in pinned], explore, explore_among, seed, caps=caps)
    return _around(pinned, [*_one_by_one(places, pinned, left, chance, unlike)])


def _one_by_one(
    places: Sequence[int], pinned: Mapping[int, int], left: list[int], chance: Chance, unlike: Unlike | None
) -> Iterator[tuple[int, float]]:
    """What stands at each place where nothing is pinned, and how probable it was there, until nothing is left."""
    for place in places:
        if place in pinned:
            now = pinned[place]
        else:
            found = chance.fill(place, left if unlike is None else unlike.by_worth(left))
            if found is None:
                return
            yield found
            now = found[0]
            left.remove(now)
        if unlike is not None:
            unlike.add(now)


def _around(pinned: Mapping[int, int], drawn: Sequence[tuple[int, float]]) -> Ordered:
    """What was drawn, in its order, with the pins at their places, or next where it does not come so far."""
    shown = [*drawn]
    for place in sorted(pinned):
        shown.insert(place - 1, (pinned[place], 1.0))
    positions, propensities = zip(*shown, strict=True) if shown else ((), ())
    return Ordered(np.array(positions, np.int64), np.array(propensities, np.float32))


def _descending(scores: Float32, is_eligible: Mask) -> Positions:
    # Of a whole pool that is quicker than `top`, which is made for the best few.
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
