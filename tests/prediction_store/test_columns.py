"""Columns of texts and of categories, asked without a look at each text, against a look at each text."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from shop_store import MakeVersion

from prediction_store.columns import Categories, CategoryColumn, TextColumn, Texts, with_told
from prediction_store.reader import Version

LETTERS = ("a", "b", "\0", "é", "è", "€", "\uffff", "\U00010000", "\U0001f45f")
"""Of one to four bytes each in UTF-8; the order of the last three is another one in UTF-16."""
N_ITEMS = 60


def check_column(column: TextColumn | CategoryColumn, places: Iterable[int], wanted: set[str]) -> None:
    """Ask a column about some items, and then each of their texts."""
    indexes = np.fromiter(places, np.uint32)
    texts = column.texts(indexes)
    assert column.is_there(indexes).tolist() == [text != "" for text in texts]
    assert column.is_among(indexes, wanted).tolist() == [text != "" and text in wanted for text in texts], wanted


def test_columns_at_random_say_what_a_look_at_each_text_says(root: Path, make_version: MakeVersion) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)

    def word(least: int) -> str:
        return "".join(dice.choices(LETTERS, k=dice.randint(least, 4)))

    def words() -> list[str]:
        few = [word(0) for _ in range(dice.choice([1, 5, 40]))]
        return [dice.choice(few) if dice.random() < 0.8 else "" for _ in range(N_ITEMS)]

    for trial in range(8):
        ids: dict[str, None] = {}
        while len(ids) < N_ITEMS:
            ids[word(1)] = None
        columns = {"title": Texts(words()), "brand": Categories(words())}
        settings = {"n_items": N_ITEMS, "item_ids": [*ids], "columns": columns}
        with Version.open(root, make_version(f"trial {trial}", **settings)) as version:
            found = [version.column(name) for name in ("id", "title", "brand")]
            for column in found[1:]:
                missing = np.flatnonzero(~column.is_there(range(N_ITEMS))).tolist()
                told = {place: word(1) for place in missing if dice.random() < 0.5}
                found.append(with_told(column, told))
            for column in found:
                known = [*column.texts(range(N_ITEMS)), "\ud800", "no such"]
                for _ in range(60):
                    wanted = {*dice.choices(known, k=dice.randint(0, 5)), *(word(0) for _ in range(dice.randint(0, 2)))}
                    check_column(column, dice.choices(range(N_ITEMS), k=dice.choice([0, 1, 30, 90])), wanted)


@pytest.mark.parametrize(
    "texts",
    [
        [""] * 3,
        ["", "ab", ""],
        ["ab", "", "", "b"],
        ["i0001", "i0011", "i0101", "i1001", "i10011"],
        ["tennis", "tennis\0", "\0tennis", "tonnis", "TENNIS"],
        ["é" * 250, "é" * 249 + "è", "è" + "é" * 249],
    ],
)
def test_texts_that_look_alike_are_told_apart(texts: list[str]) -> None:
    encoded = [text.encode() for text in texts]
    column = TextColumn(b"".join(encoded), np.cumsum([0, *map(len, encoded)]))
    for wanted in ({text} for text in (*texts, "", "a", "\ud800")):
        check_column(column, range(len(texts)), wanted)
    check_column(column, range(len(texts)), {*texts})


def test_categories_are_found_at_both_ends_and_between(root: Path, make_version: MakeVersion) -> None:
    values = sorted(["a", "é", "\uffff", "\U00010000", "\U0001f45f"])
    brands = Categories(["", *values, *values[::-1], ""])
    with Version.open(root, make_version("a", columns={"brand": brands})) as version:
        column = version.column("brand")
        assert column.values == values
        for value in values:
            assert np.flatnonzero(column.is_among(range(12), {value})).tolist() == [
                place for place, text in enumerate(column.texts(range(12))) if text == value
            ]
        for value in ("", "A", "aa", "b", "\ud800", "\uffff\uffff", "\U0001f45e", "\U0001f45f\0", "\U0010ffff"):
            assert not column.is_among(range(12), {value}).any(), ascii(value)
            check_column(column, range(12), {value, values[0], values[-1]})
