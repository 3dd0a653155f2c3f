"""The content-only lists against a slow loop over dictionaries of words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import datasets
from jobs.evaluation import content
from jobs.evaluation.held_out import HeldOut, read_held_out
from schemas import tables

WORDS = ("red", "Blue", "green", "shirt", "boot", "sandal", "wool", "linen")


def write_world(make_world: Callable[..., Any], folder: Path, texts: list[tuple[str, str, str]], **facts: Any) -> Any:
    """A world whose items have these titles, categories and brands."""
    world = make_world(items=len(texts), texts=texts, **facts)
    world.write(folder)
    return world


DAY = "2026-03-02"


def held_out_of(folder: Path, items: int, *, drop: bool = True) -> HeldOut:
    """The dense order is that of the items turned around."""
    prepared = datasets.open_dataset(folder, DAY, "prepared")
    return read_held_out(prepared, np.arange(items, dtype=np.int32)[::-1], drop_consumed=drop)


def slow_lists(world: Any, texts: list[tuple[str, str, str]], users: list[int]) -> dict[int, dict[int, float]]:
    """The score of every item that each user may be offered, best first, ties by popularity."""
    terms = []
    for title, category, brand in texts:
        found = [f"w {word}" for word in re.findall(r"\w+", title.casefold())]
        terms.append(Counter(found + [f"c {category}"] * bool(category) + [f"b {brand}"] * bool(brand)))
    having = Counter(term for item in terms for term in item)
    vectors = []
    for item in terms:
        vector = {term: count * math.log(len(texts) / having[term]) for term, count in item.items()}
        length = math.sqrt(sum(weight**2 for weight in vector.values()))
        vectors.append({term: weight / length for term, weight in vector.items()} if length else {})
    known = Counter(event[1] for event in world.events if event[5] != tables.TEST)
    popular = sorted(range(world.items), key=lambda item: (-known[item], item))
    lists = {}
    for user in users:
        profile: Counter[str] = Counter()
        for who, item, weight, _, _, split in world.events:
            if who == user and split != tables.TEST:
                for term, value in vectors[item].items():
                    profile[term] += weight * value  # type: ignore[assignment]
        total = sum(e[2] for e in world.events if e[0] == user and e[5] != tables.TEST) or 1.0
        score = [sum(profile[term] / total * value for term, value in vector.items()) for vector in vectors]
        left_out = world.consumed(user, before_test=True)
        best_first = sorted(popular, key=lambda item: -round(score[item], 9))
        lists[user] = {item: score[item] for item in best_first if item not in left_out}
    return lists


@pytest.mark.parametrize("cells", [1, 500, 1 << 22])
def test_the_lists_are_those_of_a_loop(
    make_world: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(content, "MAX_CELLS", cells)
    dice = np.random.default_rng(2)
    texts = [
        (
            " ".join(dice.choice(WORDS, dice.integers(0, 5))),
            str(dice.choice(["", "a", "b"])),
            str(dice.choice(["", "x"])),
        )
        for _ in range(40)
    ]
    world = write_world(make_world, tmp_path, texts, users=15, seed=4)
    held_out = held_out_of(tmp_path, world.items)
    prepared = datasets.open_dataset(tmp_path, DAY, "prepared")
    vectors = content.read_vectors(prepared, held_out)
    assert vectors is not None
    users = np.array(world.judged())
    expected = slow_lists(world, texts, users.tolist())
    found = {}
    for part, lists in content.content_lists(prepared, held_out, vectors, users):
        found |= {
            int(user): [world.items - 1 - item for item in row if item >= 0]
            for user, row in zip(part, lists, strict=True)
        }
    assert found.keys() == expected.keys()
    for user, items in found.items():
        score = expected[user]
        assert sorted(items) == sorted(score)
        # The fast path rounds its weights: what is equal to four digits may change places, what has nothing may not.
        np.testing.assert_allclose([score[item] for item in items], list(score.values()), atol=2e-4)
        nothing = [item for item in score if score[item] == 0]
        assert items[len(items) - len(nothing) :] == nothing


def test_a_user_without_a_history_gets_the_popularity_order(make_world: Callable[..., Any], tmp_path: Path) -> None:
    end = datasets.end_of(DAY)
    events = [(0, item, 1.0, end - 300_000 - n, False, tables.TRAIN) for item in range(4) for n in range(item)]
    events.append((1, 0, 1.0, end - 60, False, tables.TEST))
    texts = [("red boot", "", ""), ("red shirt", "", ""), ("blue shirt", "", ""), ("", "", "")]
    write_world(make_world, tmp_path, texts, users=2, events=events)
    held_out = held_out_of(tmp_path, 4)
    prepared = datasets.open_dataset(tmp_path, DAY, "prepared")
    vectors = content.read_vectors(prepared, held_out)
    assert vectors is not None
    [(_, lists)] = content.content_lists(prepared, held_out, vectors, np.array([1]))
    assert (3 - lists[0]).tolist() == [3, 2, 1, 0]
    [(_, lists)] = content.content_lists(prepared, held_out, vectors, np.array([0]))
    assert (3 - lists[0]).tolist() == [2, 1, 0, 3], "the history is of shirts, and most of it blue"


@pytest.mark.parametrize("texts", [[("", "", "")] * 3, [("same words", "same", "")] * 3])
def test_words_that_tell_no_two_items_apart_are_none(
    make_world: Callable[..., Any], tmp_path: Path, texts: list[tuple[str, str, str]]
) -> None:
    end = datasets.end_of(DAY)
    write_world(make_world, tmp_path, texts, users=1, events=[(0, 0, 1.0, end - 60, False, tables.TEST)])
    prepared = datasets.open_dataset(tmp_path, DAY, "prepared")
    assert content.read_vectors(prepared, held_out_of(tmp_path, 3)) is None


def test_of_many_users_the_same_some_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = content.Vectors(np.array([0, 3]), np.arange(3), np.ones(3), 3)
    users = np.arange(100, 400)
    assert content.sample_users(users, vectors).tolist() == users.tolist()
    monkeypatch.setattr(content, "MAX_USERS", 50)
    some = content.sample_users(users, vectors)
    assert len(set(some.tolist())) == 50
    assert some.tolist() == sorted(some) == content.sample_users(users, vectors).tolist()
    monkeypatch.setattr(content, "MAX_SCORED", 60)
    assert len(content.sample_users(users, vectors)) == 20
