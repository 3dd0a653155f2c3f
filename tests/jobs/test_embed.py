"""Embedding in Spark: equal to plain torch, whatever the partitioning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
from blocks_shop import COLD_USERS, DAY, ITEMS, USERS, block_of, small_config, write_prepared

from jobs import checkpoint, datasets, embed, model, train
from jobs.errors import BadVectorsError, MissingDatasetError
from jobs.examples import histories
from jobs.features import item_features, user_features
from jobs.task import read_sorted
from jobs.towers import ItemTensors, UserTensors
from schemas.config import Config
from schemas.tables import TEST


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, spark: Any) -> Config:
    """A configuration whose embeddings are made."""
    config = small_config(tmp_path_factory.mktemp("embed"))
    write_prepared(config)
    train.run(config, DAY)
    report = embed.run(config, DAY, spark)
    assert report.rows["items"] == ITEMS + 4
    assert report.rows["users"] == USERS + COLD_USERS
    return config


def read(config: Config, part: str, index: str = "user_index") -> dict[int, np.ndarray]:
    folder = datasets.open_dataset(config.paths.workspace, DAY, "embeddings").part(part)
    rows = pa.dataset.dataset(folder, format="parquet").to_table().to_pydict()
    assert len(set(rows[index])) == len(rows[index]), "no row twice"
    return {key: np.array(vector, np.float32) for key, vector in zip(rows[index], rows["vector"], strict=True)}


def table(config: Config, part: str, index: str) -> pa.Table:
    folder = datasets.open_dataset(config.paths.workspace, DAY, "embeddings").part(part)
    return pa.dataset.dataset(folder, format="parquet").to_table().sort_by(index).combine_chunks()


def plain_torch(config: Config, before_split: int) -> tuple[np.ndarray, np.ndarray]:
    """(item vectors, user vectors) with the histories of all splits below `before_split`, in float32 and at once."""
    prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    towers, card = model.load(datasets.open_dataset(config.paths.workspace, DAY, "model").path)
    items = read_sorted(prepared.part("items"), "item_index")
    users = read_sorted(prepared.part("users"), "user_index")
    interactions = pa.dataset.dataset(prepared.part("interactions")).to_table()
    known = histories(interactions.filter(pa.compute.field("split") < before_split), len(users))
    with torch.no_grad():
        item_vectors = towers.item(ItemTensors.of(item_features(items, card.architecture.encoding)))
        last = known.last(np.arange(len(users)), card.architecture.history_length)
        pooled = towers.user.pool(item_vectors, *map(torch.from_numpy, last))
        user_vectors = towers.user(UserTensors.of(user_features(users, card.architecture.encoding)), pooled)
    return item_vectors.numpy(), user_vectors.numpy()


def test_every_item_and_user_has_the_vector_of_plain_torch(embedded: Config) -> None:
    items, users = plain_torch(embedded, TEST + 1)
    found_items, found_users = read(embedded, "items", "item_index"), read(embedded, "users")
    assert sorted(found_items) == list(range(len(items)))
    assert sorted(found_users) == list(range(len(users)))
    np.testing.assert_allclose([found_items[k] for k in range(len(items))], items, atol=1e-6)
    np.testing.assert_allclose([found_users[k] for k in range(len(users))], users, atol=1e-6)


def test_evaluation_users_are_those_with_test_interactions_as_they_were_before(embedded: Config) -> None:
    _, users = plain_torch(embedded, TEST)
    prepared = datasets.open_dataset(embedded.paths.workspace, DAY, "prepared")
    table = pa.dataset.dataset(prepared.part("interactions")).to_table().to_pandas()
    found = read(embedded, "evaluation_users")
    assert set(found) == set(table[table.split == TEST].user_index)
    for user, vector in found.items():
        np.testing.assert_allclose(vector, users[user], atol=1e-6)


@pytest.mark.parametrize("partitions", [1, 7])
def test_the_partitioning_changes_no_bit(embedded: Config, spark: Any, tmp_path: Path, partitions: int) -> None:
    other = small_config(tmp_path)
    write_prepared(other)
    train.run(other, DAY)
    names = [
        "spark.sql.shuffle.partitions",
        "spark.sql.adaptive.enabled",
        "spark.sql.execution.arrow.maxRecordsPerBatch",
    ]
    before = {name: spark.conf.get(name) for name in names}
    try:
        for name, value in zip(names, [str(partitions), "false", "11"], strict=True):
            spark.conf.set(name, value)
        embed.run(other, DAY, spark)
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)
    for part, index in (("items", "item_index"), ("users", "user_index"), ("evaluation_users", "user_index")):
        expected, found = read(embedded, part, index), read(other, part, index)
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[key], found[key]) for key in expected), part
        assert table(embedded, part, index).equals(table(other, part, index)), "nor does it change any other column"


def test_the_history_of_a_new_user_puts_him_among_the_items_he_likes(embedded: Config) -> None:
    """No id and no train history: what he did on the last day carries him."""
    users, items = read(embedded, "users"), read(embedded, "items", "item_index")
    matrix = np.stack([items[k] for k in range(ITEMS)])
    for block in range(COLD_USERS):
        best = np.argsort(-(matrix @ users[USERS + block]))[:10]
        assert (block_of(best, ITEMS) == block).all()


def test_the_space_of_the_vectors_is_that_of_the_model(embedded: Config) -> None:
    opened = {name: datasets.open_dataset(embedded.paths.workspace, DAY, name) for name in ("model", "embeddings")}
    assert opened["embeddings"].extra("space_id") == opened["model"].extra("space_id")


def test_a_second_run_finds_nothing_to_do(embedded: Config, spark: Any) -> None:
    assert embed.run(embedded, DAY, spark).skipped


@pytest.mark.parametrize("broken", ["item.category.weight", "user.history.bias"])
def test_a_vector_that_is_no_number_stops_the_step(tmp_path: Path, spark: Any, broken: str) -> None:
    config = small_config(tmp_path, max_epochs=1)
    write_prepared(config)
    train.run(config, DAY)
    folder = datasets.open_dataset(config.paths.workspace, DAY, "model").path
    towers, card = model.load(folder)
    with torch.no_grad():
        towers.get_parameter(broken)[-1] = torch.nan
    progress = checkpoint.Progress(card.curve, card.best_epoch, True)
    model.save(folder, towers, progress, temperature=card.temperature, order=card.order)
    with pytest.raises(BadVectorsError, match=broken.split(".", maxsplit=1)[0]):
        embed.run(config, DAY, spark)
    assert not (Path(config.paths.workspace) / DAY / "embeddings").exists()


def test_without_a_model_the_step_names_the_one_before(tmp_path: Path, spark: Any) -> None:
    config = small_config(tmp_path)
    write_prepared(config)
    with pytest.raises(MissingDatasetError) as missing:
        embed.run(config, DAY, spark)
    assert "shortlist train" in missing.value.hint


def test_a_worker_that_lives_on_takes_the_new_model_for_the_new_token(tmp_path: Path) -> None:
    config = small_config(tmp_path, max_epochs=1)
    write_prepared(config)
    train.run(config, DAY)
    folder = datasets.open_dataset(config.paths.workspace, DAY, "model").path
    first = embed.load_towers(str(folder), "one")
    assert embed.load_towers(str(folder), "one") is first
    assert embed.load_towers(str(folder), "two") is not first


def test_the_model_card_is_json_that_a_person_can_read(embedded: Config) -> None:
    folder = datasets.open_dataset(embedded.paths.workspace, DAY, "model").path
    card = msgspec.json.decode((folder / model.CARD).read_bytes())
    assert card["architecture"]["encoding"]["categories"] == [f"kind {k}" for k in range(4)]
    assert card["space_id"] == model.load(folder)[1].space_id
