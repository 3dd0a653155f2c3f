"""The numbers of the report: what is said of each ranking, of the differences between them, and of each segment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.evaluation.bootstrap import intervals
from jobs.evaluation.exposure import exposure
from jobs.evaluation.held_out import HeldOut
from jobs.evaluation.judged import Judged, band_columns, columns
from jobs.evaluation.segments import BANDS, TAIL, activity_bands

DIGITS = 6
OURS = "ours"
COVERAGE_AT = "100"

Columns = Mapping[tuple[str, int], np.ndarray]
"""(measure, length of list) to float64[users], NaN for a user who does not count."""


def measured(values: Columns) -> dict[str, Any]:
    """The means by measure and length of list, and under `intervals` each one's interval; null where nobody counts.

    In the order of the users, added one by one, so that the last digit is always the same.
    """
    found: dict[str, Any] = {}
    table = np.stack(list(values.values()), axis=1)
    counts = (~np.isnan(table)).sum(axis=0)
    means = np.nan_to_num(table).sum(axis=0) / np.maximum(counts, 1)
    for (measure, k), mean, count in zip(values, means, counts, strict=True):
        found.setdefault(measure, {})[str(k)] = round(float(mean), DIGITS) if count else None
    found["intervals"] = {}
    for (measure, k), ends in zip(values, intervals(table), strict=True):
        both = None if np.isnan(ends).any() else [round(float(end), DIGITS) for end in ends]
        found["intervals"].setdefault(measure, {})[str(k)] = both
    return found


def said_of(judged: Judged, held_out: HeldOut) -> dict[str, Any]:
    """Everything about one ranking by itself."""
    shown = exposure(judged, held_out)
    tail = measured(band_columns(judged.rows, TAIL))
    return {
        **measured(columns(judged.rows)),
        "coverage": shown["coverage"][COVERAGE_AT] if len(judged.rows) else None,
        "exposure": shown | {"long_tail_recall": tail["recall"]},
    }


def difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Our measures less theirs, user by user, over the users whom both were judged on; both ROW arrays."""
    users, here, there = np.intersect1d(ours["user"], theirs["user"], assume_unique=True, return_indices=True)
    a, b = columns(ours[here]), columns(theirs[there])
    return {"users": len(users)} | measured({key: a[key] - b[key] for key in a})


def segments(ours: Judged, held_out: HeldOut) -> dict[str, list[dict[str, Any]]]:
    """The segments with what is in each; `add_to_segments` says how the rankings do there."""
    rows = ours.rows
    users = []
    for band in activity_bands(rows["known"]):
        is_in = (rows["known"] >= band.low) & (rows["known"] <= band.high)
        facts = {"users": int(is_in.sum()), "interactions": int(rows["wanted"][is_in].sum())}
        users.append({"name": band.name, "low": band.low, "high": band.high} | facts)
    items = []
    for number, name in enumerate(BANDS):
        wanted = rows["wanted_in"][:, number]
        facts = {"users": int((wanted > 0).sum()), "interactions": int(wanted.sum())}
        items.append({"name": name, "items": int((held_out.band_of == number).sum())} | facts)
    return {"users": users, "items": items}


def add_to_segments(found: dict[str, list[dict[str, Any]]], name: str, rows: np.ndarray) -> None:
    """Add the recall of a ranking to each segment, as `name`; a user who wanted nothing there is not counted."""
    for segment in found["users"]:
        own = rows[(rows["known"] >= segment["low"]) & (rows["known"] <= segment["high"])]
        values = columns(own)
        kept = {key: values[key] for key in band_columns(own, 0)}
        segment[name] = {"users": len(own)} | measured(kept)
    for number, segment in enumerate(found["items"]):
        values = band_columns(rows, number)
        segment[name] = {"users": int((rows["wanted_in"][:, number] > 0).sum())} | measured(values)
