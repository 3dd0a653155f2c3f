"""The score of every candidate, and the order that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from reranker.arrays import NO_PLACES, Float32, Mask, Positions
from reranker.catalogue import Catalogue
from reranker.compiled import is_compiled, kernel
from reranker.forms import Compiled, Computed, OfItem, values_of
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import BY_NAME, Signal, default_weights
from reranker.standing import standing_of
from reranker.trending_now import Trending
from reranker.user_tower import UserTower
from schemas.ranker import ArrivalScore, RankerWeights

if TYPE_CHECKING:
    from prediction_store.reader import Version


@dataclass(frozen=True, eq=False)
class Ranker:
    """A linear score: the sum of signal times weight."""

    terms: tuple[tuple[Signal, float], ...]
    """The signals that have a weight; those without one are not computed."""
    unknown: tuple[str, ...] = ()
    """Signals of the version that this program does not have."""
    tower: UserTower | None = None
    """Of the same version, for the signals that need it."""
    arrivals: ArrivalScore | None = None
    """Of items that the version lacks; None: that was not learned."""

    @classmethod
    def of(cls, weights: RankerWeights, tower: UserTower | None = None) -> Ranker:
        """The ranker of a version.

        Weights are learned together: when one signal is unknown here, the others mean nothing, and the defaults serve.
        """
        unknown = tuple(name for name in weights.signals if name not in BY_NAME)
        used = default_weights(weights.space_id) if unknown else weights
        pairs = zip(used.signals, used.weights, strict=True)
        terms = tuple((BY_NAME[name], weight) for name, weight in pairs if weight != 0.0)
        arrivals = None if used.arrivals is msgspec.UNSET else used.arrivals
        return cls(terms=terms, unknown=unknown, tower=tower, arrivals=arrivals)

    @cached_property
    def signals(self) -> list[Signal]:
        """Of `terms`."""
        return [signal for signal, _ in self.terms]

    @cached_property
    def weights(self) -> list[float]:
        """Of the signals, in the order of `terms`."""
        return [weight for _, weight in self.terms]

    @cached_property
    def names(self) -> list[str]:
        """The signals that have a weight, in the order of `terms`."""
        return [signal.name for signal, _ in self.terms]

    def forms(self, version: Version, at: Circumstances, *, is_now: bool) -> Forms:
        """What the signals look at in a version, kept with it for each device that it knows of.

        Kept is the latest hour of the clock, and beside it the latest that somebody has asked about (not `is_now`);
        both as long as the same is trending.
        """
        kept = version.kept
        found: Forms | None = kept.get((self, at.device, is_now))
        if found is None or not found.is_of(at):
            device = at.device if version.context("device", at.device) is not None else ""
            found = kept.get((self, device, is_now))
            if found is None or not found.is_of(at):
                found = kept[self, device, is_now] = self._made(version, at._replace(device=device), is_now=is_now)
        return found

    def _made(self, version: Version, at: Circumstances, *, is_now: bool) -> Forms:
        found = [signal.compute(Catalogue(version, at)) for signal in self.signals]
        computed = [place for place, form in enumerate(found) if isinstance(form, Computed)]
        every = [None if isinstance(form, Computed) else form for form in found]
        if not is_now:  # to sum up the whole catalogue would not pay
            return Forms(at.hour_number, at.trending, every, every, self.weights, computed)
        of_hour = [place for place, signal in enumerate(self.signals) if signal.of_hour]
        others = [place for place, signal in enumerate(self.signals) if not signal.of_hour]
        standing = standing_of(
            version, [every[place] for place in of_hour], [self.weights[place] for place in of_hour], at
        )
        scored = [*(every[place] for place in others), OfItem(standing)]
        weights = [*(self.weights[place] for place in others), 1.0]
        return Forms(at.hour_number, at.trending, every, scored, weights, computed)


class Forms(NamedTuple):
    """What a ranker's signals look at in a version, at an hour and on a device; None: nothing to say there."""

    hour_number: int
    trending: Trending | None
    every: list[Compiled | None]
    """Of each signal, None where it is computed."""
    scored: list[Compiled | None]
    """Less in number and the same by their sum: what is the item's own at this hour may be one form."""
    weights: list[float]
    """Of `scored`."""
    computed: list[int]
    """The places of the signals that the kernel does not know, and `scored` lacks."""

    def is_of(self, at: Circumstances) -> bool:
        """They serve whoever asks then, from the device that they are kept for."""
        return self.hour_number == at.hour_number and self.trending is at.trending


