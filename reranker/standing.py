"""The standing of every item: what its own signals say at this hour, whoever asks, summed up once an hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from reranker.arrays import NO_PLACES, Float32
from reranker.catalogue import Catalogue
from reranker.compiled import is_compiled, kernel
from reranker.forms import values_of
from reranker.pool import Pool
from reranker.session import EMPTY
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import Signal

if TYPE_CHECKING:
    from prediction_store.reader import Version


class Standing:
    """Of one version's items, for the hour that was asked for last. Any number of threads may ask."""

    def __init__(self, signals: Sequence[Signal], weights: list[float]) -> None:
        """Signals of the hour, and what each weighs."""
        self._signals, self._weights = signals, weights
        self._latest: tuple[int, Float32] | None = None

    def at(self, version: Version, at: Circumstances) -> Float32:
        """float32[n_items]: the sum of signal times weight. The version is always the same one."""
        latest = self._latest
        if latest is None or latest[0] != at.hour_number:
            self._latest = latest = (at.hour_number, self._summed(version, at))
        return latest[1]

    def _summed(self, version: Version, at: Circumstances) -> Float32:
        everything = np.arange(version.n_items, dtype=np.uint32)
        total = np.zeros(everything.size, np.float32)
        given = SignalInputs(version, Pool.of_list(everything, total.copy()), EMPTY, at)
        forms = [signal.compute(Catalogue(version, at)) for signal in self._signals]
        if is_compiled:  # in a tenth of the time: two million items would hold up a request for a tenth of a second
            kernel.score(total, given.arrays(), everything >= 0, self._weights, forms, NO_PLACES)
            return total
        for weight, form in zip(self._weights, forms, strict=True):
            total += np.float32(weight) * values_of(form, given)
        return total
