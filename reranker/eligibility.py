"""Which candidates may be shown: in stock and available now, and not hidden by the shop or by the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import Indexes, Mask, contains
from reranker.compiled import is_compiled, kernel
from reranker.familiar import Familiar
from schemas.messages import RecommendRequest

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version


def hidden_items(request: RecommendRequest, version: Version, familiar: Familiar) -> Indexes:
    """uint32[m]: what this answer must not show; excluded items that the version lacks do not matter.

    What the user has bought is hidden on every rung, not only missing from the stored list.
    """
    if not request.exclude:
        return familiar.hidden
    excluded = version.indexes_of(request.exclude)
    hidden = np.array([index for index in excluded if index is not None], np.uint32)
    return np.concatenate([hidden, familiar.hidden])


def eligible(items: Indexes, hidden: Indexes, live: LiveView, now: float) -> Mask:
    """bool[n]: which of the items may be shown at a time."""
    if not is_compiled:
        return live.eligible(items, now) & ~contains(np.sort(hidden), items)
    found = np.empty(items.shape, np.bool_)
    kernel.eligible(found, items, live.shown, hidden)
    return live.until(found, items, now)
