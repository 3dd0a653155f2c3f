"""What some trials found: how many there were, what broke the promise, and the numbers that came beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
from msgspec import field

SHOWN_VIOLATIONS = 20
"""Violations that are kept in words; all are counted."""
STEPS_PER_E = 100
"""Buckets of a histogram per factor e: a percentile is right to one per cent."""


class Outcome(msgspec.Struct, kw_only=True):
    """What one batch of trials found; batches add up."""

    tried: int = 0
    violations: int = 0
    shown: list[str] = field(default_factory=list)
    """The first violations, in words."""
    counts: dict[str, int] = field(default_factory=dict)
    """Numbers that add up over batches."""
    highest: dict[str, float] = field(default_factory=dict)
    """Numbers of which the highest counts."""
    spreads: dict[str, dict[int, int]] = field(default_factory=dict)
    """Histograms of durations in microseconds, by bucket; see `percentile`."""

    def violate(self, what: str) -> None:
        """Note that the promise was broken."""
        self.violations += 1
        if len(self.shown) < SHOWN_VIOLATIONS:
            self.shown.append(what)

    def violate_each(self, problems: Iterable[str], where: str) -> None:
        """Note each problem, with the trial that found it."""
        for problem in problems:
            self.violate(f"{where}: {problem}")

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[name] = self.counts.get(name, 0) + number

    def raise_to(self, name: str, value: float) -> None:
        """Keep the highest value of a name."""
        self.highest[name] = max(value, self.highest.get(name, -math.inf))

    def spread(self, name: str, seconds: float) -> None:
        """Add a duration to a histogram."""
        buckets = self.spreads.setdefault(name, {})
        bucket = round(math.log(max(1e-6, seconds) * 1e6) * STEPS_PER_E)
        buckets[bucket] = buckets.get(bucket, 0) + 1

    def add(self, other: Outcome) -> None:
        """Add what another batch has found."""
        self.tried += other.tried
        self.violations += other.violations
        self.shown = [*self.shown, *other.shown][:SHOWN_VIOLATIONS]
        for name, number in other.counts.items():
            self.count(name, number)
        for name, value in other.highest.items():
            self.raise_to(name, value)
        for name, buckets in other.spreads.items():
            mine = self.spreads.setdefault(name, {})
            for bucket, number in buckets.items():
                mine[bucket] = mine.get(bucket, 0) + number

    def percentile(self, name: str, percent: float) -> float | None:
        """Seconds that `percent` of the durations of a name are not above; None: there are none."""
        buckets = self.spreads.get(name)
        if not buckets:
            return None
        left = math.ceil(sum(buckets.values()) * percent / 100)
        for bucket in sorted(buckets):
            left -= buckets[bucket]
            if left <= 0:
                return math.exp(bucket / STEPS_PER_E) / 1e6
        return None
