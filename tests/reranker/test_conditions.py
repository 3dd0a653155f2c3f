"""Conditions against a slow reading of the same text by Python itself, and what is said of those that are none."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from serving_shop import N_ITEMS, Shop

from prediction_store.reader import Version
from reranker.conditions import MOST_CHARACTERS, parse
from reranker.errors import ConditionError

ALL = np.arange(N_ITEMS, dtype=np.uint32)


@pytest.fixture(scope="module")
def version(stocked_shop: Shop) -> Iterator[Version]:
    with Version.open(stocked_shop.root, stocked_shop.current()) as opened:
        yield opened


def holding(version: Version, text: str) -> list[int]:
    return np.flatnonzero(parse(text).holds(version.column, ALL)).tolist()


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("price < 4", [0, 1, 2]),
        ("4 > price", [0, 1, 2]),
        ("2 < price <= 4", [2, 3]),
        ("price == 5 or price == 7", [4, 6]),
        ("not in_stock", [5]),
        ("in_stock and price < 7 and price >= 5", [4]),
        ('category == "category 1"', [10, 11, 12, 14, 15, 16, 17, 18, 19]),
        ('category == "category 0" and category != "category 0"', []),
        ('category in ["category 3", "no such"] and price > 38', [38, 39]),
        ('category not in ("category 0", "category 1", "category 2") and price > 38', [38, 39]),
        ('title == "Title of a07"', [7]),
        ('title != "Title of a07" and price > 6 and price < 10', [6, 8]),
        ('title and id in ["a12", "a07", "a7", "a070", "é", "\\ud800", ""]', [7, 12]),
        ('id not in ["a00", "a01"] and price < 5', [2, 3]),
        ("price in [1, 3]", [0, 2]),
        ("price in []", []),
        ("trend in [0.2, 0.6] and price < 11", [1, 3, 7, 9]),
        ("trend < 1e300 and price > -1e300 and price < 3", [0, 1]),
        ("price > -1 and price < 2", [0]),
        ("True and price < 2", [0]),
        ("(price < 3 or price > 38) and not (price == 1)", [1, 38, 39]),
    ],
)
def test_a_condition_holds_for_these_items(version: Version, text: str, items: list[int]) -> None:
    assert holding(version, text) == items


def test_what_is_missing_agrees_with_nothing(version: Version) -> None:
    """Items 6, 13, … have no category; items 0, 5, … no date of release."""
    assert 6 not in holding(version, 'category == "category 0"')
    assert 6 not in holding(version, 'category != "category 0"')
    assert 6 not in holding(version, 'category not in ["category 1"]')
    assert holding(version, "not category") == list(range(6, N_ITEMS, 7))
    assert not set(holding(version, "released > 0 or released <= 0 or released != 1")) & set(range(0, N_ITEMS, 5))


def test_conditions_at_random_say_what_python_says(version: Version) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    dice = random.Random(seed)
    prices, trends = version.column("price"), version.column("trend")
    categories = version.column("category").texts(ALL)

    def made(depth: int) -> str:
        if depth == 0 or dice.random() < 0.2:
            number = dice.choice([0, 0.2, 0.4, 5, 11, 20, 39])
            return dice.choice(
                [
                    f"{dice.choice(['price', 'trend'])} {dice.choice(['<', '<=', '>', '>=', '==', '!='])} {number}",
                    f"{number} <= price < {dice.randrange(40)}",
                    f'category == "category {dice.randrange(4)}"',
                    f"price in [{number}, {dice.randrange(40)}]",
                ]
            )
        if dice.random() < 0.2:
            return f"not ({made(depth - 1)})"
        return f"({made(depth - 1)}) {dice.choice(['and', 'or'])} ({made(depth - 1)})"

    for _ in range(300):
        text = made(dice.randrange(4))
        by_hand = [
            item
            for item in range(N_ITEMS)
            if eval(text, {}, {"price": prices[item], "trend": trends[item], "category": categories[item]})
        ]
        assert holding(version, text) == by_hand, text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", 1),
        ("price <", 8),
        ("price = 3", 7),
        ("price < 3 and __import__('os')", 15),
        ("price + 1 < 3", 1),
        ("price < other", 9),
        ("1 < 2", 1),
        ("price.real < 2", 1),
        ("price < 3 if in_stock else True", 1),
        ("[c for c in price]", 1),
        ("category is 'a'", 1),
        ("(lambda: 1)()", 1),
        ("price < 3j", 9),
        ("price in (x, 1)", 11),
        ("price\0 < 1", 11),
        ("   category = 3", 13),
        ("  price < cost  ", 11),
        ("  price <  ", 10),
        ("éééé == 1 and 3", 15),
        ("'éé' == price and brand = 3", 25),
        ("(price < 1 and\n  3)", 18),
        ("\n (é == 1 and\r\n é == 2 and\r 'é' < )", 35),
        ("price < 1\n and 2", 11),
        ("price < -" + "9" * 400, 9),
        ("price in [1, " + "9" * 400 + "]", 14),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str, place: int) -> None:
    with pytest.raises(ConditionError, match=f"character {place}:"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500 + "price" + ")" * 500,
        "not " * 900 + "price",
        "price < 1 and " * 140 + "price",
        "a" * (MOST_CHARACTERS + 1),
    ],
)
def test_a_condition_too_large_to_be_one_is_refused(text: str) -> None:
    with pytest.raises(ConditionError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        'price < "3"',
        'category < "b"',
        'price == "3"',
        'price in [3, "4"]',
        "category == 5",
        "category != 5",
        'category not in ["b", 5]',
        "title == 5",
    ],
)
def test_a_column_compared_with_what_it_is_not_tells_so_whatever_the_items(version: Version, text: str) -> None:
    with pytest.raises(ConditionError, match="condition"):
        parse(text).holds(version.column, ALL[:0])


def test_the_columns_of_a_condition_are_known() -> None:
    assert parse('price < 3 and (brand == "x" or not in_stock)').columns == ("brand", "in_stock", "price")
