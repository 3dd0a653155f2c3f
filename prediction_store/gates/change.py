"""Gates that hold the sampled lists against those that the current version has for the same users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from prediction_store.comparison import Comparison, Means, SegmentMeans
from prediction_store.gates.finding import Finding, incomparable, owed
from prediction_store.gates.judged import Judged

MIN_SEGMENT_USERS: Final = 30
"""A segment with fewer sampled users is not judged by itself."""
QUANTILES: Final = (0.1, 0.5, 0.9)


def overlap(given: Judged) -> Finding:
    """Share of a list's first items that the user's list had before, on average; of the worst segment."""
    return _by_segment(given, lambda comparison: comparison.overlap, lambda means: means.overlap)


def rank_agreement(given: Judged) -> Finding:
    """Rank-biased overlap of a user's lists, on average; of the worst segment."""
    return _by_segment(given, lambda comparison: comparison.rank_agreement, lambda means: means.rank_agreement)


def score_drift(given: Judged) -> Finding:
    """Population stability index of the base scores."""
    comparison = given.comparison
    if comparison is None:
        return incomparable(given.alone)
    drift = comparison.score_drift()
    if drift is None:
        return owed("no sampled user has a list in both versions")
    numbers: dict[str, float] = {}
    for side, scores in zip(("before", "after"), comparison.scores(), strict=True):
        found = np.quantile(scores, QUANTILES)
        numbers |= {f"{side}_p{round(100 * q)}": float(value) for q, value in zip(QUANTILES, found, strict=True)}
    return Finding(drift, "" if comparison.is_same_space else "the embedding space is another: by shape only", numbers)


def _by_segment(
    given: Judged, of_user: Callable[[Comparison], Means], of_segment: Callable[[SegmentMeans], float]
) -> Finding:
    comparison = given.comparison
    if comparison is None:
        return incomparable(given.alone)
    if not comparison.pairs:
        return owed("no sampled user has a list in both versions")
    values = of_user(comparison)
    worst, note = float(values.mean()), f"of {len(values):,} users"
    numbers = {"mean": worst, "p10": float(np.quantile(values, 0.1))}
    for means in comparison.by_segment():
        found = of_segment(means)
        numbers[f"segment {means.segment}".rstrip()] = found
        if means.users >= MIN_SEGMENT_USERS and found < worst:
            worst, note = found, f"in segment {means.segment!r}; {numbers['mean']:.3g} of all {len(values):,} users"
    return Finding(worst, note, numbers)
