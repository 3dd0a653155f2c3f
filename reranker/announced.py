"""What is known of items that a version lacks, in the form of the version's columns: what the live facts say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET

from prediction_store.columns import ID
from prediction_store.reader import CategoryColumn, TextColumn
from reranker.arrays import Mask
from reranker.conditions import Column
from reranker.rules import Effects, Rules
from schemas.live_items import TEXTS, ItemFacts

if TYPE_CHECKING:
    from prediction_store.reader import Version


@dataclass(frozen=True, slots=True)
class Announced:
    """Some items, and what is set for them: they are in stock and not hidden."""

    version: Version
    """It lacks them."""
    items: Sequence[str]
    facts: Sequence[ItemFacts]

    def effects(self, rules: Rules) -> Effects:
        """What rules say of them. A rule leaves out what it cannot judge, because nobody has said what it asks for."""
        return rules.effects(self.column, np.arange(len(self.items), dtype=np.uint32), self.is_known)

    def column(self, name: str) -> Column:
        """A column that the version has."""
        if name == "in_stock":
            return np.ones(len(self.items), np.bool_)
        if name == "price":
            return np.array([np.nan if facts.price is UNSET else facts.price for facts in self.facts])
        found = self.version.column(name)
        if isinstance(found, (CategoryColumn, TextColumn)):
            texts = self._texts(name)
            return _texts(texts) if isinstance(found, TextColumn) else _categories(texts)
        return np.full(len(self.items), np.nan)

    def is_known(self, name: str) -> Mask:
        """bool[n]: whether anybody has said what is in a column."""
        if name in ("in_stock", ID):
            return np.ones(len(self.items), np.bool_)
        if name == "price":
            return np.array([facts.price is not UNSET for facts in self.facts], np.bool_)
        return np.array([text != "" for text in self._texts(name)], np.bool_)

    def _texts(self, name: str) -> list[str]:
        if name == ID:
            return [*self.items]
        found = [getattr(facts, name) if name in TEXTS else UNSET for facts in self.facts]
        return ["" if text is UNSET else text for text in found]


def _texts(texts: list[str]) -> TextColumn:
    encoded = [text.encode() for text in texts]
    return TextColumn(b"".join(encoded), np.cumsum([0, *map(len, encoded)]))


def _categories(texts: list[str]) -> CategoryColumn:
    code_of = {text: code for code, text in enumerate(dict.fromkeys(text for text in texts if text))}
    return CategoryColumn(np.array([code_of.get(text, -1) for text in texts], np.int32), [*code_of])
