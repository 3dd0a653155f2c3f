"""The report against slow loops over the lists that were retrieved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from jobs import datasets, evaluate, retrieve
from jobs.errors import NothingToJudgeError
from schemas import tables
from schemas.config import Config, Paths, Retrieve


def configure(folder: Path, **settings: Any) -> Config:
    return Config(paths=Paths(workspace=str(folder), store=str(folder / "store")), retrieve=Retrieve(**settings))


def write_candidates(
    config: Config, world: Any, day: str, lists: dict[int, list[int]], served: dict[int, list[int]] | None = None
) -> None:
    """Candidates as if retrieved: the dense order is that of the items turned around. `served` is what is published."""
    with datasets.step(config.paths.workspace, day, "candidates", outside={"lists": repr(lists)}) as draft:
        np.save(draft.path / "order.npy", np.arange(world.items, dtype=np.int32)[::-1])
        for part, found in (("evaluation", lists), ("users", served or {})):
            rows = [
                {"user_index": user, "items": [world.items - 1 - item for item in items], "scores": [0.0] * len(items)}
                for user, items in found.items()
            ]
            (draft.path / part).mkdir()
            table = pa.Table.from_pylist(rows, schema=tables.CANDIDATES)
            pa.parquet.write_table(table, draft.path / part / "part.parquet", row_group_size=3)


def read_report(config: Config, day: str) -> dict:
    return json.loads((Path(config.paths.workspace) / day / "evaluation" / "report.json").read_text())


def slow_measures(world: Any, lists: dict[int, list[int]], dropped: bool) -> dict:
    """The measures of item lists, by a loop over users."""
    recall, ndcg, seen = {20: [], 100: [], 1000: []}, [], set()
    for user, items in lists.items():
        seen |= set(items[:100])
        wanted = {item for who, item, _, _, _, split in world.events if who == user and split == tables.TEST}
        if dropped:
            wanted -= world.consumed(user, before_test=True)
        if not wanted:
            continue
        for k, values in recall.items():
            values.append(len(wanted & set(items[:k])) / min(k, len(wanted)))
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(items[:20]) if item in wanted)
        ndcg.append(gain / sum(1 / math.log2(place + 2) for place in range(min(20, len(wanted)))))
    return {
        "recall": {str(k): pytest.approx(np.mean(values), abs=1e-6) for k, values in recall.items()},
        "ndcg": {"20": pytest.approx(np.mean(ndcg), abs=1e-6)},
        "coverage": pytest.approx(len(seen) / world.items, abs=1e-6),
    }


def popular_lists(world: Any, dropped: bool) -> dict[int, list[int]]:
    counts = np.bincount([e[1] for e in world.events if e[5] != tables.TEST], minlength=world.items)
    order = sorted(range(world.items), key=lambda item: (-counts[item], item))
    left_out = {user: world.consumed(user, before_test=True) if dropped else set() for user in world.judged()}
    return {user: [item for item in order if item not in left_out[user]] for user in world.judged()}


@pytest.mark.parametrize("policy", ["drop", "keep"])
def test_the_report_is_that_of_a_loop(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "BATCH_USERS", 4)
    world = make_world(users=50, items=150, seed=8)
    config = configure(tmp_path, consumed=policy)
    world.write(config.paths.workspace)
    rng = np.random.default_rng(0)
    lists = {user: list(map(int, rng.permutation(150)[: rng.integers(0, 150)])) for user in reversed(world.judged())}
    write_candidates(config, world, world_day, lists)
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    dropped = policy == "drop"
    popularity = slow_measures(world, popular_lists(world, dropped), dropped)
    assert {key: report[key] for key in ("recall", "ndcg", "coverage")} == slow_measures(world, lists, dropped)
    assert report["popularity"] == popularity
    assert report["test_from"] == min(event[3] for event in world.events if event[5] == tables.TEST)


def test_the_best_lists_score_one(make_world: Callable[..., Any], world_day: str, tmp_path: Path) -> None:
    world = make_world(seed=8)
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    wanted: dict[int, list[int]] = {user: [] for user in world.judged()}
    for user, item, _, _, _, split in world.events:
        if split == tables.TEST and item not in world.consumed(user, before_test=True) | set(wanted[user]):
            wanted[user].append(item)
    write_candidates(config, world, world_day, wanted)
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    assert report["users"] == sum(bool(items) for items in wanted.values())
    assert report["interactions"] == sum(map(len, wanted.values()))
    assert (report["recall"], report["ndcg"]) == ({"20": 1.0, "100": 1.0, "1000": 1.0}, {"20": 1.0})


def test_cold_items_are_counted(make_world: Callable[..., Any], world_day: str, tmp_path: Path) -> None:
    end = datasets.end_of(world_day)
    events = [(0, item, 1.0, end - 300_000, False, tables.TRAIN) for item in (0, 1)]
    events += [(0, item, 1.0, end - 60, False, tables.TEST) for item in (1, 2, 3, 3)]
    world = make_world(users=1, items=5, events=events)
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    write_candidates(config, world, world_day, {0: [3, 4]})
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    assert report["cold_items_share"] == pytest.approx(2 / 3, abs=1e-6)
    assert report["recall"]["20"] == pytest.approx(1 / 3, abs=1e-6)
    assert report["coverage"] == pytest.approx(2 / 5)


def test_active_users_are_those_of_the_last_days_and_covered_are_those_with_a_list(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "BATCH_USERS", 2)
    since = datasets.end_of(world_day) - 30 * 86_400
    times = [since, since + 5, since - 1, since + 9, since + 10, 1.0]
    events = [(user, 0, 1.0, int(time), False, tables.TRAIN) for user, time in enumerate(times)]
    world = make_world(users=7, items=3, events=[*events, (3, 1, 1.0, 4, False, tables.TRAIN)])
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    # 0, 1, 3 and 4 are active; 1 has an empty list and 4 has none at all.
    write_candidates(config, world, world_day, {}, served={5: [1], 3: [1, 2], 2: [0], 1: [], 0: [2]})
    evaluate.run(config, world_day)
    assert read_report(config, world_day)["active"] == {"days": 30, "users": 4, "covered": 2}


def test_no_test_interactions_judge_nothing(make_world: Callable[..., Any], world_day: str, tmp_path: Path) -> None:
    world = make_world(users=2, items=3, events=[(0, 0, 1.0, 1_700_000_000, True, tables.TRAIN)])
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    write_candidates(config, world, world_day, {})
    assert evaluate.run(config, world_day).rows == {"users": 0}
    report = read_report(config, world_day)
    assert (report["users"], report["test_from"], report["coverage"]) == (0, None, None)
    assert report["recall"] == {"20": None, "100": None, "1000": None}


def test_test_interactions_without_judged_lists_are_an_error(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    world = make_world()
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    write_candidates(config, world, world_day, {})
    with pytest.raises(NothingToJudgeError, match="test interactions"):
        evaluate.run(config, world_day)
    assert not (tmp_path / world_day / "evaluation").exists()


def test_retrieved_lists_can_be_judged(
    spark: Any, make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    world = make_world()
    config = configure(tmp_path, candidates=60)
    world.write(config.paths.workspace)
    retrieve.run(config, world_day, spark)
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    # Every item that may be offered is in a list of 60.
    assert report["recall"]["1000"] == report["popularity"]["recall"]["1000"] == 1.0
    assert 0 < report["recall"]["20"] < 1
    everybody = {event[0] for event in world.events}
    assert report["active"] == {"days": 30, "users": len(everybody), "covered": len(everybody)}
    assert evaluate.run(config, world_day).skipped
