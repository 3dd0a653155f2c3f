"""What items that a version lacks score beside the others: learned from which of them users wanted, and when.

Of such an item nothing is known but how many users want it now. So its score is `base + of_count * log(1 + count)`, in
the unit of the sums that the weights of the signals make of the others. The two numbers are fitted to moments that are
replayed (`moments`): in each one item was wanted, among the best of the list and all that had arrived by then. As for
the weights, they are taken only where the latest moments would have been answered better with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional

from jobs.moments import Moment, Stage, replay
from reranker.arrays import NO_NUMBERS
from reranker.arrivals import LEARNED, Competing, arrivals_of, scores_of
from reranker.rules import Rules
from schemas.config import Config
from schemas.ranker import ArrivalScore, RankerWeights
from schemas.serving_config import Serve

MOMENTS = 2_000
"""Drawn at random, of those whose wanted item is there."""
ASKED = 5 * MOMENTS
"""So many are asked for at most: each takes a millisecond or two."""
BEST = 100
"""Of a list: the others are never before anything."""
ARRIVED = 50
SEED = 13
HELD_OUT = 5
"""One in so many moments, the latest, judges what the others have taught."""
ROUNDS = 60
"""Of L-BFGS, for three numbers."""
PENALTY = 1e-5
"""On the squares of the numbers: what nothing is said about stays where it is."""
ALL = ArrivalScore(0.0, 1.0)
"""Puts arrivals in the order of their counts, before any score is known."""


class Contests(NamedTuple):
    """What was there at some moments, by time, and what was wanted."""

    scores: np.ndarray  # float32[moments, BEST]: of the list, highest first, -inf where it is shorter
    counts: np.ndarray  # float32[moments, ARRIVED]: how many wanted each arrival, most first, NaN where there are fewer
    wanted: np.ndarray  # int64[moments]: place in the list, or BEST and the place among the arrivals

    def part(self, rows: slice) -> Contests:
        return Contests(*(column[rows] for column in self))


def taught(
    stage: Stage, every: Sequence[Moment], weights: RankerWeights, usual: RankerWeights, config: Config
) -> tuple[RankerWeights, dict[str, Any]]:
    """The weights with what arrivals score: learned, as it was in `usual`, or nothing; and how that went.

    Too few moments change nothing.
    """
    contests = contests_of(stage, every, weights, config.serve)
    before = None if usual.arrivals is msgspec.UNSET else usual.arrivals
    if len(contests.wanted) < config.ranker.fewest_lists:
        return _with(weights, before), {"arrivals": "none" if before is None else "as before"}
    split = len(contests.wanted) - len(contests.wanted) // HELD_OUT
    earlier, later = contests.part(slice(split)), contests.part(slice(split, None))
    k = config.serve.default_k
    ranks = {name: reciprocal_rank(later, score, k) for name, score in (("none", None), ("before", before))}
    ranks["learned"] = reciprocal_rank(later, fit(earlier), k)
    facts = {f"arrivals_mrr_{name}": round(rank, 4) for name, rank in ranks.items()}
    if ranks["learned"] > max(ranks["none"], ranks["before"]):
        return _with(weights, fit(contests)), {"arrivals": "learned", **facts}
    if ranks["before"] > ranks["none"]:
        return _with(weights, before), {"arrivals": "as before", **facts}
    return _with(weights, None), {"arrivals": "none", **facts}


def contests_of(stage: Stage, every: Sequence[Moment], weights: RankerWeights, serve: Serve) -> Contests:
    """Some moments of users who have a list, in which the wanted item is in it or has arrived."""
    by = np.array(weights.weights, np.float32)
    kept: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}
    for number in map(int, np.random.default_rng(SEED).permutation(len(every))[:ASKED]):
        moment = every[number]
        case = replay(stage, moment, serve)
        if case is None:
            continue
        arrived = arrived_at(stage, moment, serve)
        places = np.flatnonzero(case.is_eligible)
        scores = case.signals(places) @ by
        order = np.argsort(-scores, kind="stable")[:BEST]
        if moment.wanted in arrived.items:
            wanted = BEST + arrived.items.index(moment.wanted)
        elif case.wanted in places[order]:
            wanted = int(np.flatnonzero(places[order] == case.wanted)[0])
        else:
            continue
        kept[number] = scores[order], arrived.counts, wanted
        if len(kept) == MOMENTS:
            break
    found = Contests(
        np.full((len(kept), BEST), -np.inf, np.float32),
        np.full((len(kept), ARRIVED), np.nan, np.float32),
        np.zeros(len(kept), np.int64),
    )
    for row, number in enumerate(sorted(kept)):
        scores, counts, found.wanted[row] = kept[number]
        found.scores[row, : len(scores)], found.counts[row, : len(counts)] = scores, counts
    return found


def fit(contests: Contests) -> ArrivalScore:
    """The score that makes what was wanted most probable; the same contests give the same score.

    A softmax over each moment, whose temperature is fitted, too: weights are learned on shorter lists.
    """
    scores, counts = (torch.from_numpy(part).double() for part in (contests.scores, contests.counts))
    wanted = torch.from_numpy(contests.wanted)
    is_there = torch.cat([scores.isfinite(), counts.isfinite()], dim=1)
    scores, counts = scores.nan_to_num(neginf=0.0), counts.nan_to_num().log1p()
    # The inverse of the temperature, and what counts are worth: above 0 by softplus.
    of_scores, of_counts, base = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(3))
    found = torch.optim.LBFGS([of_scores, of_counts, base], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        found.zero_grad()
        arrived = base + functional.softplus(of_counts) * counts
        every = torch.cat([functional.softplus(of_scores) * scores, arrived], dim=1)
        total = functional.cross_entropy(every.masked_fill(~is_there, -torch.inf), wanted)
        total = total + PENALTY * (of_scores.square() + of_counts.square() + base.square()).sum()
        total.backward()
        return total

    found.step(loss)
    sharpness, of_count = (functional.softplus(part).item() for part in (of_scores, of_counts))
    return ArrivalScore(round(base.item() / sharpness, 6), round(of_count / sharpness, 6))


def reciprocal_rank(contests: Contests, score: ArrivalScore | None, k: int) -> float:
    """The mean of one over the place of what was wanted in answers of k items, 0 where it is not among them.

    None: there are no arrivals.
    """
    if score is None:
        arrived = np.full_like(contests.counts, -np.inf)
    else:
        arrived = np.nan_to_num(scores_of(contests.counts, score), nan=-np.inf)
    every = np.concatenate([contests.scores, arrived], axis=1)
    mine = np.take_along_axis(every, contests.wanted[:, None], axis=1)
    is_earlier = np.arange(every.shape[1]) < contests.wanted[:, None]
    places = 1 + ((every > mine) | ((every == mine) & is_earlier)).sum(axis=1)
    return float(np.where((places <= k) & np.isfinite(mine[:, 0]), 1.0 / places, 0.0).mean())


def arrived_at(stage: Stage, moment: Moment, serve: Serve) -> Competing:
    """The arrivals of a moment, most wanted first."""
    now = moment.request.context.time
    assert now is not None
    trending = None if stage.trending is None else stage.trending.at(now)
    found = arrivals_of(
        stage.version, moment.request, Rules(), msgspec.structs.replace(serve, arrivals=LEARNED),
        trending=trending, live=stage.live, ignored={}, wanted=ARRIVED, now=now, score=ALL,
    )  # fmt: skip
    return found if isinstance(found, Competing) else Competing([], NO_NUMBERS, [], NO_NUMBERS, (), 0)


def _with(weights: RankerWeights, score: ArrivalScore | None) -> RankerWeights:
    return msgspec.structs.replace(weights, arrivals=msgspec.UNSET if score is None else score)
