"""What a version knows of the user tower, from the towers that were trained to the vector of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from blocks_shop import COLD_USERS, DAY, USERS, small_config, write_prepared
from editable import editable

from jobs import build, datasets, embed, evaluate, lists, retrieve, train, train_ranker
from prediction_store.reader import Version
from reranker.user_tower import UserTower
from schemas.config import Config

LENGTH = 8
HISTORY = pa.list_(pa.struct([("time", pa.int64()), ("item_index", pa.int32()), ("weight", pa.float32())]))


class Built(NamedTuple):
    config: Config
    version: Version
    tower: UserTower
    order: np.ndarray
    """int32[items]: the item_index of each dense index"""

    def dataset(self, name: str) -> datasets.Dataset:
        return datasets.open_dataset(self.config.paths.workspace, DAY, name)

    def history(self, user: int) -> list[tuple[int, float]]:
        """(item_index, weight) of all that a user did, oldest first, by the prepared interactions."""
        rows = pa.dataset.dataset(self.dataset("prepared").part("interactions")).to_table().to_pylist()
        mine = sorted((row["time"], row["item_index"], row["weight"]) for row in rows if row["user_index"] == user)
        return [(item, weight) for _, item, weight in mine if weight > 0]

    def embedded(self, user: int | None, history: list[tuple[int, float]]) -> np.ndarray:
        """The vector that `embed` gives a user who did this; None: somebody of whom nothing else is known."""
        events = [{"time": 0, "item_index": item, "weight": weight} for item, weight in history[-LENGTH:]]
        users = pa.dataset.dataset(self.dataset("prepared").part("users")).to_table()
        features = [""] if user is None else users.filter(pa.compute.field("user_index") == user)["features"][0].as_py()
        batch = pa.RecordBatch.from_arrays(
            [pa.array([-1 if user is None else user], pa.int32()), pa.array([features]), pa.array([events], HISTORY)],
            names=["user_index", "features", "history"],
        )
        model, embeddings = self.dataset("model"), self.dataset("embeddings")
        (rows,) = embed.embed_users(iter([batch]), str(model.path), str(embeddings.part("items")), "test")
        return np.array(rows.column("vector")[0].as_py(), np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, spark: Any) -> Iterator[Built]:
    """A version made from real towers by the steps of the journey. Some interactions have no weight."""
    config = small_config(tmp_path_factory.mktemp("states"), history_length=LENGTH)
    write_prepared(config)
    forget_some(config)
    train.run(config, DAY)
    for step in (embed, retrieve, lists):
        step.run(config, DAY, spark)
    evaluate.run(config, DAY)
    train_ranker.run(config, DAY)
    name = str(build.run(config, DAY, spark, 1_772_500_000.0).details["version"])
    with Version.open(Path(config.paths.store), name) as version:
        tower = UserTower.of(version)
        assert tower is not None
        order = np.load(datasets.open_dataset(config.paths.workspace, DAY, "candidates").part("order.npy"))
        yield Built(config, version, tower, order)


def forget_some(config: Config) -> None:
    """Every ninth interaction weighs nothing, and one user's all do."""
    prepared = editable(datasets.open_dataset(config.paths.workspace, DAY, "prepared"))
    for path in prepared.part("interactions").iterdir():
        table = pa.parquet.read_table(path)
        weights = table["weight"].to_numpy().copy()
        weights[::9] = 0.0
        weights[table["user_index"].to_numpy() == 3] = 0.0
        place = table.schema.get_field_index("weight")
        pa.parquet.write_table(table.set_column(place, table.schema.field(place), pa.array(weights)), path)


def session(built: Built, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Dense items and weights of a session of n events, oldest first."""
    rng = np.random.default_rng([n, seed])
    return rng.integers(0, len(built.order), n).astype(np.uint32), rng.choice([1.0, 3.0], n).astype(np.float32)


def test_a_refresh_by_no_session_gives_the_stored_vector(built: Built) -> None:
    for user in range(USERS + COLD_USERS):
        stored = built.version.read(f"user-{user:03d}")
        assert stored is not None
        found = built.tower.refreshed(stored.user_row, *session(built, 0, 0))
        np.testing.assert_allclose(found, built.version.user_vector(stored.user_row), atol=1e-5)


@pytest.mark.parametrize("events", [1, 3, LENGTH, LENGTH + 1, 20])
def test_a_refresh_gives_what_embedding_gives_with_the_session_in_the_data(built: Built, events: int) -> None:
    moved = 0.0
    for user in (0, 3, 57, USERS, USERS + COLD_USERS - 1):
        items, weights = session(built, events, user)
        known = built.history(user)
        done = list(zip(built.order[items].tolist(), weights.tolist(), strict=True))
        found = built.tower.refreshed(user, items, weights)
        np.testing.assert_allclose(found, built.embedded(user, [*known, *done]), atol=1e-5)
        moved = max(moved, float(np.abs(found - built.version.user_vector(user)).max()))
    assert moved > 1e-2, "a session says something"


@pytest.mark.parametrize("events", [0, 2, LENGTH + 3])
def test_a_stranger_is_what_embedding_makes_of_the_session_alone(built: Built, events: int) -> None:
    items, weights = session(built, events, 1)
    done = list(zip(built.order[items].tolist(), weights.tolist(), strict=True))
    np.testing.assert_allclose(built.tower.refreshed(None, items, weights), built.embedded(None, done), atol=1e-5)


def test_the_version_has_the_last_interactions_that_weigh_something(built: Built) -> None:
    stored = built.version.user_tower
    assert stored is not None
    offsets, items, weights = stored.histories
    for user in (0, 1, 3, USERS):
        own = slice(offsets[user], offsets[user + 1])
        found = list(zip(built.order[items[own]].tolist(), weights[own].tolist(), strict=True))
        assert found == built.history(user)[-LENGTH:]
    assert offsets[4] == offsets[3], "user 3 did nothing that weighs"


def test_other_event_weights_make_another_version(built: Built) -> None:
    inputs = {name: built.dataset(name) for name in build.INPUTS}
    other = msgspec.structs.replace(
        built.config,
        data=msgspec.structs.replace(
            built.config.data,
            interactions=msgspec.structs.replace(built.config.data.interactions, event_weights={"view": 2.0}),
        ),
    )
    ranker = built.version.ranker
    assert build.inputs_digest(built.config, inputs, ranker) != build.inputs_digest(other, inputs, ranker)
