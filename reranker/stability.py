"""Stability: whether the signals that are served are spread as they were where their weights were learned.

Skew asks whether a signal is computed alike; this asks whether the world is still alike. A weight learned where half
of the candidates were of the session's category says little where hardly any are.

Source: the population stability index, as scorecards are watched by: the sum of (q - p) ln(q / p) over bins that hold
a tenth of the training's values each; below 0.1 nothing has changed, from 0.25 on something has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from reranker import fallbacks
from reranker.answered import numbers
from reranker.arrays import Float32
from reranker.serving_log.records import AnswerRecord
from schemas.ranker import LOG, SESSIONS, LearnedFrom, Spread

BINS = 10
FLOOR = 1e-4
"""The least share of a bin: an empty one would make the index infinite."""
GRAIN = 1e-6
"""Values closer than this are one: the last bits differ between machines."""
LOOK, CHANGED = 0.1, 0.25
FEWEST_ANSWERS = 100
"""With fewer answers, chance alone moves the index by a tenth."""
STABLE, TO_LOOK_AT, OTHERWISE, TOO_FEW = "stable", "look", "changed", "too few answers"
RUNGS = {LOG: (fallbacks.PERSONAL, fallbacks.SESSION), SESSIONS: (fallbacks.PERSONAL,)}
"""What stands on the others was ranked for nobody; replayed are stored lists only."""


class Drift(NamedTuple):
    """How far what one version served is from what its weights were learned from."""

    version: str
    learned_from: LearnedFrom | None
    """None: the version does not tell, and there is nothing to compare with."""
    answers: int = 0
    """That could be compared."""
    indexes: dict[str, float] = {}  # noqa: RUF012 never changed
    """Signal to its population stability index."""

    def reading(self, name: str) -> str:
        """The index of a signal in a word."""
        if self.answers < FEWEST_ANSWERS:
            return TOO_FEW
        index = self.indexes[name]
        return STABLE if index < LOOK else TO_LOOK_AT if index <= CHANGED else OTHERWISE

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        learned = None
        if self.learned_from is not None:
            learned = {"source": self.learned_from.source, "lists": self.learned_from.lists}
        signals = {name: {"psi": index, "reading": self.reading(name)} for name, index in self.indexes.items()}
        return {"version": self.version, "learned_from": learned, "answers": self.answers, "signals": signals}

    def above(self, most: float) -> list[str]:
        """The signals whose index is greater, where there are answers enough to say so."""
        return [name for name, index in self.indexes.items() if index > most and self.answers >= FEWEST_ANSWERS]


def spread_of(values: Float32) -> Spread:
    """Bins that hold a tenth of the values each. A value that a tenth or more have in common, 0 usually, has one alone.

    Requires: there are values, and they are finite.
    """
    deciles = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf").astype(np.float64))
    bounds: list[float] = []
    for decile in deciles.tolist():
        if bounds and decile - GRAIN <= bounds[-1]:
            continue  # as good as the one before
        is_common = np.count_nonzero(np.abs(values - decile) <= GRAIN) * BINS >= len(values)
        around = (decile - GRAIN, decile + GRAIN) if is_common else (decile,)
        bounds += [round(bound, 7) for bound in around]
    return Spread(bounds, [round(share, 6) for share in _shares(bounds, values).tolist()])


def stability_index(then: Spread, values: Float32) -> float:
    """0 where the values are spread as they were then, more the less they are. Requires: there are values."""
    before = np.maximum(np.array(then.shares), FLOOR)
    now = np.maximum(_shares(then.bounds, values), FLOOR)
    return float(((now - before) * np.log(now / before)).sum())


def drift(version: str, learned_from: LearnedFrom | msgspec.UnsetType, records: Iterable[AnswerRecord]) -> Drift:
    """How answers of a version compare with what its weights were learned from; like with like, so far as it goes.

    Where sessions were replayed, answers without a session have no counterpart, nor have items from other rungs than
    the stored list's. What was not computed, for want of time, is left out.
    """
    if isinstance(learned_from, msgspec.UnsetType) or learned_from.source not in RUNGS:
        return Drift(version, None)
    parts: dict[str, list[Float32]] = {name: [] for name in learned_from.spreads}
    answers = 0
    for record in records:
        if learned_from.source == SESSIONS and not record.session:
            continue
        shown = record.shown
        rows = [place for place, rung in enumerate(shown.rungs) if rung in RUNGS[learned_from.source]]
        values = numbers(shown.values).reshape(len(shown.items), len(shown.signals))[rows]
        values = values[np.isfinite(values).all(axis=1)]
        answers += bool(values.size)
        for name, column in zip(shown.signals, values.T, strict=True):
            if name in parts:
                parts[name].append(column)
    indexes = {
        name: stability_index(learned_from.spreads[name], np.concatenate(columns))
        for name, columns in sorted(parts.items())
        if any(column.size for column in columns)
    }
    return Drift(version, learned_from, answers, indexes)


def _shares(bounds: Sequence[float], values: Float32) -> np.ndarray:
    """float64[bounds + 1]: the share of the values in each bin."""
    bins = np.searchsorted(np.array(bounds), values.astype(np.float64), side="left")
    return np.bincount(bins, minlength=len(bounds) + 1) / len(values)
