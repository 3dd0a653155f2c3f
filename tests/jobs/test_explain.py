"""What content says of ids at the start: against a dense ridge regression, and without moving what is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from blocks_shop import COLD_ITEMS, DAY, ITEMS, small_config, write_prepared

from jobs import datasets, task
from jobs.explain import MOST_WEIGHT, RIDGE, explain_ids
from jobs.features import item_features, learn_encoding
from jobs.towers import Architecture, ItemTensors, TwoTowers

D = 16


@pytest.fixture
def shop(tmp_path: Path) -> tuple[TwoTowers, ItemTensors, np.ndarray]:
    """Towers of the blocks with random ids, the items, and how often each was met."""
    config = small_config(tmp_path)
    write_prepared(config)
    prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    items, users = (task.read_sorted(prepared.part(f"{noun}s"), f"{noun}_index") for noun in ("item", "user"))
    encoding = learn_encoding(items, users, made_at=0, title_buckets=64)
    torch.manual_seed(3)
    shape = Architecture(items=len(items), users=len(users), dimensions=D, history_length=8, encoding=encoding)
    towers = TwoTowers(shape).eval()
    return towers, ItemTensors.of(item_features(items, encoding)), items["interactions"].to_numpy()


def dense(towers: TwoTowers, items: ItemTensors) -> np.ndarray:
    """All that the tower reads beside the ids as one matrix, by one-hot columns."""
    item, n = towers.item, len(items.ids)
    categories, brands = np.zeros((n, len(item.category.weight))), np.zeros((n, len(item.brand.weight)))
    words = np.zeros((n, len(item.words.weight)))
    for row in range(n):
        categories[row, items.categories[row]] = items.categories[row] > 0
        brands[row, items.brands[row]] = items.brands[row] > 0
        read = [int(word) for word in items.words[row] if word > 0]
        for word in read:
            words[row, word] += 1 / len(read)
    return np.hstack([categories, brands, words, items.numbers.numpy(), np.ones((n, 1))])


def test_no_item_that_is_met_moves(shop: tuple[TwoTowers, ItemTensors, np.ndarray]) -> None:
    towers, items, counts = shop
    with torch.no_grad():
        before = towers.item(items)
        explain_ids(towers.item, items, counts)
        after = towers.item(items)
    np.testing.assert_allclose(after[counts > 0], before[counts > 0], atol=1e-6)
    assert (towers.item.id.weight[0] == 0).all()
    assert (towers.item.words.weight[0] == 0).all()


def test_the_content_says_what_a_dense_ridge_regression_finds(
    shop: tuple[TwoTowers, ItemTensors, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    towers, items, counts = shop
    monkeypatch.setattr("jobs.explain.CHUNK", 7)
    read, weights = dense(towers, items), np.sqrt(np.minimum(counts, MOST_WEIGHT))[:, None]
    with torch.no_grad():
        target = (towers.item.id.weight[1:] + towers.item.content(items)).numpy().astype(np.float64)
        explain_ids(towers.item, items, counts)
        found = towers.item.content(items).numpy()
    gram = read.T @ (weights * read) + RIDGE * weights.mean() * np.eye(read.shape[1])
    np.testing.assert_allclose(found, read @ np.linalg.solve(gram, read.T @ (weights * target)), atol=1e-5)


def test_an_item_that_nobody_met_comes_to_those_with_its_content(
    shop: tuple[TwoTowers, ItemTensors, np.ndarray],
) -> None:
    towers, items, counts = shop
    with torch.no_grad():
        blocks = torch.arange(ITEMS) % COLD_ITEMS
        towers.item.id.weight[1 : ITEMS + 1] = torch.eye(D)[blocks]
        explain_ids(towers.item, items, counts)
        unknown = towers.item(items, keep_id=torch.zeros(len(counts), dtype=torch.bool))
        nearest = (unknown[ITEMS:] @ towers.item(items)[:ITEMS].T).topk(10).indices
    assert (nearest % COLD_ITEMS == torch.arange(COLD_ITEMS)[:, None]).all()


def test_too_many_words_to_solve_for_are_left_to_the_training(
    shop: tuple[TwoTowers, ItemTensors, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    towers, items, counts = shop
    monkeypatch.setattr("jobs.explain.MOST_COLUMNS", 60)
    before = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
    explain_ids(towers.item, items, counts)
    assert all(torch.equal(before[name], tensor) for name, tensor in towers.state_dict().items())


@pytest.mark.parametrize("price", [0.0, 2.0], ids=["nothing at all", "but one price"])
def test_a_catalogue_that_tells_nothing_is_left_as_it_is(
    shop: tuple[TwoTowers, ItemTensors, np.ndarray], price: float
) -> None:
    towers, items, counts = shop
    for side in (items.words, items.categories, items.brands):
        side.zero_()
    items.numbers.copy_(torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(items.numbers.shape))
    if price:
        items.numbers[0] = torch.tensor([price, 0.0, 0.0, 1.0])
    before = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
    explain_ids(towers.item, items, counts)
    is_left = all(torch.equal(before[name], tensor) for name, tensor in towers.state_dict().items())
    assert is_left == (price == 0.0)
