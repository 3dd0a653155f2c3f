"""Caps count what the version has and what was announced together, and equal a slow count."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np

from reranker.caps import Cap, Caps
from schemas.live_items import ItemFacts

VALUES = ["acme", "emca", "äcme"]
CODES = np.array([0, 0, 1, 2, -1, 0, 1], np.int32)


def announced(brand: str) -> ItemFacts:
    return ItemFacts(changed_at=0.0, brand=brand) if brand else ItemFacts(changed_at=0.0)


def test_what_was_announced_counts_for_the_version_and_the_other_way_round() -> None:
    caps = Caps([Cap(CODES, 2, "brand", VALUES)])
    assert caps.take(announced("acme"))
    assert caps.allow(0)
    caps.add(0)
    assert (caps.allow(1), caps.take(announced("acme")), caps.allow(2)) == (False, False, True)
    assert [caps.take(announced("of no version")) for _ in range(3)] == [True, True, False]
    assert all(caps.take(announced("")) for _ in range(5)), "nobody has said what it is"


def test_where_an_answer_begins_anew_only_its_arrivals_are_counted() -> None:
    caps = Caps([Cap(CODES, 2, "brand", VALUES)])
    for _ in range(3):  # rungs that have given nothing
        caps.begin_with([announced("acme"), announced("of no version")])
        assert caps.allow(0)
    assert caps.among([announced("acme")] * 3, 9) == [0, 1], "alone"
    caps.add(0)
    assert not caps.allow(1)


def test_what_one_cap_refuses_does_not_count_for_another() -> None:
    caps = Caps([Cap(CODES, 1, "brand", VALUES), Cap(CODES, 2, "category", VALUES)])
    hats = [ItemFacts(changed_at=0.0, category="emca", brand=brand) for brand in ("acme", "acme", "emca", "äcme")]
    assert caps.among(hats, 9) == [0, 2]
    assert caps.among(hats, 1) == [0]
    assert [*Caps([]).among(hats, 2)] == [0, 1]


def test_the_first_that_fit_are_those_that_fit_one_by_one() -> None:
    caps = Caps([Cap(CODES, 1, "brand", VALUES)])
    assert caps.add_first([0, 1, 4, 2, 4, 5, 6, 3], 4) == [0, 2, 3, 4]
    assert caps.add_first([0, 3, 1], 9) == [1], "they count on"
    assert caps.add_first([4], 0) == []


def test_caps_at_random_equal_a_slow_count() -> None:
    for seed in range(50):
        dice = random.Random(seed)
        most, seen = dice.randint(1, 3), Counter[str]()
        caps = Caps([Cap(CODES, most, "brand", VALUES)])
        for _ in range(20):
            item, brand = dice.randrange(len(CODES)), dice.choice([*VALUES, "", "of no version"])
            is_of_version = dice.random() < 0.5
            value = ("" if CODES[item] < 0 else VALUES[CODES[item]]) if is_of_version else brand
            allowed = not value or seen[value] < most
            if is_of_version:
                assert caps.allow(item) == allowed, seed
                if allowed:
                    caps.add(item)
            else:
                assert caps.take(announced(brand)) == allowed, seed
            seen[value] += allowed
