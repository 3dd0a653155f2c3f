"""A version is built, and read back through the store's reader: what is in the datasets is what is served."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from editable import editable

from jobs import build, candidate_files, cluster, datasets, evaluate, lists, retrieve, shard_writing, train_ranker
from jobs.known import Known
from jobs.list_order import Order, Vectors, put_in_order
from jobs.vectors import on_grid
from prediction_store.manifest import read_manifest
from prediction_store.reader import Version
from prediction_store.shards import copy_shard
from prediction_store.writer import VersionDraft, find_by_inputs
from reranker.signals import default_weights
from schemas import config as settings
from schemas.config import Config, Lists, Paths, Retrieve
from schemas.user_tower import TowerFacts

NOW = 1_772_500_000.0
ORDER = Order(recent=1.5, own=4.0, again=2.0)


def configure(folder: Path, store: str = "store") -> Config:
    return Config(
        paths=Paths(workspace=str(folder / "work"), store=str(folder / store)),
        retrieve=Retrieve(candidates=20),
        lists=Lists(length=10, neighbours=5, min_segment_users=13, session_gap_minutes=1440),
        store=settings.Store(shards=3),
    )


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any]) -> Any:
    return make_world(order=ORDER)


@pytest.fixture(scope="module")
def journey(spark: Any, world: Any, world_day: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that `build` reads, and a version that it built."""
    folder = tmp_path_factory.mktemp("build")
    config = configure(folder)
    world.write(config.paths.workspace)
    retrieve.run(config, world_day, spark)
    lists.run(config, world_day, spark)
    evaluate.run(config, world_day)
    train_ranker.run(config, world_day)
    report = build.run(config, world_day, spark, NOW)
    assert (report.skipped, report.rows) == (False, {"users": world.users})
    return folder


@pytest.fixture
def version(journey: Path, world_day: str) -> Iterator[Version]:
    config = configure(journey)
    name = str(datasets.open_dataset(config.paths.workspace, world_day, "version").extra("version"))
    opened = Version.open(Path(config.paths.store), name)
    yield opened
    opened.close()


def dataset(journey: Path, day: str, name: str) -> datasets.Dataset:
    return datasets.open_dataset(configure(journey).paths.workspace, day, name)


def versions(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "versions").iterdir()) if store.exists() else []


def test_every_user_reads_what_was_retrieved_in_its_order(
    version: Version, journey: Path, world: Any, world_day: str
) -> None:
    candidates = dataset(journey, world_day, "candidates")
    rows = pa.dataset.dataset(candidates.part("users"), format="ipc").to_table().combine_chunks()
    assert rows.num_rows == world.users
    end = max(event[3] for event in world.events)
    late = np.zeros(world.items)
    for _, item, weight, when, _, _ in world.events:
        late[item] += weight * 0.5 ** ((end - when) / (2 * 86_400))
    assert (late > 0).all()
    order = np.load(candidates.part("order.npy"))
    dense = {int(item): place for place, item in enumerate(order)}
    met = [{dense[item]: times for item, times in world.times(user).items()} for user in range(world.users)]
    ends = np.cumsum([*map(len, met)])
    recent = np.log1p(late).astype(np.float32)[order]
    known = Known(
        recent,
        np.argsort(-recent, kind="stable").astype(np.uint32),
        ends - [*map(len, met)],
        ends,
        np.array([item for of_user in met for item in of_user], np.uint32),
        np.array([times for of_user in met for times in of_user.values()], np.float32),
        np.array([order[item] in world.consumed(user) for user in range(world.users) for item in met[user]]),
    )
    np.testing.assert_allclose(version.column("recent"), ORDER.recent * known.recent, rtol=1e-6)
    (lists,) = rows.to_batches()
    vectors = Vectors(world.user_vectors, on_grid(world.item_vectors[order]))
    ordered, in_lists = put_in_order(lists, ORDER, known, vectors, 20).to_pylist(), lists.to_pylist()
    joined = [set(row["items"]) - set(found["items"]) for row, found in zip(ordered, in_lists, strict=True)]
    assert sum(map(len, joined)) > world.users, "lists hold more than what the search found"
    for row, found in zip(ordered, in_lists, strict=True):
        assert not world.consumed(row["user_index"]).intersection(order[row["items"]].tolist())
        assert len(row["items"]) == len(found["items"])
        read = version.read(world.user_id(row["user_index"]))
        assert read is not None
        assert read.items.tolist() == row["items"]
        step = (max(row["scores"]) - min(row["scores"])) / 4095
        np.testing.assert_allclose(read.scores, row["scores"], atol=step)
        assert (read.user_row, read.made_at) == (row["user_index"], datasets.end_of(world_day))
        np.testing.assert_array_equal(version.user_vector(read.user_row), world.user_vectors[row["user_index"]])
    assert version.read("nobody") is None


