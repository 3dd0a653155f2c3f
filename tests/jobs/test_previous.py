"""The version that was served before: compared by ids, only where that is fair, and never part of the next version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop_store import write_small_version

from jobs import datasets, evaluate
from jobs.evaluation.previous import find_previous
from prediction_store import history, layout
from schemas import tables
from schemas.config import Config, Paths

DAY = "2026-03-02"
"""Of a `World`; its test part is the last 24 hours."""
END = datasets.end_of(DAY)
FAIR = END - 86_400
DEFAULTS: dict[str, Any] = {"users": 30, "items": 40, "seed": 8}


@pytest.fixture
def judged(make_world: Callable[..., Any], tmp_path: Path) -> tuple[Any, Config]:
    """A world with lists to judge, and an empty store."""
    world = make_world(**DEFAULTS)
    config = Config(paths=Paths(workspace=str(tmp_path / "work"), store=str(tmp_path / "store")))
    world.write(config.paths.workspace)
    rng = np.random.default_rng(0)
    lists = {user: list(map(int, rng.permutation(world.items)[:25])) for user in world.judged()}
    world.write_candidates(config.paths.workspace, lists)
    return world, config


def publish(config: Config, made_at: int, **facts: Any) -> str:
    """A version that is current from now on."""
    number = len(layout.history_numbers(Path(config.paths.store)))
    return write_small_version(
        Path(config.paths.store), inputs=f"{made_at}", now=END + 60 * number, made_at=made_at, cut_over=True, **facts
    )


def wanted_of(world: Any, user: int) -> set[int]:
    found = {item for who, item, *_, split in world.events if who == user and split == tables.TEST}
    return found - set(world.consumed(user, before_test=True))


def read(config: Config, dataset: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(config.paths.workspace) / DAY / dataset / "report.json").read_text())
    return found


def test_its_lists_are_read_by_user_and_judged_by_item_id(judged: tuple[Any, Config]) -> None:
    world, config = judged
    dice = np.random.default_rng(1)
    # Its catalogue is in another order, lacks some of today's items, and has two that are gone.
    then = [*map(int, dice.permutation(world.items)[:30]), 900, 901]
    wanted = {user: wanted_of(world, user) for user in world.judged()}
    users = [user for user, items in wanted.items() if items]
    served = {user: dice.permutation(len(then)).tolist() for user in users[:-2]}
    served[users[0]] = []
    popular = dice.permutation(len(then)).tolist()
    name = publish(
        config,
        FAIR,
        n_items=len(then),
        item_ids=[world.item_id(item) for item in then],
        lists={world.user_id(user): items for user, items in served.items()},
        popular={"": popular},
    )
    evaluate.run(config, DAY)
    found = read(config, "report")["previous"]
    assert (found["version"], found["made_at"], found["users_without_list"]) == (name, FAIR, 3)
    recall: dict[int, list[float]] = {5: [], 20: [], 1000: []}
    for user in users:
        items = [then[place] for place in served.get(user) or popular]
        for k, values in recall.items():
            values.append(len(wanted[user] & set(items[:k])) / min(k, len(wanted[user])))
    for k, values in recall.items():
        assert found["recall"][str(k)] == pytest.approx(np.mean(values), abs=1e-6)
    ours = read(config, "evaluation")
    difference = found["difference"]["recall"]["20"]
    assert difference == pytest.approx(ours["recall"]["20"] - found["recall"]["20"], abs=2e-6)
    segments = read(config, "report")["segments"]
    assert all("previous" in segment for of in segments.values() for segment in of)


def test_a_version_that_knows_the_test_part_is_not_compared_with(judged: tuple[Any, Config]) -> None:
    _, config = judged
    publish(config, FAIR + 86_400)
    evaluate.run(config, DAY)
    report = read(config, "report")
    assert "previous" not in report
    assert "before the test part begins" in report["left_out"]["previous"]


def test_the_newest_fair_version_that_was_current_is_found(tmp_path: Path) -> None:
    config = Config(paths=Paths(store=str(tmp_path / "store")))
    root = Path(config.paths.store)
    assert find_previous(root, FAIR, "") is None
    publish(config, FAIR - 200)
    second = publish(config, FAIR - 100)
    write_small_version(root, inputs="never current", made_at=FAIR - 50)
    publish(config, FAIR + 1)
    found = find_previous(root, FAIR, "")
    assert found is not None
    assert found.version == second
    assert find_previous(root, FAIR - 300, "") is None


def test_after_a_rollback_the_version_that_is_served_is_the_one_before(tmp_path: Path) -> None:
    config = Config(paths=Paths(store=str(tmp_path / "store")))
    first = publish(config, FAIR - 200)
    publish(config, FAIR - 100)
    history.rollback(Path(config.paths.store), "test@localhost", "bad", END)
    found = find_previous(Path(config.paths.store), FAIR, "")
    assert found is not None
    assert found.version == first


def test_a_finished_report_stays_after_the_own_cutover_and_after_the_other_is_retired(
    judged: tuple[Any, Config],
) -> None:
    _, config = judged
    name = publish(config, FAIR)
    assert not evaluate.run(config, DAY).skipped
    before = read(config, "report")
    publish(config, END)
    assert evaluate.run(config, DAY).skipped
    path = layout.version_path(Path(config.paths.store), name)
    for folder in [path, *(entry for entry in path.rglob("*") if entry.is_dir())]:
        folder.chmod(0o755)
    shutil.rmtree(path)
    assert evaluate.run(config, DAY).skipped
    assert read(config, "report") == before


def test_another_version_before_makes_the_report_anew_and_nothing_else(judged: tuple[Any, Config]) -> None:
    _, config = judged
    evaluate.run(config, DAY)
    evaluation = datasets.open_dataset(config.paths.workspace, DAY, "evaluation")
    travels = evaluation.part("report.json").read_bytes()
    name = publish(config, FAIR)
    assert not evaluate.run(config, DAY).skipped
    assert read(config, "report")["previous"]["version"] == name
    again = datasets.open_dataset(config.paths.workspace, DAY, "evaluation")
    assert (again.fingerprint, again.part("report.json").read_bytes()) == (evaluation.fingerprint, travels)


def test_a_damaged_version_is_left_out_with_the_reason_and_stops_nothing(judged: tuple[Any, Config]) -> None:
    _, config = judged
    name = publish(config, FAIR)
    vectors = layout.version_path(Path(config.paths.store), name) / layout.ITEM_VECTORS
    vectors.chmod(0o644)
    *head, last = vectors.read_bytes()
    vectors.write_bytes(bytes([*head, last ^ 1]))
    evaluate.run(config, DAY)
    report = read(config, "report")
    assert name in report["left_out"]["previous"]
    assert "digest" in report["left_out"]["previous"]
    assert "previous" not in report
