"""The fallbacks against slow loops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from jobs import datasets, lists, retrieve
from schemas import tables
from schemas.config import Config, Lists, Paths, Retrieve

HALF_LIVES = {"popular": 30.0, "trending": 2.0}


def configure(folder: Path, **settings: Any) -> Config:
    return Config(
        paths=Paths(workspace=str(folder), store=str(folder / "store")),
        retrieve=Retrieve(candidates=5, min_recall=1.0, method=settings.pop("method", "auto")),
        lists=Lists(**{"length": 20, "neighbours": 7, "min_segment_users": 13} | settings),
    )


def read(config: Config, day: str) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(kind, segment) to (item_index, score)."""
    folder = Path(config.paths.workspace) / day
    order = np.load(folder / "candidates" / "order.npy")
    table = pyarrow.parquet.read_table(folder / "lists" / "lists.parquet")
    assert table.schema.names == tables.LISTS.names
    return {
        (row["kind"], row["segment"]): [(int(order[i]), s) for i, s in zip(row["items"], row["scores"], strict=True)]
        for row in table.to_pylist()
    }


def slow_lists(world: Any, end: int, length: int, segments: set[str]) -> dict[tuple[str, str], list]:
    sums: dict[tuple[str, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for user, item, weight, when, _, _ in world.events:
        for kind, half_life in HALF_LIVES.items():
            for segment in {"", world.segments[user % len(world.segments)]} & (segments | {""}):
                sums[kind, segment][item] += weight * 0.5 ** ((end - when) / 86_400 / half_life)
    return {key: sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:length] for key, found in sums.items()}


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any]) -> Any:
    return make_world()  # 40 users: 14 of "de", 13 of "fr", 13 of none


@pytest.fixture(scope="module")
def made(spark: Any, world: Any, world_day: str, tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = configure(tmp_path_factory.mktemp("lists"))
    world.write(config.paths.workspace)
    retrieve.run(config, world_day, spark)
    report = lists.run(config, world_day, spark)
    assert report.rows == {"lists": 6, "neighbours": 60}
    return config


def test_popular_and_trending_are_those_of_a_loop(made: Config, world: Any, world_day: str) -> None:
    found = read(made, world_day)
    expected = slow_lists(world, datasets.end_of(world_day), 20, {"de", "fr"})
    assert found.keys() == expected.keys()
    for key, ranked in expected.items():
        assert [item for item, _ in found[key]] == [item for item, _ in ranked]
        np.testing.assert_allclose([s for _, s in found[key]], [s for _, s in ranked], rtol=1e-5)


def test_trending_is_not_popular(made: Config, world_day: str) -> None:
    found = read(made, world_day)
    assert [item for item, _ in found["trending", ""]] != [item for item, _ in found["popular", ""]]


def test_neighbours_are_those_of_a_full_sort_by_cosine(made: Config, world: Any, world_day: str) -> None:
    folder = Path(made.paths.workspace) / world_day
    order = np.load(folder / "candidates" / "order.npy")
    dense = world.item_vectors[order].astype(np.float64)
    cosine = dense @ dense.T / np.outer(*[np.linalg.norm(dense, axis=1)] * 2)
    np.fill_diagonal(cosine, -np.inf)
    neighbours = np.load(folder / "lists" / "neighbours.npy")
    scores = np.load(folder / "lists" / "neighbour_scores.npy")
    assert (neighbours.dtype, scores.dtype, neighbours.shape) == (np.int32, np.float32, (60, 7))
    assert (neighbours != np.arange(60)[:, None]).all()
    # Items of nearly equal cosine may change places: it is the cosines that must be the best ones.
    np.testing.assert_allclose(scores, -np.sort(-cosine, axis=1)[:, :7], atol=1e-5)
    np.testing.assert_allclose(scores, np.take_along_axis(cosine, neighbours, axis=1), atol=1e-5)


def test_what_is_met_together_and_the_trend_are_of_all_events_in_dense_order(
    made: Config, world: Any, world_day: str
) -> None:
    folder = Path(made.paths.workspace) / world_day
    order = np.load(folder / "candidates" / "order.npy")
    found = np.load(folder / "lists" / "together.npy")
    assert found.shape == np.load(folder / "lists" / "together_scores.npy").shape == (60, 7)
    expected = set()
    for user in range(world.users):
        mine = sorted((when, item) for who, item, _, when, _, _ in world.events if who == user)
        session: set[int] = set()
        for (when, item), (before, _) in zip(mine, [(0, 0), *mine], strict=False):
            session = {item} | (session if when - before < 30 * 60 else set())
            expected |= {(one, other) for one in session for other in session if one != other}
    rows, columns = np.nonzero(found >= 0)
    assert set(zip(order[rows].tolist(), order[found[rows, columns]].tolist(), strict=True)) == expected
    assert expected
    # The newest event of all is of an item that rises.
    newest = max(world.events, key=lambda event: event[3])[1]
    trend = np.load(folder / "lists" / "trend.npy")
    assert trend[order.tolist().index(newest)] > np.median(trend)
    assert np.load(folder / "lists" / "context.npy").shape == (31, 60)


def test_through_an_index_calibrated_to_miss_nothing_neighbours_are_the_same(
    spark: Any, made: Config, world: Any, world_day: str, tmp_path: Path
) -> None:
    config = configure(tmp_path, method="grouped", neighbours=7)
    world.write(config.paths.workspace)
    retrieve.run(config, world_day, spark)
    lists.run(config, world_day, spark)
    for name in ("neighbours.npy", "neighbour_scores.npy"):
        here, there = (Path(c.paths.workspace) / world_day / "lists" / name for c in (config, made))
        assert here.read_bytes() == there.read_bytes()


def test_small_segments_get_no_list_and_missing_neighbours_are_padded_at_the_end(
    spark: Any, make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    end = datasets.end_of(world_day)
    # Items 1 and 2 tie, an equal weight counts for less ten days later, and a weight of 0 is no popularity at all.
    events = [(0, 2, 1.0, end - 60, False, tables.TEST), (1, 1, 1.0, end - 60, False, tables.TRAIN)]
    events += [(2, 0, 1.0, end - 10 * 86_400, False, tables.TRAIN), (2, 3, 0.0, end - 60, False, tables.TRAIN)]
    world = make_world(users=3, items=4, events=events)
    config = configure(tmp_path, min_segment_users=2)
    world.write(config.paths.workspace)
    retrieve.run(config, world_day, spark)
    lists.run(config, world_day, spark)
    found = read(config, world_day)
    assert {key: [item for item, _ in ranked] for key, ranked in found.items()} == {
        ("popular", ""): [1, 2, 0],
        ("trending", ""): [1, 2, 0],
    }
    neighbours = np.load(tmp_path / world_day / "lists" / "neighbours.npy")
    assert (neighbours[:, 3:] == -1).all()
    assert (neighbours[:, :3] >= 0).all()


def test_finished_lists_are_skipped_without_spark(made: Config, world_day: str) -> None:
    assert lists.run(made, world_day, None).skipped  # type: ignore[arg-type]
