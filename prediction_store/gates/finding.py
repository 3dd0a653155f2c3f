"""What a gate has measured, and the outcome that its thresholds make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from prediction_store.gate_report import figure
from schemas.gate_config import OFF, AtLeast, AtMost, Limit
from schemas.gate_report import FAIL, PASS, WARN, Gate

NO_NUMBERS: Final[Mapping[str, float]] = MappingProxyType({})


class Finding(NamedTuple):
    """What a gate has found, before it is held against thresholds."""

    found: float | None
    note: str = ""
    numbers: Mapping[str, float] = NO_NUMBERS
    is_owed: bool = False
    """There is no number and should be one: that is beyond every threshold."""


def owed(note: str) -> Finding:
    """What should have been measured and was not."""
    return Finding(None, note, is_owed=True)


def incomparable(note: str) -> Finding:
    """There is nothing to measure, or nothing to compare with: no reason to refuse."""
    return Finding(None, note)


def ratio(found: float | None, other: float | None, *, missing: str, alone: str) -> Finding:
    """A number as a ratio to another one.

    Args:
        missing: why there may be no number. alone: why there may be no other one.
    """
    if other is None:
        return incomparable(alone)
    if found is None:
        return owed(missing)
    if other <= 0:
        return incomparable(f"nothing to compare {figure(found)} with: the other number is zero")
    return Finding(found / other, f"{figure(found)} against {figure(other)}")


def judge(name: str, finding: Finding, limits: AtLeast | AtMost) -> Gate:
    """The gate's entry in the report."""
    if finding.found is not None and not math.isfinite(finding.found):
        finding = owed(f"what was measured is not a number: {finding.found}")
    is_upper = isinstance(limits, AtMost)
    warn, fail = _threshold(limits.warn), _threshold(limits.fail)
    outcome = PASS
    for threshold, word in ((warn, WARN), (fail, FAIL)):
        if threshold is not None and _is_beyond(finding, threshold, is_upper=is_upper):
            outcome = word
    return Gate(
        name=name,
        outcome=outcome,
        found=finding.found,
        is_upper=is_upper,
        warn=warn,
        fail=fail,
        note=finding.note,
        numbers=dict(finding.numbers),
    )


def _threshold(limit: Limit) -> float | None:
    return None if limit == OFF else float(limit)


def _is_beyond(finding: Finding, threshold: float, *, is_upper: bool) -> bool:
    if finding.found is None:
        return finding.is_owed
    return finding.found > threshold if is_upper else finding.found < threshold
