"""The numbers of the report: what is said of each ranking, of the differences between them, and of each segment."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jobs.evaluation.bootstrap import Bootstrap
from jobs.evaluation.exposure import exposure
from jobs.evaluation.held_out import HeldOut
from jobs.evaluation.judged import Judged, band_columns, columns, segment_columns
from jobs.evaluation.segments import BANDS, TAIL, activity_bands

DIGITS = 6
OURS = "ours"
COVERAGE_AT = "100"

Columns = Mapping[tuple[str, int], np.ndarray]
"""(measure, length of list) to float64[users], NaN for a user who does not count."""


class Summary:
    """Numbers of a report that wait for the one pass over the users in which all means and intervals are found.

    What waits stands as null where it belongs, so that the order of the report is the order of the questions.
    """

    def __init__(self, users: np.ndarray) -> None:
        """`users` is int[n], ascending: everybody who is judged."""
        self._bootstrap = Bootstrap(users)
        self._waiting: list[tuple[dict[str, Any], list[tuple[str, int]]]] = []

    def ask(self, into: dict[str, Any], users: np.ndarray, columns_of: Callable[[slice], Columns]) -> None:
        """Have means put into a report by measure and length of list, and under `intervals` the interval of each."""
        names = list(columns_of(slice(0, 0)))
        intervals: dict[str, Any] = {}
        for measure, k in names:
            for place in (into, intervals):
                place.setdefault(measure, {})[str(k)] = None
        into["intervals"] = intervals  # behind the measures
        self._bootstrap.ask(users, lambda own: np.stack(list(columns_of(own).values()), axis=1))
        self._waiting.append((into, names))

    def fill(self) -> None:
        """Find all numbers that wait; null stays where nobody counts."""
        for (into, names), answer in zip(self._waiting, self._bootstrap.answers(), strict=True):
            for (measure, k), mean, ends in zip(names, answer.means, answer.ends, strict=True):
                if not np.isnan(mean):
                    into[measure][str(k)] = round(float(mean), DIGITS)
                if not np.isnan(ends).any():
                    into["intervals"][measure][str(k)] = [round(float(end), DIGITS) for end in ends]


def said_of(summary: Summary, judged: Judged, held_out: HeldOut) -> dict[str, Any]:
    """Everything about one ranking by itself."""
    rows = judged.rows
    found: dict[str, Any] = {}
    _ask(summary, found, rows, columns)
    shown = exposure(judged, held_out)
    found["coverage"] = shown["coverage"][COVERAGE_AT] if len(rows) else None
    tail: dict[str, Any] = {}
    _ask(summary, tail, rows, functools.partial(band_columns, band=TAIL))
    found["exposure"] = shown | {"long_tail_recall": tail["recall"]}
    return found


def difference(summary: Summary, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Our measures less theirs, user by user, over the users whom both were judged on; both ROW arrays."""
    users, here, there = np.intersect1d(ours["user"], theirs["user"], assume_unique=True, return_indices=True)

    def less(own: slice) -> Columns:
        a, b = columns(ours[here[own]]), columns(theirs[there[own]])
        return {key: a[key] - b[key] for key in a}

    found: dict[str, Any] = {"users": len(users)}
    summary.ask(found, users, less)
    return found


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


def add_to_segments(summary: Summary, found: dict[str, list[dict[str, Any]]], name: str, rows: np.ndarray) -> None:
    """Add the recall of a ranking to each segment, as `name`; a user who wanted nothing there is not counted."""
    for segment in found["users"]:
        part = rows[(rows["known"] >= segment["low"]) & (rows["known"] <= segment["high"])]
        segment[name] = {"users": len(part)}
        _ask(summary, segment[name], part, segment_columns)
    for number, segment in enumerate(found["items"]):
        segment[name] = {"users": int((rows["wanted_in"][:, number] > 0).sum())}
        _ask(summary, segment[name], rows, functools.partial(band_columns, band=number))


def _ask(summary: Summary, into: dict[str, Any], rows: np.ndarray, columns_of: Callable[[np.ndarray], Columns]) -> None:
    """Ask for the means of columns that are computed from a ROW array."""
    summary.ask(into, rows["user"], lambda own: columns_of(rows[own]))
