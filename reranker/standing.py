"""The standing of every item: what its own signals say at this hour, whoever asks, summed up once an hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import Float32
from reranker.pool import Pool
from reranker.session import EMPTY
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import Signal

if TYPE_CHECKING:
    from prediction_store.reader import Version


class Standing:
    """Of one version's items, for the hour that was asked for last. Any number of threads may ask."""

    def __init__(self, terms: Sequence[tuple[Signal, float]]) -> None:
        """`terms` are signals of the hour, and their weights."""
        self._terms = terms
        self._latest: tuple[int, Float32] | None = None

    def at(self, version: Version, at: Circumstances) -> Float32:
        """float32[n_items]: the sum of signal times weight. The version is always the same one."""
        latest = self._latest
        if latest is None or latest[0] != at.hour_number:
            self._latest = latest = (at.hour_number, self._summed(version, at))
        return latest[1]

    def _summed(self, version: Version, at: Circumstances) -> Float32:
        everything = np.arange(version.n_items, dtype=np.uint32)
        given = SignalInputs(version, Pool.of_list(everything, np.zeros(everything.size, np.float32)), EMPTY, at)
        total = np.zeros(everything.size, np.float32)
        for signal, weight in self._terms:
            total += np.float32(weight) * signal.values(given)
        return total
