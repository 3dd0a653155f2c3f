"""Gates that try the version out: is it what a search would find, can it be ranked, is it found quickly?"""

from __future__ import annotations

import math
from collections.abc import Collection

import msgspec
import numpy as np

from prediction_store.exact_search import exact_recall
from prediction_store.gates.finding import Finding, owed
from prediction_store.gates.judged import Judged
from schemas.ranker import RankerWeights


def ann_recall(given: Judged) -> Finding:
    """Share of the exact best items that the sampled lists hold."""
    found, wanted, users = exact_recall(given.version, given.sample)
    if not wanted:
        return owed("no sampled user has a list")
    return Finding(found / wanted, f"{found:,} of {wanted:,} items of {users:,} users")


def ranker(given: Judged) -> Finding:
    """Reasons why the re-ranker's weights do not fit."""
    reasons = misfits(given.version.ranker, given.version.manifest.space_id, given.known_signals)
    return Finding(len(reasons), "; ".join(reasons) or f"{len(given.version.ranker.signals)} signals")


def misfits(weights: RankerWeights, space_id: str, known_signals: Collection[str]) -> list[str]:
    """Why the re-ranker could not rank with these weights as they were meant; [] when it can."""
    reasons = [f"the re-ranker has no signal {name!r}" for name in weights.signals if name not in known_signals]
    reasons += [
        f"the weight of {name!r} is {weight}"
        for name, weight in zip(weights.signals, weights.weights, strict=True)
        if not math.isfinite(weight)
    ]
    if weights.arrivals is not msgspec.UNSET and not all(map(math.isfinite, msgspec.structs.astuple(weights.arrivals))):
        reasons.append(f"arrivals score {weights.arrivals}")
    if len(set(weights.signals)) < len(weights.signals):
        reasons.append("a signal is there twice")
    if weights.space_id != space_id:
        reasons.append(f"weights of embedding space {weights.space_id}, vectors of {space_id}")
    return reasons


def lookup_p99_us(given: Judged) -> Finding:
    """99th percentile of the time to look up a sampled user, whose page is in memory already; microseconds."""
    if not given.sample:
        return owed("there are no users")
    seconds = []
    for user, _ in given.sample:  # reading the sample was the warm-up
        began = given.timer()
        given.version.read(user)
        seconds.append(given.timer() - began)
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e6
    return Finding(float(p99), f"of {len(seconds):,} sampled users", {"p50": float(p50), "p99": float(p99)})