def test_every_user_keeps_what_was_consumed_and_the_own_segment(
    version: Version, journey: Path, world: Any, world_day: str
) -> None:
    order = np.load(dataset(journey, world_day, "candidates").part("order.npy"))
    users = pa.dataset.dataset(dataset(journey, world_day, "prepared").part("users"), format="parquet").to_table()
    segment_of = dict(zip(users["user_index"].to_pylist(), users["segment"].to_pylist(), strict=True))
    some = 0
    for user in range(world.users):
        consumed = version.consumed(user)
        assert set(order[consumed].tolist()) == world.consumed(user)
        some += len(consumed)
        known = version.has_segment(segment_of[user])
        assert version.segment_of(user) == (segment_of[user] if known else "")
    assert some


def test_the_tower_and_what_it_needs_of_every_user_are_in_the_version(
    version: Version, journey: Path, world: Any, world_day: str
) -> None:
    order = np.load(dataset(journey, world_day, "candidates").part("order.npy"))
    stored = version.user_tower
    assert stored is not None
    for name, array in world.tower().items():
        np.testing.assert_array_equal(getattr(stored.tower, name), array)
    weights = configure(journey).data.interactions.event_weights
    assert stored.tower.facts == TowerFacts(is_unit=False, history_length=8, event_weights=weights)
    np.testing.assert_array_equal(stored.bases, world.bases())
    offsets, items, weights = stored.histories
    for user in range(world.users):
        own = slice(offsets[user], offsets[user + 1])
        assert list(zip(order[items[own]].tolist(), weights[own].tolist(), strict=True)) == world.history(user)
    assert offsets[-1] > 0


def test_the_catalogue_is_in_dense_order(version: Version, journey: Path, world: Any, world_day: str) -> None:
    order = np.load(dataset(journey, world_day, "candidates").part("order.npy"))
    np.testing.assert_array_equal(version.item_vectors, world.item_vectors[order])
    everything = np.arange(world.items)
    assert version.item_ids(everything) == [world.item_id(int(item)) for item in order]
    assert [version.item_index(world.item_id(int(item))) for item in order] == everything.tolist()
    assert version.column("title").texts(everything) == [f"Thing {item}" for item in order]
    assert version.column("category").texts(everything) == [f"kind {item % 3}" for item in order]
    brands = [f"brand {item % 2}" if item % 5 else "" for item in order]
    assert version.column("brand").texts(everything) == brands
    np.testing.assert_array_equal(version.column("price"), [np.nan if item % 7 == 0 else item for item in order])
    end = datasets.end_of(world_day)
    released = [np.nan if item % 4 == 0 else end - 86_400 * item for item in order]
    np.testing.assert_array_equal(version.column("released"), released)
    np.testing.assert_array_equal(version.column("in_stock"), [item % 10 != 0 for item in order])
    counts = np.bincount([event[1] for event in world.events], minlength=world.items)  # held out or not
    np.testing.assert_allclose(version.column("popularity"), counts[order] / counts.max(), rtol=1e-6)


def test_the_fallbacks_and_the_ranker_are_in_the_version(version: Version, journey: Path, world_day: str) -> None:
    made = dataset(journey, world_day, "lists")
    for row in pyarrow.parquet.read_table(made.part("lists.parquet")).to_pylist():
        ranked = getattr(version, row["kind"])(row["segment"])
        assert ranked.items.tolist() == row["items"]
        assert ranked.scores.tolist() == row["scores"]
    assert version.popular("no such segment").items.tolist() == version.popular().items.tolist()
    neighbours = np.load(made.part("neighbours.npy"))
    assert version.neighbours(7).items.tolist() == neighbours[7].tolist()
    assert version.ranker.space_id == version.manifest.space_id == "0123456789abcdef"


