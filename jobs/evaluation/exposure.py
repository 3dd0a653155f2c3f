"""What a ranking shows, whoever wants it: how much of the catalogue, how evenly, how much of what is popular anyway."""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs import metrics
from jobs.evaluation.held_out import HeldOut
from jobs.evaluation.judged import SEGMENT_AT, Judged
from jobs.evaluation.segments import HEAD
from prediction_store.measures import gini

GINI_AT = (20, 100)


def exposure(judged: Judged, held_out: HeldOut) -> dict[str, Any]:
    """Measures by length of list, over all lists; null where nothing was shown.

    * `coverage`: see `metrics.coverage`.
    * `gini`: how unevenly items are shown, see `prediction_store.measures.gini`.
    * `head_share`: the share of what is shown that are items of the head, see `segments.popularity_bands`.
    * `mean_popularity`: interactions before the test part of what is shown, on average.

    Source: the last is the average recommendation popularity of Yin et al., "Challenging the Long Tail
    Recommendation", 2012, there as a mean over users; with lists of one length it is the same.
    """
    known, is_head = held_out.known_items, held_out.band_of == HEAD
    shown = dict(zip(SEGMENT_AT, judged.shown, strict=True))
    return {
        "lists": judged.lists,
        "coverage": {str(k): _coverage(counts) for k, counts in shown.items()},
        "gini": {str(k): _gini(shown[k]) for k in GINI_AT},
        "head_share": {str(k): _share(shown[k], is_head) for k in GINI_AT},
        "mean_popularity": {str(k): _share(shown[k], known, digits=2) for k in GINI_AT},
    }


def _share(shown: np.ndarray, of_item: np.ndarray, digits: int = 6) -> float | None:
    """The mean of a number that each item has, over all that is shown."""
    return round(float(shown @ of_item) / float(shown.sum()), digits) if shown.any() else None


def _coverage(shown: np.ndarray) -> float | None:
    return round(metrics.coverage(shown), 6) if shown.any() else None


def _gini(shown: np.ndarray) -> float | None:
    return round(gini(shown[shown > 0], len(shown)), 6) if shown.any() else None
