"""The exact search against sorting every user's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop_store import MakeVersion

from prediction_store import exact_search
from prediction_store.exact_search import exact_recall
from prediction_store.reader import Version
from prediction_store.sample import read_lists, sample_users


def recall(root: Path, name: str) -> tuple[int, int, int]:
    with Version.open(root, name) as version:
        return tuple(exact_recall(version, read_lists(version, sample_users(version, 1000))))


def slow_recall(world: dict[str, Any]) -> tuple[int, int, int]:
    """By sorting: the scores are exact, for the vectors are small whole numbers."""
    found = wanted = users = 0
    scores = world["user_vectors"].astype(np.int64) @ world["vectors"].astype(np.int64).T
    for row, (user, stored) in enumerate(world["lists"].items()):
        allowed = [item for item in range(scores.shape[1]) if item not in world["consumed"].get(user, ())]
        best = sorted((int(scores[row, item]) for item in allowed), reverse=True)[: len(stored)]
        least = best[-1] if len(best) == len(stored) > 0 else -(10**9)
        found += sum(item in allowed and scores[row, item] >= least for item in stored)
        wanted += len(stored)
        users += len(stored) > 0
    return found, wanted, users


def draw(seed: int, *, users: int, items: int, quality: float) -> dict[str, Any]:
    """Users whose lists are partly the best items, partly chance; and some have consumed what is in them."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (items, 4)).astype(np.float32)
    user_vectors = rng.integers(-3, 4, (users, 4)).astype(np.float32)
    lists, consumed = {}, {}
    for row in range(users):
        length = int(rng.integers(0, items + 1))
        best = np.argsort(-(vectors @ user_vectors[row]), kind="stable")[:length]
        chance = rng.permutation(items)
        mixed = [int(good if rng.random() < quality else bad) for good, bad in zip(best, chance, strict=False)]
        lists[f"user-{row:03}"] = list(dict.fromkeys(mixed))
        if row % 3:
            consumed[f"user-{row:03}"] = sorted(map(int, rng.choice(items, rng.integers(0, items), replace=False)))
    return {"n_items": items, "vectors": vectors, "user_vectors": user_vectors, "lists": lists, "consumed": consumed}


@pytest.mark.parametrize("cells", [1 << 21, 64])
@pytest.mark.parametrize("quality", [1.0, 0.8, 0.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_counts_what_sorting_counts(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch, *, seed: int, quality: float, cells: int
) -> None:
    monkeypatch.setattr(exact_search, "MAX_CELLS", cells)
    monkeypatch.setattr(exact_search, "MAX_KEPT", cells)
    world = draw(seed, users=30, items=40, quality=quality)
    assert recall(root, make_version("a", **world)) == slow_recall(world)


def test_lists_of_the_best_items_have_them_all_and_ties_are_no_loss(root: Path, make_version: MakeVersion) -> None:
    vectors = np.array([[3, 0], [2, 0], [2, 0], [2, 0], [1, 0]], np.float32)
    world = {"n_items": 5, "vectors": vectors, "neighbours": np.zeros((5, 1), np.int32)}
    for second in (1, 2, 3):
        name = make_version(f"tie {second}", lists={"ann": [0, second]}, **world)
        assert recall(root, name) == (2, 2, 1)
    assert recall(root, make_version("worse", lists={"ann": [0, 4]}, **world)) == (1, 2, 1)


def with_more(seed: int, *, lost: int = 0) -> dict[str, Any]:
    """Lists of the best twenty by product, what is of late and what is the user's own; of each so many are lost."""
    rng = np.random.default_rng(seed)
    vectors, user_vectors = rng.normal(size=(200, 8)), rng.normal(size=(30, 8))
    recent = rng.exponential(1.0, 200) * (rng.random(200) < 0.2)
    lists, scores = {}, {}
    for row in range(30):
        own = (rng.random(200) < 0.05) * 4.0
        products = vectors @ user_vectors[row]
        # As in `jobs.list_order`: of the best by product, the most met of late and the user's own the best in all.
        found = {*np.argsort(-products)[:20], *np.argsort(-recent)[:15], *np.flatnonzero(own)}
        best = sorted(found, key=lambda item: -float((products + recent + own)[item]))
        kept = [int(item) for item in best if item not in np.argsort(-products)[:lost]][:20]
        lists[f"user-{row:02}"] = kept
        scores[f"user-{row:02}"] = (products + recent + own)[kept].tolist()
    columns = {"recent": recent.astype(np.float32)}
    return {
        "n_items": 200, "vectors": vectors.astype(np.float32), "user_vectors": user_vectors.astype(np.float32),
        "lists": lists, "scores": scores, "columns": columns,
    }  # fmt: skip


def test_what_gave_way_to_something_better_is_no_loss(root: Path, make_version: MakeVersion) -> None:
    for seed in range(3):
        assert recall(root, make_version(f"a{seed}", **with_more(seed))) == (600, 600, 30)
    world = with_more(0)
    products = world["user_vectors"] @ world["vectors"].T
    least = np.sort(products)[:, -20]
    others = [(products[row][items] < least[row]).sum() for row, items in enumerate(world["lists"].values())]
    assert sum(others) > 60, "one item in ten is not among the best by product"


def test_what_should_have_come_before_is_a_loss_however_long_the_rest(root: Path, make_version: MakeVersion) -> None:
    found, wanted, users = recall(root, make_version("a", **with_more(0, lost=3)))
    assert (wanted - found, users) == (90, 30), "three of the best by product are in no list, and would head it"
    world = with_more(1)
    del world["scores"]["user-00"][:], world["scores"]["user-00"]
    world["consumed"] = {user: items[:1] for user, items in world["lists"].items()}
    assert recall(root, make_version("b", **world))[0] < 600, "what may not be there takes somebody's place"


def test_rounding_is_no_loss(root: Path, make_version: MakeVersion) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(300, 64)).astype(np.float32)
    users = rng.normal(size=(4, 64)).astype(np.float32)
    exact = users.astype(np.float64) @ vectors.astype(np.float64).T
    lists = {f"user-{row}": np.argsort(-exact[row])[:100].tolist() for row in range(4)}
    name = make_version("a", n_items=300, vectors=vectors, user_vectors=users, lists=lists)
    assert recall(root, name) == (400, 400, 4)


def test_what_the_user_has_consumed_is_neither_wanted_nor_found(root: Path, make_version: MakeVersion) -> None:
    vectors = np.array([[4, 0], [3, 0], [2, 0], [1, 0]], np.float32)
    world = {"n_items": 4, "vectors": vectors, "consumed": {"ann": [0]}}
    assert recall(root, make_version("without it", lists={"ann": [1, 2]}, **world)) == (2, 2, 1)
    assert recall(root, make_version("with it", lists={"ann": [0, 1]}, **world)) == (1, 2, 1)


def test_of_a_large_catalogue_fewer_users_are_searched(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_search, "MAX_PRODUCTS", 24)
    assert recall(root, make_version("a"))[2] == 2


def test_without_lists_there_is_nothing_to_find(root: Path, make_version: MakeVersion) -> None:
    assert recall(root, make_version("a", lists={"ann": []})) == (0, 0, 0)
