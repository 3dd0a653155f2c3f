"""Lists carried over from night to night: who has not changed is not searched for, and nobody can tell."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from serving_shop import Shop
from small_world import END, World

from jobs import build, carried, changed, datasets, evaluate, lists, retrieve, train_ranker, vectors
from jobs.errors import DatasetBusyError
from jobs.progress import Report
from prediction_store import history, layout
from prediction_store.shards import open_shard
from schemas import config as settings
from schemas.config import Config, Lists, Paths, Retrieve
from schemas.tables import CANDIDATES, TRAIN

FIRST, SECOND, THIRD = "2026-03-02", "2026-03-03", "2026-03-04"
NOW = 1_772_500_000.0
K = 10
ACTED = [3, 7, 11]
"""Users of the second night with another vector, or who have consumed another item."""

List = list[tuple[str, float]]


def configure(workspace: Path, store: Path, **retrieve: Any) -> Config:
    wanted = {"candidates": K, "method": "exact", "changed_only": True, "batch_users": 6} | retrieve
    return Config(
        paths=Paths(workspace=str(workspace), store=str(store)),
        retrieve=Retrieve(**wanted),
        lists=Lists(length=10, neighbours=5, min_segment_users=13),
        store=settings.Store(shards=2),
    )


def publish(config: Config, day: str, spark: Any) -> tuple[Report, str]:
    """Everything after `embed`; what `retrieve` said, and the name of the version, which is current then."""
    said = retrieve.run(config, day, spark)
    lists.run(config, day, spark)
    evaluate.run(config, day)
    train_ranker.run(config, day)
    name = str(build.run(config, day, spark, NOW).details["version"])
    history.cutover(Path(config.paths.store), name, "test@host", "a night of the test", NOW, force=True)
    return said, name


def lists_of(config: Config, day: str, world: World) -> dict[str, List]:
    """Each user's list by ids."""
    made = datasets.open_dataset(config.paths.workspace, day, "candidates")
    order = np.load(made.part("order.npy"))
    rows = pa.dataset.dataset(made.part("users"), format="ipc").to_table().to_pylist()
    assert sorted(row["user_index"] for row in rows) == list(range(world.users))
    return {
        world.user_id(row["user_index"]): [
            (world.item_id(order[i]), s) for i, s in zip(row["items"], row["scores"], strict=True)
        ]
        for row in rows
    }


def full_sort(world: World, k: int = K) -> dict[str, List]:
    """What a search for everybody has to find; ties go to the lower id."""
    found = {}
    for user in range(world.users):
        scores = world.item_vectors @ world.user_vectors[user]
        left = set(range(world.items)) - world.consumed(user)
        best = sorted(left, key=lambda item: (-scores[item], world.item_id(item)))[:k]
        found[world.user_id(user)] = [(world.item_id(item), float(scores[item])) for item in best]
    return found


def acted(world: World) -> World:
    """The next night: three users did something, one of them bought; another one bought the same thing again."""
    world = copy.deepcopy(world)
    for user in ACTED[:2]:
        world.user_vectors[user] += 1
    first = full_sort(world)[world.user_id(ACTED[2])][0][0]
    world.events.append((ACTED[2], world.item_ids.index(first), 5.0, END - 5, True, TRAIN))
    world.events.append(next(event for event in world.events if event[4] and event[0] not in ACTED))
    return world


def with_user(world: World, at: int) -> World:
    """Someone joins, and everybody behind gets another number."""
    world = copy.deepcopy(world)
    world.users += 1
    world.user_ids.insert(at, world.user_ids[at - 1] + "x")
    world.user_vectors = np.insert(world.user_vectors, at, 2, axis=0)
    world.events = [(user + (user >= at), *rest) for user, *rest in world.events]
    return world


def with_item(world: World, at: int, vector: np.ndarray) -> World:
    world = copy.deepcopy(world)
    world.items += 1
    world.item_ids.insert(at, world.item_ids[at - 1] + "x")
    world.item_vectors = np.insert(world.item_vectors, at, vector, axis=0)
    world.events = [(user, item + (item >= at), *rest) for user, item, *rest in world.events]
    return world


def without_item(world: World, at: int) -> World:
    world = copy.deepcopy(world)
    world.items -= 1
    del world.item_ids[at]
    world.item_vectors = np.delete(world.item_vectors, at, axis=0)
    world.events = [
        (user, item - (item > at), *rest) for user, item, *rest in world.events if item != at
    ]  # those who had consumed it have consumed something else now
    return world


