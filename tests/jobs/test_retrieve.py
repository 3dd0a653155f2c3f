"""Retrieval by Spark against a full sort in numpy, on a world with many ties."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from jobs import datasets, retrieve
from jobs.errors import BadVectorsError, SourceError
from schemas import tables
from schemas.config import Config, Paths, Retrieve

Lists = dict[int, list[tuple[int, float]]]


def configure(folder: Path, **settings: Any) -> Config:
    return Config(paths=Paths(workspace=str(folder), store=str(folder / "store")), retrieve=Retrieve(**settings))


def read(config: Config, day: str, part: str) -> Lists:
    """user_index to (item_index, score), as the dataset has them."""
    candidates = datasets.open_dataset(config.paths.workspace, day, "candidates")
    order = np.load(candidates.part("order.npy"))
    table = pa.dataset.dataset(candidates.part(part), format="ipc").to_table()
    assert table.schema.names == tables.CANDIDATES.names
    rows = table.to_pylist()
    assert len({row["user_index"] for row in rows}) == len(rows)
    return {
        row["user_index"]: [(int(order[i]), s) for i, s in zip(row["items"], row["scores"], strict=True)]
        for row in rows
    }


def full_sort(query: np.ndarray, items: np.ndarray, left_out: set[int], k: int) -> list:
    """Ties go to the lower item_index."""
    scores = items @ query
    left = sorted(set(range(len(items))) - left_out, key=lambda item: (-scores[item], item))
    return [(item, float(scores[item])) for item in left[:k]]


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any]) -> Any:
    return make_world()


@pytest.fixture(scope="module")
def retrieved(spark: Any, world: Any, world_day: str, tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = configure(tmp_path_factory.mktemp("retrieved"), candidates=10, batch_users=7)
    world.write(config.paths.workspace)
    report = retrieve.run(config, world_day, spark)
    assert report.rows == {"items": 60, "users": 40, "evaluation": len(world.judged())}
    return config


def test_every_user_gets_the_best_items_not_yet_consumed(retrieved: Config, world: Any, world_day: str) -> None:
    found = read(retrieved, world_day, "users")
    assert any(world.consumed(user) for user in found)
    assert any(not world.consumed(user) for user in found)
    assert found == {
        user: full_sort(world.user_vectors[user], world.item_vectors, world.consumed(user), 10)
        for user in range(world.users)
    }


def test_judged_lists_know_nothing_of_the_test_part(retrieved: Config, world: Any, world_day: str) -> None:
    vectors = world.evaluation_vectors()
    assert any(world.consumed(user) != world.consumed(user, before_test=True) for user in world.judged())
    assert read(retrieved, world_day, "evaluation") == {
        user: full_sort(vectors[user], world.item_vectors, world.consumed(user, before_test=True), 10)
        for user in world.judged()
    }


def test_the_dense_order_is_a_permutation(retrieved: Config, world: Any, world_day: str) -> None:
    order = np.load(Path(retrieved.paths.workspace) / world_day / "candidates" / "order.npy")
    assert order.dtype == np.int32
    assert np.array_equal(np.sort(order), np.arange(world.items))


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_users": 3, "method": "exact"},
        {"method": "grouped", "probes": 1000, "batch_users": 5},
        {"method": "grouped", "min_recall": 1.0},
    ],
    ids=["other partitions", "every list is probed", "calibrated to miss nothing"],
)
def test_lists_do_not_depend_on_how_they_are_found(
    *, spark: Any, retrieved: Config, world: Any, world_day: str, tmp_path: Path, settings: dict
) -> None:
    config = configure(tmp_path, candidates=10, **settings)
    world.write(config.paths.workspace)
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    try:
        report = retrieve.run(config, world_day, spark)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert report.details["method"] == settings["method"]
    assert report.details["recall_on_sample"] == 1.0
    for part in ("users", "evaluation"):
        assert read(config, world_day, part) == read(retrieved, world_day, part)


def test_an_index_left_to_itself_says_what_it_finds(
    spark: Any, make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    world = make_world(users=120, items=400)
    config = configure(tmp_path, candidates=20, consumed="keep", method="grouped", lists=20, probes=12)
    world.write(config.paths.workspace)
    said = retrieve.run(config, world_day, spark).details
    assert (said["method"], said["probes"]) == ("grouped", 12)
    assert 12 < said["lists"] <= 20
    shares = []
    for user, row in read(config, world_day, "users").items():
        best = full_sort(world.user_vectors[user], world.item_vectors, set(), 20)
        # By score: of several items that tie at the end of a list, an index may find another one.
        shares.append(np.mean([score >= best[-1][1] for _, score in row]))
    assert 0.7 < np.mean(shares) < 1.0
    assert said["recall_on_sample"] == pytest.approx(np.mean(shares), abs=0.1)


def test_more_candidates_than_items_gives_every_item_once(
    spark: Any, make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    world = make_world(users=5, items=6)
    config = configure(tmp_path, candidates=1000, consumed="keep")
    world.write(config.paths.workspace)
    retrieve.run(config, world_day, spark)
    found = read(config, world_day, "users")
    assert found == {u: full_sort(world.user_vectors[u], world.item_vectors, set(), 1000) for u in range(5)}
    assert all(len(row) == 6 for row in found.values())


def test_who_has_consumed_everything_gets_an_empty_list(
    spark: Any, make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    day = datasets.end_of(world_day)
    world = make_world(
        users=2, items=3, events=[(1, item, 1.0, day - 200_000, True, tables.TRAIN) for item in range(3)]
    )
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    retrieve.run(config, world_day, spark)
    assert {user: len(row) for user, row in read(config, world_day, "users").items()} == {0: 3, 1: 0}
    assert read(config, world_day, "evaluation") == {}


def test_a_finished_retrieval_is_skipped_without_spark(retrieved: Config, world_day: str) -> None:
    report = retrieve.run(retrieved, world_day, None)  # type: ignore[arg-type]
    assert report.skipped
    assert report.rows["users"] == 40


def test_other_settings_are_another_retrieval(retrieved: Config, world_day: str) -> None:
    other = msgspec.structs.replace(retrieved, retrieve=Retrieve(candidates=11))
    with pytest.raises(AttributeError):  # it asks for Spark, which is not there
        retrieve.run(other, world_day, None)  # type: ignore[arg-type]
    assert len(read(retrieved, world_day, "users")) == 40


@pytest.mark.parametrize("what", ["item", "user"])
def test_a_vector_that_is_not_a_number_stops_the_retrieval(
    spark: Any, make_world: Callable[..., Any], world_day: str, tmp_path: Path, what: str
) -> None:
    world = make_world(users=12, items=12)
    getattr(world, f"{what}_vectors")[9, 3] = np.nan
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    with pytest.raises(BadVectorsError, match=f"{what}_index 9"):
        retrieve.run(config, world_day, spark)
    assert not (tmp_path / world_day / "candidates").exists()


def test_an_empty_catalogue_is_refused(make_world: Callable[..., Any], world_day: str, tmp_path: Path) -> None:
    world = make_world(users=3, items=0)
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    with pytest.raises(SourceError, match="no items"):
        retrieve.run(config, world_day, None)  # type: ignore[arg-type]