def test_what_items_are_met_with_and_when_is_in_the_version(version: Version, journey: Path, world_day: str) -> None:
    made = dataset(journey, world_day, "lists")
    together, scores, trend, affinities = (
        np.load(made.part(f"{name}.npy")) for name in ("together", "together_scores", "trend", "context")
    )
    for index, row in enumerate(together):
        found = version.together(index)
        assert found.items.tolist() == row[row >= 0].tolist()
        assert found.scores.tolist() == scores[index, : len(found.items)].tolist()
    assert (together >= 0).mean() > 0.5
    np.testing.assert_array_equal(version.column("trend"), trend)
    assert 0 <= trend.min() < trend.max() <= 1
    names = [*(("hour", str(hour)) for hour in range(24)), *(("weekday", str(day)) for day in range(7))]
    for name, row in zip(names, affinities, strict=True):
        np.testing.assert_array_equal(version.context(*name), row)
    assert affinities.any()
    assert version.context("device", "phone") is None


def test_the_manifest_says_when_and_from_what(version: Version, journey: Path, world: Any, world_day: str) -> None:
    manifest = version.manifest
    assert manifest.made_at == datasets.end_of(world_day)
    assert manifest.expires_at == manifest.made_at + 168 * 3600
    assert manifest.inputs.keys() == set(build.INPUTS)
    assert (manifest.counts.users, manifest.counts.items, manifest.shards) == (world.users, world.items, 3)
    report = configure(journey).paths.store + f"/versions/{version.name}/evaluation/report.json"
    assert Path(report).read_bytes() == dataset(journey, world_day, "evaluation").part("report.json").read_bytes()


def test_the_same_inputs_are_not_built_again(journey: Path, world_day: str) -> None:
    config = configure(journey)
    before = versions(journey / "store")
    report = build.run(config, world_day, None, NOW + 1000)  # type: ignore[arg-type]
    assert (report.skipped, report.details) == (True, {"version": before[0]})
    assert versions(journey / "store") == before


def test_where_and_how_fast_does_not_change_the_config_digest(journey: Path) -> None:
    config = configure(journey)
    elsewhere = msgspec.structs.replace(config, paths=Paths(store="/x"), spark=settings.Spark(master="local[8]"))
    other = msgspec.structs.replace(config, retrieve=Retrieve(candidates=21))
    assert build.config_digest(config) == build.config_digest(elsewhere) != build.config_digest(other)


def test_another_partitioning_gives_the_same_bytes(spark: Any, journey: Path, world_day: str) -> None:
    """Built into another store, from candidate files that are cut and ordered otherwise."""
    config = configure(journey, "other-store")
    folder = editable(dataset(journey, world_day, "candidates")).part("users")
    table = pa.dataset.dataset(folder, format="ipc").to_table()
    originals = {path: path.read_bytes() for path in folder.glob("*.arrow")}
    for path in originals:
        path.unlink()
    turned = table.take(np.random.default_rng(0).permutation(len(table)))
    for number, start in enumerate(range(0, len(turned), 7)):
        with candidate_files.open_writer(folder / f"part-{number}.arrow") as file:
            file.write_table(turned.slice(start, 7))
    try:
        build.run(config, world_day, spark, NOW + 5)
    finally:
        for path in folder.glob("*.arrow"):
            path.unlink()
        for path, data in originals.items():
            path.write_bytes(data)
    (here,), (there,) = (versions(journey / store) for store in ("other-store", "store"))
    for number in range(3):
        shard = f"versions/{{}}/candidates/shard-{number:04d}.mdb"
        first, second = journey / "store" / shard.format(there), journey / "other-store" / shard.format(here)
        assert first.read_bytes() == second.read_bytes()
    # The workspace names the version in the store that was built last; the first store still has its own.
    report = build.run(configure(journey), world_day, None, NOW)  # type: ignore[arg-type]
    assert report.details == {"version": there}


