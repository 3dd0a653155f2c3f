"""What the weights were learned from, kept beside them for `shortlist skew`: how each signal is spread.

A log knows what was shown, not what was passed over. So of a replayed session it is what the weights would have shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.moments import Moment, Stage, replay
from jobs.ranking_fit import Lists
from reranker.signals import SIGNALS
from reranker.stability import spread_of
from schemas.ranker import LOG, SESSIONS, LearnedFrom, RankerWeights
from schemas.serving_config import Serve

MOMENTS = 250
"""Moments drawn at random. With twenty items each, every tenth of a signal's values holds five hundred."""
SEED = 11


def of_log(lists: Lists) -> LearnedFrom:
    """Of lists that were served. Requires: there is one."""
    return _learned_from(LOG, len(lists.signals), lists.signals[lists.is_there])


def of_sessions(stage: Stage, every: Sequence[Moment], weights: RankerWeights, serve: Serve) -> LearnedFrom:
    """Of what the weights put on top in some of these moments, `serve.default_k` items each.

    Requires: of one moment at least the version has the list.
    """
    by = np.array(weights.weights, np.float32)
    shown: list[np.ndarray] = []
    for number in map(int, np.random.default_rng(SEED).permutation(len(every))):
        case = replay(stage, every[number], serve)
        if case is not None and case.is_eligible.any():
            signals = case.signals(np.flatnonzero(case.is_eligible))
            shown.append(signals[np.argsort(-(signals @ by), kind="stable")[: serve.default_k]])
        if len(shown) == MOMENTS:
            break
    return _learned_from(SESSIONS, len(shown), np.concatenate(shown))


def _learned_from(source: str, lists: int, values: np.ndarray) -> LearnedFrom:
    """Of the signals that said anything: of the others no weight was learned.

    Args:
        values: float32[items shown, signals], in the order of SIGNALS.
    """
    spreads = {s.name: spread_of(column) for s, column in zip(SIGNALS, values.T, strict=True) if column.any()}
    return LearnedFrom(source, lists, spreads)
