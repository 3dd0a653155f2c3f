"""What signals look at: a version's columns and lists, at an hour and on a device, whoever asks and whatever for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prediction_store.reader import CategoryColumn
from reranker.forms import Column, Form, OfCode, OfItem, Together
from reranker.signal_inputs import Circumstances

if TYPE_CHECKING:
    from prediction_store.reader import Version

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
OF_CANDIDATES = ("price", "category", "brand")
"""Columns that a request asks about each candidate. They lie side by side, so that an item's are one look at memory."""


class Catalogue(NamedTuple):
    """The items of a version in the circumstances of a request, of which only hour, weekday and device matter."""

    version: Version
    at: Circumstances

    def column(self, name: str) -> Column:
        """float32 or float64[n_items]: a column of numbers."""
        if name in OF_CANDIDATES:
            return self._of_candidates[name]
        kept = self.version.kept
        found: Column | None = kept.get(f"column {name}")
        if found is None:
            found = self.version.column(name)
            if found.dtype not in FLOATS:
                found = found.astype(np.float32)
            kept[f"column {name}"] = found
        return found

    def of_item(self, name: str) -> Form | None:
        """The candidates' values in a column of numbers; None where the version is older than the column."""
        return OfItem(self.column(name)) if name in self.version.manifest.columns else None

    def affinity(self, column: str) -> Form:
        """Share of the session, by weight, that has the candidate's value in one of OF_CANDIDATES; 0 of no value."""
        values: CategoryColumn = self.version.column(column)
        return OfCode(self._of_candidates[column], len(values.values))

    def met_together(self, count: int) -> Form | None:
        """How often a candidate is met with the last `count` items of the session, on average by their weights.

        1 is always.
        """
        near = self.version.every_together
        return None if near is None else Together(near.items, near.scores, count)

    def in_context(self, kind: str, value: str) -> Form | None:
        """How much more often than usual a candidate is met in this context; None where nobody knows."""
        lifts = self.version.context(kind, value)
        return None if lifts is None else OfItem(lifts)

    @property
    def _of_candidates(self) -> dict[str, Column]:
        """Those of OF_CANDIDATES that the version has: float32 numbers, int32 codes."""
        kept = self.version.kept
        found: dict[str, Column] | None = kept.get(OF_CANDIDATES)
        if found is None:
            names = [name for name in OF_CANDIDATES if name in self.version.manifest.columns]
            found = kept[OF_CANDIDATES] = side_by_side({name: self.version.column(name) for name in names})
        return found


def side_by_side(columns: Mapping[str, CategoryColumn | Column]) -> dict[str, Column]:
    """The columns as those of one table, an item's values one after the other: float32 numbers, int32 codes."""
    arrays = {name: found.codes if isinstance(found, CategoryColumn) else found for name, found in columns.items()}
    kinds = [(name, np.int32 if isinstance(columns[name], CategoryColumn) else np.float32) for name in arrays]
    table = np.empty(max(map(len, arrays.values()), default=0), np.dtype(kinds))
    for name, values in arrays.items():
        table[name] = values
    return {name: table[name] for name in arrays}