def test_a_retired_version_is_built_again(spark: Any, journey: Path, world_day: str) -> None:
    config = configure(journey, "third-store")
    (first,) = [build.run(config, world_day, spark, NOW).details["version"]]
    retired = journey / "third-store" / "versions" / first
    for folder, _, _ in os.walk(retired):
        Path(folder).chmod(0o755)
    retired.rename(journey / "retired")
    again = build.run(config, world_day, spark, NOW + 60)
    assert not again.skipped
    assert versions(journey / "third-store") == [again.details["version"]]


def test_shards_into_which_no_user_falls_are_there_and_empty(spark: Any, journey: Path, world_day: str) -> None:
    few = configure(journey, "many-shards")
    config = msgspec.structs.replace(few, store=settings.Store(shards=64))
    name = str(build.run(config, world_day, spark, NOW).details["version"])
    assert len(list((journey / "many-shards" / "versions" / name / "candidates").iterdir())) == 64
    opened = Version.open(journey / "many-shards", name)
    assert opened.read("user-0007") is not None
    opened.close()


def test_a_build_that_dies_leaves_nothing_to_be_seen(
    spark: Any, journey: Path, world_day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(journey, "fourth-store")
    shutil.rmtree(Path(config.paths.workspace) / world_day / "version")

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VersionDraft, "seal", die)
        with pytest.raises(KeyboardInterrupt):
            build.run(config, world_day, spark, NOW)
    assert versions(journey / "fourth-store") == []
    assert not (Path(config.paths.workspace) / world_day / "version").exists()
    report = build.run(config, world_day, spark, NOW)
    assert versions(journey / "fourth-store") == [report.details["version"]]


def test_until_another_version_of_the_day_is_built_it_is_the_one_before(
    spark: Any, journey: Path, world_day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may be on its way to the gates with it."""
    config = configure(journey, "fifth-store")
    before = build.run(config, world_day, spark, NOW).details["version"]
    named = []

    def look(*_: Any, **__: Any) -> None:
        named.append(dataset(journey, world_day, "version").extra("version"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VersionDraft, "seal", look)
        with pytest.raises(KeyboardInterrupt):
            other = msgspec.structs.replace(config, store=settings.Store(shards=2))
            build.run(other, world_day, spark, NOW)
    assert named == [before]
    assert build.run(configure(journey), world_day, spark, NOW).skipped


def test_a_version_whose_name_was_not_written_down_is_found(journey: Path, world_day: str) -> None:
    """Killed between the sealing and the end of the step."""
    config = configure(journey)
    (sealed,) = versions(journey / "store")
    named = Path(config.paths.workspace) / world_day / "version"
    for path in named.iterdir():
        path.unlink()
    named.rmdir()
    report = build.run(config, world_day, None, NOW)  # type: ignore[arg-type]
    assert (report.skipped, report.details) == (True, {"version": sealed})
    digest = build.inputs_digest(
        config,
        {name: dataset(journey, world_day, name) for name in build.INPUTS},
        default_weights("0123456789abcdef"),
    )
    assert find_by_inputs(journey / "store", digest) == sealed


def test_a_build_whose_tasks_do_not_see_the_store_gives_the_same_files(
    spark: Any, journey: Path, world_day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here,) = versions(journey / "store")
    config = configure(journey, "shared-disk")
    taken: list[Path] = []

    def take(finished: Path, target: Path) -> None:
        taken.append(finished)
        copy_shard(finished, target)

    monkeypatch.setattr(cluster, "runs_on_cluster", lambda _: True)
    monkeypatch.setattr(shard_writing, "copy_shard", take)
    there = str(build.run(config, world_day, spark, NOW + 9).details["version"])
    first, second = read_manifest(journey / "store", here), read_manifest(journey / "shared-disk", there)
    assert second.files == first.files
    assert len(taken) == 3
    assert all(path.is_relative_to(config.paths.workspace) and not path.exists() for path in taken)
    left = dataset(journey, world_day, "version")
    assert [path.name for path in left.path.iterdir()] == ["manifest.json"]
