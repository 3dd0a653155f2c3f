"""Conditions of rules, each as its text and as what it says in plain Python of what is known of an item."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from combinations.worlds import BRANDS, CATEGORIES, MADE_AT

Row = Mapping[str, Any]
"""What is known of an item, by the name of the column; None: nothing."""


class Meant(NamedTuple):
    """A condition that is tried by hand."""

    text: str
    columns: frozenset[str]
    holds: Callable[[Row], bool]


def draw_condition(dice: random.Random, depth: int = 0) -> Meant:
    """A condition of up to three columns; some name what no version has."""
    if depth < 2 and dice.random() < 0.3:
        left, right = draw_condition(dice, depth + 1), draw_condition(dice, depth + 1)
        columns = left.columns | right.columns
        if dice.random() < 0.5:
            return Meant(f"({left.text} or {right.text})", columns, lambda row: left.holds(row) or right.holds(row))
        return Meant(f"({left.text} and {right.text})", columns, lambda row: left.holds(row) and right.holds(row))
    if dice.random() < 0.15:
        inner = draw_condition(dice, depth + 1)
        return Meant(f"not {inner.text}", inner.columns, lambda row: not inner.holds(row))
    return dice.choice((_of_texts, _of_texts, _of_number, _of_number, _set))(dice)


def _of_texts(dice: random.Random) -> Meant:
    ids = [*(f"i{n:02}" for n in range(1, 12)), "new 0", "new 3"]
    name, values = dice.choice((("category", CATEGORIES[1:]), ("brand", BRANDS[1:]), ("id", ids)))
    few = dice.sample([*values, *(() if name == "id" else ("of no version",))], 2)
    text = f"[{few[0]!r}, {few[1]!r}]"
    one = few[0]
    return dice.choice((
        _about(name, f"{name} == {one!r}", lambda value: value == one),
        _about(name, f"{name} != {one!r}", lambda value: value != one),
        _about(name, f"{name} in {text}", lambda value: value in few),
        _about(name, f"{name} not in {text}", lambda value: value not in few),
    ))  # fmt: skip


def _of_number(dice: random.Random) -> Meant:
    name = dice.choice(("price", "price", "price", "released", "popularity", "trend", "recent", "margin"))
    if name == "released":
        bound: float = MADE_AT + dice.randint(-20, 1) * 86_400
    else:
        bound = dice.randint(0, 40) / 4 if name == "price" else dice.randint(0, 8) / 8
    return dice.choice((
        _about(name, f"{name} < {bound}", lambda value: value < bound),
        _about(name, f"{bound} <= {name}", lambda value: value >= bound),
        _about(name, f"{name} == {bound}", lambda value: value == bound),
        _about(name, f"{name} != {bound}", lambda value: value != bound),
    ))  # fmt: skip


def _set(dice: random.Random) -> Meant:
    name = dice.choice(("in_stock", "category", "title", "price", "trend"))
    return _about(name, name, bool)


def _about(name: str, text: str, test: Callable[[Any], bool]) -> Meant:
    return Meant(text, frozenset({name}), lambda row: row.get(name) is not None and test(row[name]))
