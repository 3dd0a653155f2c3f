"""The numbers behind the items of an answer, as the log has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reranker.arrays import Float32
from reranker.arrivals import Arrivals


class Shown(NamedTuple):
    """The numbers of the items that one rung gave to an answer, in the order of their rank."""

    scores: Float32
    base_scores: Float32
    signals: Float32
    """float32[n, signals]: the values of those that have a weight, see `Ranker.names`. NaN: not computed."""
    propensities: Float32
    added: Float32 | None
    """float32[n]: what rules and discounts have added to the score; None: there were none."""
    candidates: int
    """Number of items that the rung ranked."""

    @classmethod
    def with_arrivals(cls, parts: Sequence[Shown], arrivals: Arrivals, signals: int) -> Shown:
        """Of a whole answer: what its rungs gave, and arrivals at their places."""
        places = np.array(arrivals.places, np.int64) - 1 - np.arange(len(arrivals.places))

        def among(values: Sequence[Float32], others: Float32) -> Float32:
            all_others = np.concatenate([*values, others[:0]])
            return np.insert(all_others, np.minimum(places, len(all_others)), others, axis=0)

        shown = arrivals.shown
        counts, boosts = shown.counts, shown.added if arrivals.is_scored else np.zeros(shown.counts.size, np.float32)
        unknown = np.full((counts.size, signals), np.nan, np.float32)
        added = [np.zeros(part.scores.size, np.float32) if part.added is None else part.added for part in parts]
        return cls(
            among([part.scores for part in parts], shown.scores),
            among([part.base_scores for part in parts], counts),
            among([part.signals for part in parts], unknown),
            among([part.propensities for part in parts], np.ones(counts.size, np.float32)),
            among(added, boosts) if boosts.any() or any(part.added is not None for part in parts) else None,
            sum(part.candidates for part in parts) + counts.size,
        )