class Scoring:
    """The candidates of one pool as a ranker sees them."""

    def __init__(self, ranker: Ranker, given: SignalInputs, *, is_now: bool = False) -> None:
        """`is_now`: the request is of this hour, by the clock, so that others will be asked as it is."""
        self.given = given
        self._arrays = given.arrays() if is_compiled else ()
        self._ranker = ranker
        self._forms = ranker.forms(given.version, given.at, is_now=is_now)

    def scores(self, allowed: Mask, *, boosts: Sequence[Float32] = ()) -> Float32:
        """float32[n], finite: the sum of signal times weight, and of the boosts."""
        return self._scored(allowed, boosts, NO_PLACES)[0]

    def best(self, allowed: Mask, k: int, *, boosts: Sequence[Float32] = ()) -> tuple[Float32, Positions]:
        """(scores, the positions of the best k allowed candidates, see `top`): of the others some may score -inf."""
        places = np.empty(min(k, allowed.size), np.int64)
        scores, count = self._scored(allowed, boosts, places)
        return scores, places[:count] if is_compiled else top_in_numpy(scores, allowed, k)

    def _scored(self, allowed: Mask, boosts: Sequence[Float32], best: Positions) -> tuple[Float32, int]:
        total = np.zeros(self.given.pool.items.size, np.float32)
        for boost in boosts:
            total += boost
        for place in self._forms.computed:
            signal, weight = self._ranker.terms[place]
            total += np.float32(weight) * signal.values(self.given)
        if is_compiled:
            return total, kernel.score(total, self._arrays, allowed, self._forms.weights, self._forms.scored, best)
        for weight, form in zip(self._forms.weights, self._forms.scored, strict=True):
            total += np.float32(weight) * values_of(form, self.given)
        return total, 0

    def values(self, positions: Positions) -> Float32:
        """float32[m, signals]: the values of the ranker's signals at some positions."""
        found = np.zeros((len(self._forms.every), positions.size), np.float32)
        if is_compiled:
            kernel.values(found, self._arrays, positions, self._forms.every)
        else:
            for row, form in zip(found, self._forms.every, strict=True):
                row[:] = values_of(form, self.given)[positions]
        for place in self._forms.computed:
            found[place] = self._ranker.signals[place].values(self.given)[positions]
        return found.T


def top(scores: Float32, allowed: Mask, k: int) -> Positions:
    """Positions of the best k allowed candidates: by score, then by base rank, which is the position itself.

    No two candidates of a pool share a base rank, so the order is total.
    """
    if not is_compiled:
        return top_in_numpy(scores, allowed, k)
    found = np.empty(min(k, scores.size), np.int64)
    return found[: kernel.top(found, scores, allowed)]


def top_in_numpy(scores: Float32, allowed: Mask, k: int) -> Positions:
    """As `top`."""
    positions = np.flatnonzero(allowed)
    found = scores[positions]
    if 0 < k < positions.size:
        # Everything that ties with the k-th stays in, so that base rank decides among them and not the partition.
        threshold = np.partition(found, positions.size - k)[positions.size - k]
        near = found >= threshold
        positions, found = positions[near], found[near]
    order = np.argsort(-found, kind="stable")
    best: Positions = positions[order[:k]]
    return best