def with_other_vector(world: World, at: int) -> World:
    world = copy.deepcopy(world)
    world.item_vectors[at] += 1
    return world


def expected_search(then: World, now: World) -> set[str]:
    """Who cannot keep the list, said slowly."""
    before, searched = full_sort(then), set()
    vector_of = dict(zip(then.item_ids, then.item_vectors, strict=True))
    fresh = [
        vector
        for item, vector in zip(now.item_ids, now.item_vectors, strict=True)
        if item not in vector_of or (vector_of[item] != vector).any()
    ]
    stays = {
        item
        for item, vector in zip(now.item_ids, now.item_vectors, strict=True)
        if item in vector_of and (vector_of[item] == vector).all()
    }
    for user, name in enumerate(now.user_ids):
        if name not in then.user_ids:
            searched.add(name)
            continue
        old = then.user_ids.index(name)
        consumed = ({w.item_id(i) for i in w.consumed(u)} for w, u in ((then, old), (now, user)))
        lowest = before[name][-1][1] if len(before[name]) == K else -np.inf
        if (
            (then.user_vectors[old] != now.user_vectors[user]).any()
            or next(consumed) != next(consumed)
            or {item for item, _ in before[name]} - stays
            or any(vector @ now.user_vectors[user] >= lowest for vector in fresh)
        ):
            searched.add(name)
    return searched


def records_of(version: Path) -> dict[str, bytes]:
    """Every user's record as it is stored."""
    records = {}
    for path in sorted((version / "candidates").glob("*.mdb")):
        with open_shard(path) as shard, shard.begin() as transaction:
            records |= {key.decode(): bytes(value) for key, value in transaction.cursor()}
    return records


