"""What items that a version lacks score beside the others: learned from which of them users wanted, and when.

Of such an item nothing is known but how many users want it now, and since when. So its score is
`base + of_count * log(1 + count) + of_age * log(1 + hours)`, in the unit of the sums that the weights of the signals
make of the others. The numbers are fitted to moments that are replayed (`moments`): in each one item was wanted, among
the best of the list and all that had arrived by then. They are taken only where moments that they were not learned from
would have been answered better with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from jobs.moments import Moment, Stage, replay
from reranker.arrivals import CONSIDERED, LEARNED, Wanted, arrivals_of, scores_of
from reranker.rules import Rules
from schemas.config import Config
from schemas.ranker import ArrivalScore, RankerWeights
from schemas.serving_config import Serve

MOMENTS = 2_000
"""Drawn at random, of those in which something had arrived and the wanted item is there."""
ASKED = 5 * MOMENTS
"""So many are asked for at most: each takes a millisecond or two."""
FEWEST = 30
"""With fewer, what was learned before stays. The weights of all signals need more (`ranker.fewest_lists`)."""
BEST = 100
"""Of a list: the others are never before anything."""
MEASURED = 250
"""Lists that tell the unit of weights."""
SEED = 13
FOLDS = 5
"""Each part of so many, in the order of time, judges what the others have taught."""
ROUNDS = 20
LONGEST = 2.0
"""Of the steps of a round, for each number."""
PENALTY = 0.1
"""On the squares of the numbers, beside the sum over all moments: what nothing is said about stays where it is."""
ALL = ArrivalScore(0.0, 1.0, 0.0)
"""Puts arrivals in the order of their counts, before any score is known."""


class Contests(NamedTuple):
    """What was there at some moments, by time, and what was wanted."""

    scores: np.ndarray  # float32[moments, BEST]: of the list, highest first, -inf where it is shorter
    counts: np.ndarray  # float32[moments, CONSIDERED]: how many wanted each arrival, most first, NaN: there are fewer
    hours: np.ndarray  # float32[moments, CONSIDERED]: since the first wanted it, likewise
    wanted: np.ndarray  # int64[moments]: place in the list, or BEST and the place among the arrivals

    def part(self, rows: np.ndarray) -> Contests:
        return Contests(*(column[rows] for column in self))


def taught(
    stage: Stage, every: Sequence[Moment], weights: RankerWeights, usual: RankerWeights, config: Config
) -> tuple[RankerWeights, dict[str, Any]]:
    """The weights with what arrivals score: learned, as it was in `usual`, or nothing; and how that went.

    Too few moments in which something had arrived change nothing.
    """
    contests = contests_of(stage, every, weights, config.serve)
    before = None if usual.arrivals is msgspec.UNSET else usual.arrivals
    if before is not None and weights.weights != usual.weights:
        before = in_unit_of(before, stage, every, config.serve, usual=usual, weights=weights)
    count = len(contests.wanted)
    facts: dict[str, Any] = {"arrivals_moments": count}
    if count < FEWEST:
        return _with(weights, before), {"arrivals": "none" if before is None else "as before", **facts}
    k = config.serve.default_k
    ranks = {name: reciprocal_rank(contests, score, k) for name, score in (("none", None), ("before", before))}
    fold = np.arange(count) * FOLDS // count
    parts = [(contests.part(fold == number), contests.part(fold != number)) for number in range(FOLDS)]
    by_part = [reciprocal_rank(judges, fit(others), k) * len(judges.wanted) for judges, others in parts]
    ranks["learned"] = sum(by_part) / count
    facts |= {f"arrivals_mrr_{name}": round(rank, 4) for name, rank in ranks.items()}
    if ranks["learned"] > max(ranks["none"], ranks["before"]):
        return _with(weights, fit(contests)), {"arrivals": "learned", **facts}
    if before is not None and ranks["before"] >= ranks["none"]:
        return _with(weights, before), {"arrivals": "as before", **facts}
    return _with(weights, None), {"arrivals": "none", **facts}


def contests_of(stage: Stage, every: Sequence[Moment], weights: RankerWeights, serve: Serve) -> Contests:
    """Some moments of users who have a list, when something had arrived: what was wanted is of it, or in the list."""
    by = np.array(weights.weights, np.float32)
    kept: dict[int, tuple[np.ndarray, Wanted, int]] = {}
    is_any = stage.trending is not None and bool(stage.trending.others)
    for number in map(int, np.random.default_rng(SEED).permutation(len(every) if is_any else 0)[:ASKED]):
        moment = every[number]
        arrived = arrived_at(stage, moment, serve)
        case = replay(stage, moment, serve) if arrived.items else None
        if case is None:
            continue
        places = np.flatnonzero(case.is_eligible)
        scores = case.signals(places) @ by
        order = np.argsort(-scores, kind="stable")[:BEST]
        if moment.wanted in arrived.items:
            wanted = BEST + arrived.items.index(moment.wanted)
        elif case.wanted in places[order]:
            wanted = int(np.flatnonzero(places[order] == case.wanted)[0])
        else:
            continue
        kept[number] = scores[order], arrived, wanted
        if len(kept) == MOMENTS:
            break
    found = Contests(
        np.full((len(kept), BEST), -np.inf, np.float32),
        np.full((len(kept), CONSIDERED), np.nan, np.float32),
        np.full((len(kept), CONSIDERED), np.nan, np.float32),
        np.zeros(len(kept), np.int64),
    )
    for row, number in enumerate(sorted(kept)):
        scores, arrived, found.wanted[row] = kept[number]
        found.scores[row, : len(scores)] = scores
        found.counts[row, : len(arrived.items)], found.hours[row, : len(arrived.items)] = arrived.counts, arrived.hours
    return found


def fit(contests: Contests) -> ArrivalScore:
    """The score that makes what was wanted most probable; the same contests give the same score.

    A softmax over each moment, by Newton's method: the loss is convex. Its temperature is fitted, too, because weights
    are learned on shorter lists. Source: McFadden 1974, Conditional logit analysis of qualitative choice behavior.
    """
    is_there = np.isfinite(np.concatenate([contests.scores, contests.counts], axis=1))
    features = np.zeros((*is_there.shape, 4))
    features[:, :BEST, 0] = contests.scores
    features[:, BEST:, 1] = 1.0
    features[:, BEST:, 2] = np.log1p(contests.counts)
    features[:, BEST:, 3] = np.log1p(contests.hours)
    features[~is_there] = 0.0
    every = features.reshape(-1, 4)
    wanted = np.take_along_axis(features, contests.wanted[:, None, None], axis=1)[:, 0]
    found = np.array([1.0, 0.0, 1.0, 0.0])  # the inverse of the temperature, and the score by it
    for _ in range(ROUNDS):
        logits = np.where(is_there, features @ found, -np.inf)
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        means = np.einsum("nm,nmf->nf", chances, features)
        squares = (every * chances.reshape(-1, 1)).T @ every - means.T @ means
        slope = (means - wanted).sum(axis=0) + PENALTY * found
        step = np.linalg.solve(squares + PENALTY * np.eye(4), slope)
        longest = np.abs(step).max()
        found -= step * min(1.0, LONGEST / max(longest, 1e-9))
        if longest < 1e-7:
            break
    base, of_count, of_age = (found[1:] / max(found[0], 1e-3)).round(6).tolist()
    return ArrivalScore(base, max(of_count, 0.0), of_age)


def in_unit_of(
    score: ArrivalScore,
    stage: Stage,
    every: Sequence[Moment],
    serve: Serve,
    *,
    usual: RankerWeights,
    weights: RankerWeights,
) -> ArrivalScore:
    """A score that goes with the usual weights, for others: as far above or below the best of the same lists.

    Other weights may make all sums larger, and it would stand behind everything; or smaller, and it would stand first.
    """
    by = np.array([usual.weights, weights.weights], np.float32).T  # [signals, 2]
    best: list[np.ndarray] = []
    for number in map(int, np.random.default_rng(SEED).permutation(len(every))[:MEASURED]):
        case = replay(stage, every[number], serve)
        if case is not None:
            sums = case.signals(np.flatnonzero(case.is_eligible)) @ by
            best.append(-np.sort(-sums, axis=0)[:BEST])
    before, after = np.concatenate([*best, np.zeros((0, 2))]).T
    if not before.size or not before.std():
        return score
    slope = float(after.std() / before.std())
    base = float(after.mean()) + slope * (score.base - float(before.mean()))
    return ArrivalScore(round(base, 6), round(slope * score.of_count, 6), round(slope * score.of_age, 6))


def reciprocal_rank(contests: Contests, score: ArrivalScore | None, k: int) -> float:
    """The mean of one over the place of what was wanted in answers of k items, 0 where it is not among them.

    None: there are no arrivals.
    """
    if score is None:
        arrived = np.full_like(contests.counts, -np.inf)
    else:
        arrived = np.nan_to_num(scores_of(contests.counts, contests.hours, score), nan=-np.inf)
    every = np.concatenate([contests.scores, arrived], axis=1)
    mine = np.take_along_axis(every, contests.wanted[:, None], axis=1)
    is_earlier = np.arange(every.shape[1]) < contests.wanted[:, None]
    places = 1 + ((every > mine) | ((every == mine) & is_earlier)).sum(axis=1)
    return float(np.where((places <= k) & np.isfinite(mine[:, 0]), 1.0 / places, 0.0).mean())


def arrived_at(stage: Stage, moment: Moment, serve: Serve) -> Wanted:
    """The arrivals of a moment, most wanted first."""
    now = moment.request.context.time
    assert now is not None
    trending = None if stage.trending is None else stage.trending.at(now)
    found = arrivals_of(
        stage.version, moment.request, Rules(), msgspec.structs.replace(serve, arrivals=LEARNED),
        trending=trending, live=stage.live, ignored={}, wanted=CONSIDERED, now=now, score=ALL,
    )  # fmt: skip
    return found.shown


def _with(weights: RankerWeights, score: ArrivalScore | None) -> RankerWeights:
    return msgspec.structs.replace(weights, arrivals=msgspec.UNSET if score is None else score)
