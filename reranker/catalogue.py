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
    """The items of a version in the circumstances of a request: of these only hour, weekday, device and what is
    trending matter."""

    version: Version
    at: Circumstances

    def column(self, name: str) -> Column | None:
        """float32 or float64[n_items]: a column of numbers; None where the version has no such one."""
        numbers = self.version.numbers(name)
        if numbers is None:
            return None
        if name in OF_CANDIDATES:
            return self._of_candidates[name]
        kept = self.version.kept
        found: Column | None = kept.get(f"column {name}")
        if found is None:
            found = numbers if numbers.dtype in FLOATS else numbers.astype(np.float32)
            kept[f"column {name}"] = found
        return found

    def of_item(self, name: str) -> Form | None:
        """The candidates' values in a column of numbers; None where the version has no such one."""
        column = self.column(name)
        return None if column is None else OfItem(column)

    def affinity(self, name: str) -> Form | None:
        """Share of the session, by weight, that has the candidate's value in one of OF_CANDIDATES; 0 of no value.

        None where the version has no such column of categories.
        """
        column = self.version.categories(name)
        return None if column is None else OfCode(self._of_candidates[name], len(column.values))

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
            version = self.version
            columns = version.numbers("price"), version.categories("category"), version.categories("brand")
            named = zip(OF_CANDIDATES, columns, strict=True)
            found = side_by_side({name: column for name, column in named if column is not None})
            kept[OF_CANDIDATES] = found
        return found


def side_by_side(columns: Mapping[str, CategoryColumn | Column]) -> dict[str, Column]:
    """The columns as those of one table, an item's values one after the other: float32 numbers, int32 codes."""
    arrays = {name: found.codes if isinstance(found, CategoryColumn) else found for name, found in columns.items()}
    kinds = [(name, np.int32 if isinstance(columns[name], CategoryColumn) else np.float32) for name in arrays]
    table = np.empty(max(map(len, arrays.values()), default=0), np.dtype(kinds))
    for name, values in arrays.items():
        table[name] = values
    return {name: table[name] for name in arrays}