class Nights:
    """Two nights in one store: the first all searched for, the second carried over but for those who acted."""

    def __init__(self, spark: Any, world: World, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        self.config = configure(folder / "work", self.store)
        self.first, self.second = world, acted(world)
        self.first.write(self.config.paths.workspace, FIRST)
        self.said_first, self.version_first = publish(self.config, FIRST, spark)
        self.second.write(self.config.paths.workspace, SECOND)
        self.said, self.version = publish(self.config, SECOND, spark)


@pytest.fixture(scope="module")
def nights(spark: Any, make_world: Callable[..., World], tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return Nights(spark, make_world(), tmp_path_factory.mktemp("nights"))


def test_on_the_first_night_all_are_searched_for_and_it_says_why(nights: Nights) -> None:
    assert nights.said_first.details["nothing_carried"] == "no version is current"
    assert "carried" not in nights.said_first.details
    assert lists_of(nights.config, FIRST, nights.first) == full_sort(nights.first)


def test_only_those_who_acted_are_searched_for(nights: Nights) -> None:
    assert expected_search(nights.first, nights.second) == {nights.second.user_id(user) for user in ACTED}
    assert (nights.said.details["searched"], nights.said.details["carried"]) == (3, 37)
    assert nights.said.rows["users"] == 40
    assert lists_of(nights.config, SECOND, nights.second) == full_sort(nights.second)
    made = datasets.open_dataset(nights.config.paths.workspace, SECOND, "candidates")
    assert made.extra("changed_only") == {"carried": 37, "searched": 3}
    assert not made.part(carried.SCRATCH).exists()


def test_the_records_of_all_others_are_the_same_bytes(nights: Nights) -> None:
    """From the scores on: before that stand the checksum, the time and the row, which are of the night."""
    records = [records_of(nights.store / "versions" / name) for name in (nights.version_first, nights.version)]
    same = [user for user in records[0] if records[0][user][23:] == records[1][user][23:]]
    assert set(nights.first.user_ids) - set(same) == {nights.first.user_id(user) for user in ACTED}
    assert all(records[0][user][9:18] != records[1][user][9:18] for user in same)


def test_a_full_build_of_the_same_inputs_is_the_same_version(spark: Any, nights: Nights, tmp_path: Path) -> None:
    config = configure(tmp_path / "work", tmp_path / "store", changed_only=False)
    nights.second.write(config.paths.workspace, SECOND)
    said, name = publish(config, SECOND, spark)
    assert "carried" not in said.details
    ours, theirs = (
        store / "versions" / name for store, name in ((nights.store, nights.version), (tmp_path / "store", name))
    )
    files = sorted(str(path.relative_to(ours)) for path in ours.rglob("*") if path.is_file())
    assert files == sorted(str(path.relative_to(theirs)) for path in theirs.rglob("*") if path.is_file())
    assert sum(file.endswith(".mdb") for file in files) == 3
    for file in files:
        assert file == "manifest.json" or (ours / file).read_bytes() == (theirs / file).read_bytes(), file


@pytest.mark.parametrize("is_on", [True, False])
def test_a_finished_step_is_skipped_with_and_without_the_setting(nights: Nights, is_on: bool) -> None:
    config = configure(nights.folder / "work", nights.store, changed_only=is_on)
    for job in (retrieve, lists):
        assert job.run(config, SECOND, None).skipped  # type: ignore[arg-type]
    assert evaluate.run(config, SECOND).skipped
    assert build.run(config, SECOND, None, NOW + 9).skipped  # type: ignore[arg-type]
    assert build.config_digest(config) == build.config_digest(nights.config)


CHANGES: dict[str, Callable[[World], World]] = {
    "nothing": copy.deepcopy,
    "a user joins": lambda world: with_user(world, 5),
    "an item that suits few": lambda world: with_item(world, 20, np.eye(8, dtype=np.float32)[2] * 4),
    "an item goes": lambda world: without_item(world, 31),
    "an item gets another vector": lambda world: with_other_vector(world, 17),
    "everything": lambda world: with_user(
        without_item(with_item(with_other_vector(acted(world), 2), 9, np.ones(8)), 40), 30
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_changes_the_lists_are_those_of_a_search_for_everybody(spark: Any, nights: Nights, name: str) -> None:
    """On top of the second night, whose own lists were carried over."""
    now = CHANGES[name](nights.second)
    day = f"2026-03-{10 + list(CHANGES).index(name)}"
    now.write(nights.config.paths.workspace, day)
    said = retrieve.run(nights.config, day, spark)
    assert lists_of(nights.config, day, now) == full_sort(now)
    searched = expected_search(nights.second, now)
    assert said.details["searched"] == len(searched)
    assert said.details["carried"] == now.users - len(searched)
    assert (name == "nothing") == (not searched)
    assert len(searched) < now.users


def test_without_the_earlier_day_all_are_searched_for(spark: Any, nights: Nights, tmp_path: Path) -> None:
    config = configure(tmp_path / "work", nights.store)
    nights.second.write(config.paths.workspace, THIRD)
    said = retrieve.run(config, THIRD, spark)
    assert said.details["nothing_carried"] == f"the lists of {nights.version} are no longer in the workspace"
    assert lists_of(config, THIRD, nights.second) == full_sort(nights.second)


def test_nothing_is_carried_over_from_another_space_or_from_other_settings(nights: Nights) -> None:
    workspace = nights.config.paths.workspace
    now = datasets.open_dataset(workspace, SECOND, "embeddings")
    earlier, why = changed.find_earlier(nights.config, now)
    assert earlier is not None
    assert (earlier.candidates.manifest.day, why) == (SECOND, "")
    in_smaller_parts = configure(nights.folder / "work", nights.store, batch_users=2)
    assert changed.find_earlier(in_smaller_parts, now)[0] is not None, "the lists are the same"
    shorter = configure(nights.folder / "work", nights.store, candidates=K - 1)
    assert changed.find_earlier(shorter, now) == (None, f"the lists of {nights.version} were made with other settings")
    other = msgspec.structs.replace(now.manifest, extra={"space_id": msgspec.Raw(b'"fedcba9876543210"')})
    trained_anew = datasets.Dataset(now.path, other)
    assert changed.find_earlier(nights.config, trained_anew)[1].startswith("the towers have been trained since")


def test_what_the_lists_were_made_from_must_be_there_too(nights: Nights, tmp_path: Path) -> None:
    prepared = Path(nights.config.paths.workspace) / SECOND / "prepared"
    now = datasets.open_dataset(nights.config.paths.workspace, SECOND, "embeddings")
    aside = prepared.rename(prepared.with_name("aside"))
    try:
        earlier, why = changed.find_earlier(nights.config, now)
        assert earlier is not None, "the night before is there"
        assert (earlier.candidates.manifest.day, why) == (FIRST, "")
        without = configure(nights.folder / "work", tmp_path / "store")
        shutil.copytree(nights.store, without.paths.store)
        shutil.rmtree(tmp_path / "store" / "versions" / nights.version_first)
        why = changed.find_earlier(without, now)[1]
        assert why == f"what the lists of {nights.version} were made from is no longer in the workspace"
    finally:
        aside.rename(prepared)


def test_a_second_run_of_a_day_carries_over_from_the_night_before(
    spark: Any, make_world: Callable[..., World], tmp_path: Path
) -> None:
    """What the first run's version was made from is written over by then."""
    nights = Nights(spark, make_world(), tmp_path)
    later = with_user(nights.second, 5)
    later.write(nights.config.paths.workspace, SECOND)
    said, _ = publish(nights.config, SECOND, spark)
    searched = expected_search(nights.first, later)
    assert (said.details["searched"], said.details["carried"]) == (len(searched), later.users - len(searched))
    assert len(searched) < later.users
    assert lists_of(nights.config, SECOND, later) == full_sort(later)


def test_lists_that_another_run_makes_anew_while_they_are_carried_over_come_into_no_dataset(
    spark: Any, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backfill of the day before, say."""
    day, manifest = "2026-03-30", Path(nights.config.paths.workspace) / SECOND / "candidates" / datasets.MANIFEST
    nights.second.write(nights.config.paths.workspace, day)
    whole, carry_over = manifest.read_bytes(), carried.carry_over

    def meanwhile(*given: Any) -> np.ndarray:
        left = carry_over(*given)
        own = datasets.open_dataset(nights.config.paths.workspace, SECOND, "candidates").fingerprint
        manifest.write_bytes(whole.replace(own.encode(), b"0" * len(own)))
        return left

    monkeypatch.setattr(carried, "carry_over", meanwhile)
    try:
        with pytest.raises(DatasetBusyError, match="has made candidates anew while it was read"):
            retrieve.run(nights.config, day, spark)
    finally:
        manifest.write_bytes(whole)
    assert not (Path(nights.config.paths.workspace) / day / "candidates").exists()


def test_nothing_is_carried_over_from_a_version_of_a_later_shortlist(
    make_world: Callable[..., World], tmp_path: Path, edit_sealed: Callable[[Path, Callable[[bytes], bytes]], None]
) -> None:
    shop, config = Shop(tmp_path / "store"), configure(tmp_path / "work", tmp_path / "store")
    manifest = layout.version_path(shop.root, shop.publish("a")) / layout.MANIFEST
    edit_sealed(manifest, lambda data: data.replace(b'"format": 1', b'"format": 9'))
    make_world().write(config.paths.workspace, FIRST)
    now = datasets.open_dataset(config.paths.workspace, FIRST, "embeddings")
    earlier, why = changed.find_earlier(config, now)
    assert earlier is None
    assert why.startswith("the current version cannot be read: ")


def test_a_list_is_carried_if_and_only_if_nothing_new_belongs_into_it() -> None:
    """Against one dot product after the other, with vectors whose scores no float32 sum orders right."""
    rng = np.random.default_rng(8)
    users = (rng.standard_normal(16) * (1 + 1e-6 * rng.integers(-3, 4, (200, 16)))).astype(np.float32)
    fresh = vectors.on_grid((rng.standard_normal(16) * (1 + 1e-6 * rng.integers(-3, 4, (600, 16)))).astype(np.float32))
    wide = vectors.on_grid(users).astype(np.float64)
    best = np.array([max(np.float32(np.dot(user, item.astype(np.float64))) for item in fresh) for user in wide])
    lowest = np.where(
        np.arange(200) % 3 == 0, best, np.nextafter(best, np.float32(np.where(np.arange(200) % 3 == 1, 99, -99)))
    )
    rows = [
        {
            "user_index": user,
            "items": [4, 5, 6][: 3 - (user % 10 == 9)],
            "scores": [50.0, 40.0, score][: 3 - (user % 10 == 9)],
        }
        for user, score in enumerate(lowest.tolist())
    ]
    known = carried.Known(np.arange(200, dtype=np.int32)[::-1], np.arange(9, dtype=np.int32) - 1, fresh, users[::-1], 3)
    found, left = carried.carry(pa.RecordBatch.from_pylist(rows, schema=CANDIDATES), known)
    stays = (best < lowest) & (np.arange(200) % 10 != 9)
    assert 40 < stays.sum() < 100
    assert found.column("user_index").to_pylist() == (199 - np.flatnonzero(stays)).tolist()
    assert left.tolist() == (199 - np.flatnonzero(~stays)).tolist()
    assert found.column("items").to_pylist() == [[3, 4, 5]] * int(stays.sum())
    assert [row[2] for row in found.column("scores").to_pylist()] == lowest[stays].tolist()
