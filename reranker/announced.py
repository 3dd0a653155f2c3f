"""What is known of items that a version lacks, in the form of the version's columns: what the live facts say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import UNSET

from prediction_store.columns import ID
from prediction_store.reader import CategoryColumn, TextColumn
from reranker.conditions import Column
from reranker.rules import Effects, Rules
from schemas.live_items import TEXTS, ItemFacts

if TYPE_CHECKING:
    from prediction_store.reader import Version


TOLD: Final = {ID, "in_stock", "price", *TEXTS}
"""The columns that somebody can say."""


def effects_on(version: Version, items: Sequence[str], facts: Sequence[ItemFacts], rules: Rules) -> Effects:
    """What rules say of n items that the version lacks, and that are in stock.

    A rule leaves out what it cannot judge, because nobody has said what it asks for.
    """

    @cache
    def column(name: str) -> Column:
        return _column(version, items, facts, name)

    return rules.effects(column, np.arange(len(items), dtype=np.uint32), wants_all=True)


def impassable(rules: Rules) -> Iterator[tuple[str, str]]:
    """The rules that no such item passes, whatever is said of it: name, and a column that nobody can say."""
    for rule, condition in rules.rules:
        unknown = {*condition.columns} - TOLD
        if unknown and rule.action in ("exclude", "include"):
            yield rule.name, min(unknown)


def _column(version: Version, items: Sequence[str], facts: Sequence[ItemFacts], name: str) -> Column:
    """The column of that name, of the kind that it has in the version."""
    if name == "in_stock":
        return np.ones(len(items), np.bool_)
    if name == "price":
        return np.array([np.nan if said.price is UNSET else said.price for said in facts])
    of_version = version.column(name)
    if not isinstance(of_version, (CategoryColumn, TextColumn)):
        return np.full(len(items), np.nan)
    if name == ID:
        return _texts(items)
    found = [getattr(said, name) if name in TEXTS else UNSET for said in facts]
    texts = ["" if text is UNSET else text for text in found]
    return _texts(texts) if isinstance(of_version, TextColumn) else _categories(texts)


def _texts(texts: Sequence[str]) -> TextColumn:
    encoded = [text.encode() for text in texts]
    return TextColumn(b"".join(encoded), np.cumsum([0, *map(len, encoded)]))


def _categories(texts: Sequence[str]) -> CategoryColumn:
    code_of = {text: code for code, text in enumerate(sorted({text for text in texts if text}))}
    return CategoryColumn(np.array([code_of.get(text, -1) for text in texts], np.int32), [*code_of])
