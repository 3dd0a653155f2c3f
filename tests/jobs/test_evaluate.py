"""The report against slow loops over the lists that were retrieved."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from jobs import datasets, evaluate, retrieve
from jobs.errors import NothingToJudgeError
from jobs.evaluation import content, judged
from jobs.list_order import Order
from schemas import tables
from schemas.config import Config, Lists, Paths, Retrieve


def configure(folder: Path, **settings: Any) -> Config:
    return Config(paths=Paths(workspace=str(folder), store=str(folder / "store")), retrieve=Retrieve(**settings))


def read_report(config: Config, day: str) -> dict:
    return json.loads((Path(config.paths.workspace) / day / "evaluation" / "report.json").read_text())


def wanted_of(world: Any, user: int, dropped: bool) -> set[int]:
    wanted = {item for who, item, _, _, _, split in world.events if who == user and split == tables.TEST}
    return wanted - world.consumed(user, before_test=True) if dropped else wanted


def slow_measures(world: Any, lists: dict[int, list[int]], dropped: bool) -> dict:
    """The measures of item lists, by a loop over users."""
    recall: dict[int, list[float]] = {k: [] for k in judged.RECALL_AT}
    ndcg, hit, reciprocal = [], [], []
    shown: dict[int, Counter[int]] = {k: Counter() for k in judged.SEGMENT_AT}
    for user, items in lists.items():
        for k, counts in shown.items():
            counts.update(items[:k])
        wanted = wanted_of(world, user, dropped)
        if not wanted:
            continue
        for k, values in recall.items():
            values.append(len(wanted & set(items[:k])) / min(k, len(wanted)))
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(items[:20]) if item in wanted)
        ndcg.append(gain / sum(1 / math.log2(place + 2) for place in range(min(20, len(wanted)))))
        hit.append(bool(wanted & set(items[:20])))
        reciprocal.append(next((1 / place for place, item in enumerate(items[:20], 1) if item in wanted), 0.0))
    known = Counter(event[1] for event in world.events if event[5] != tables.TEST)
    head = {item for item in range(world.items) if band_of(world, item) == "head"}

    def about(value: float) -> Any:
        return pytest.approx(value, abs=1e-6)

    coverage = {str(k): about(len(counts) / world.items) for k, counts in shown.items()}
    return {
        "recall": {str(k): about(np.mean(values)) for k, values in recall.items()},
        "ndcg": {"20": about(np.mean(ndcg))},
        "hit_rate": {"20": about(np.mean(hit))},
        "mrr": {"20": about(np.mean(reciprocal))},
        "coverage": coverage["100"],
        "exposure": {
            "lists": len(lists),
            "coverage": coverage,
            "gini": {str(k): about(slow_gini(shown[k], world.items)) for k in (20, 100)},
            "head_share": {str(k): about(sum(shown[k][item] for item in head) / shown[k].total()) for k in (20, 100)},
            "mean_popularity": {
                str(k): pytest.approx(
                    sum(count * known[item] for item, count in shown[k].items()) / shown[k].total(), abs=0.01
                )
                for k in (20, 100)
            },
            "long_tail_recall": slow_recall_in(world, lists, dropped, lambda _, item: band_of(world, item) == "tail"),
        },
    }


def slow_gini(shown: Counter[int], items: int) -> float:
    """Half the mean absolute difference between two items, relative to the mean."""
    counts = [shown[item] for item in range(items)]
    return sum(abs(a - b) for a in counts for b in counts) / (2 * items * sum(counts))


def band_of(world: Any, item: int) -> str:
    known = Counter(event[1] for event in world.events if event[5] != tables.TEST)
    above = sum(count for count in known.values() if count > known[item])
    if not known[item]:
        return "cold"
    return "head" if above < 0.2 * known.total() else "mid" if above < 0.8 * known.total() else "tail"


def slow_recall_in(
    world: Any, lists: dict[int, list[int]], dropped: bool, belongs: Callable[[int, int], bool]
) -> dict[str, Any]:
    """Recall of the wanted (user, item) pairs that belong to a segment."""
    found: dict[str, Any] = {}
    for k in judged.SEGMENT_AT:
        values = []
        for user, items in lists.items():
            wanted = {item for item in wanted_of(world, user, dropped) if belongs(user, item)}
            if wanted:
                values.append(len(wanted & set(items[:k])) / min(k, len(wanted)))
        found[str(k)] = pytest.approx(np.mean(values), abs=1e-6) if values else None
    return found


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
    world.write_candidates(config.paths.workspace, lists)
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    dropped = policy == "drop"
    known = Counter(event[0] for event in world.events if event[5] != tables.TEST)
    rankings = {"ours": lists, "popularity": popular_lists(world, dropped)}
    for name, found in (("ours", report), ("popularity", report["popularity"])):
        expected = slow_measures(world, rankings[name], dropped)
        assert {key: found[key] for key in expected} == expected
        for segment in report["segments"]["items"]:
            in_band = slow_recall_in(
                world, rankings[name], dropped, lambda _, item, band=segment["name"]: band_of(world, item) == band
            )
            assert segment[name]["recall"] == in_band
        for segment in report["segments"]["users"]:
            in_band = slow_recall_in(
                world, rankings[name], dropped, lambda user, _, of=segment: of["low"] <= known[user] <= of["high"]
            )
            assert segment[name]["recall"] == in_band
    for segments in report["segments"].values():
        assert sum(segment["interactions"] for segment in segments) == report["interactions"]
    assert sum(segment["users"] for segment in report["segments"]["users"]) == report["users"]
    assert report["test_from"] == min(event[3] for event in world.events if event[5] == tables.TEST)


def test_lists_are_judged_in_the_order_that_they_would_have_been_offered_in(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    world = make_world(users=50, items=150, seed=8, order=Order(recent=2.0, own=1.0, again=1.0))
    config = configure(tmp_path, consumed="keep")
    world.write(config.paths.workspace)
    rng = np.random.default_rng(0)
    lists = {user: list(map(int, rng.permutation(150))) for user in world.judged()}
    world.write_candidates(config.paths.workspace, lists)
    evaluate.run(config, world_day)
    known = [event for event in world.events if event[5] < tables.TEST]
    late = np.zeros(150)
    for _, item, weight, when, _, _ in known:
        late[item] += weight * 0.5 ** ((max(event[3] for event in known) - when) / (2 * 86_400))
    in_order = {}
    for user, items in lists.items():
        added = 2.0 * np.log1p(late)
        for item, times in world.times(user, before_test=True).items():
            added[item] += 1.0 + times
        in_order[user] = [items[place] for place in np.argsort(-added[items], kind="stable")]
    expected = slow_measures(world, in_order, dropped=False)
    report = read_report(config, world_day)
    assert {key: report[key] for key in expected} == expected
    by_products = slow_measures(world, lists, dropped=False)
    assert expected != by_products
    shutil.rmtree(tmp_path / world_day / "prepared")  # and the same again
    world.order = Order()
    world.write(config.paths.workspace)
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    assert {key: report[key] for key in by_products} == by_products
    found = datasets.open_dataset(config.paths.workspace, world_day, "evaluation").path
    assert sorted(path.name for path in found.iterdir()) == ["judged.npy", "manifest.json", "report.json"]


def test_lists_are_judged_with_what_joins_them(make_world: Callable[..., Any], world_day: str, tmp_path: Path) -> None:
    day, end = 86_400, datasets.end_of(world_day)
    events = [(0, 1, 1.0, end - 3 * day, False, 0), (0, 2, 5.0, end - 3 * day, True, 0), (0, 1, 1.0, end - 5, False, 2)]
    events += [(user, 9, 1.0, end - 2 * day, False, 0) for user in range(1, 6)] + [(1, 9, 1.0, end - 4, False, 2)]
    world = make_world(users=6, items=12, events=events, order=Order(recent=50.0, own=90.0))
    config = configure(tmp_path)
    config = msgspec.structs.replace(config, retrieve=msgspec.structs.replace(config.retrieve, candidates=2))
    world.write(config.paths.workspace)
    world.write_candidates(config.paths.workspace, {0: [3, 4], 1: [3, 4]})
    evaluate.run(config, world_day)
    recall = read_report(config, world_day)["recall"]
    assert (recall["1"], recall["2"]) == (1.0, 1.0), "its own item, and one of late; never what was consumed"


def test_whom_no_version_could_have_known_is_judged_on_what_was_popular_then(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    before, day = datasets.end_of(world_day) - 86_400, 86_400
    events = [(0, 1, 1.0, before - 90 * day, False, tables.TRAIN) for _ in range(5)]
    events += [(0, 2, 1.0, before - day, False, tables.VALIDATION), (0, 3, 0.0, before - day, False, tables.TRAIN)]
    events += [(4, 3, 0.0, before - day, True, tables.TRAIN)]
    events += [(user, 2, 1.0, before, False, tables.TEST) for user in range(5)]
    # 1 is known by a row, 4 by something that weighs nothing; the order of late is 2, 1.
    world = make_world(users=5, items=5, events=events, without_row={0, 2, 3, 4})
    config = configure(tmp_path, consumed="keep")
    world.write(config.paths.workspace)
    world.write_candidates(config.paths.workspace, {user: [4, 0, 1] for user in range(5)})
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    assert (report["users"], report["users_without_list"]) == (5, 2)
    assert report["recall"]["1"] == report["recall"]["1000"] == pytest.approx(2 / 5)
    assert report["popularity"]["recall"]["1"] == 0.0
    assert report["exposure"]["coverage"]["20"] == pytest.approx(4 / 5)
    assert report["segments"]["users"][0]["ours"]["recall"]["20"] == pytest.approx(2 / 4)


@pytest.mark.parametrize("length", [7, 1000])
def test_what_was_popular_then_is_that_of_a_loop(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "BATCH_USERS", 4)
    world = make_world(users=50, items=150, seed=8, without_row=set(range(0, 50, 4)))
    world.events = [event for event in world.events if event[0] % 3 or event[5] == tables.TEST]
    config = configure(tmp_path, consumed="drop")
    config = msgspec.structs.replace(config, lists=Lists(length=length, popular_half_life_days=3.0))
    world.write(config.paths.workspace)
    rng = np.random.default_rng(0)
    lists = {user: list(map(int, rng.permutation(150)[: rng.integers(0, 50)])) for user in reversed(world.judged())}
    world.write_candidates(config.paths.workspace, lists)
    evaluate.run(config, world_day)
    weights = np.zeros(150)
    for _, item, weight, when, _, split in world.events:
        weights[item] += weight * 0.5 ** ((datasets.end_of(world_day) - when) / (3 * 86_400)) * (split != tables.TEST)
    popular = [item for item in sorted(range(150), key=lambda item: (-weights[item], item)) if weights[item]][:length]
    strangers = [user for user in lists if user % 12 == 0]
    served = lists | dict.fromkeys(strangers, popular)
    report = read_report(config, world_day)
    expected = slow_measures(world, served, dropped=True)
    assert {key: report[key] for key in expected} == expected
    assert expected != slow_measures(world, lists, dropped=True)
    assert report["users_without_list"] == len(strangers) > 1


def test_the_best_lists_score_one(make_world: Callable[..., Any], world_day: str, tmp_path: Path) -> None:
    world = make_world(seed=8)
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    wanted: dict[int, list[int]] = {user: [] for user in world.judged()}
    for user, item, _, _, _, split in world.events:
        if split == tables.TEST and item not in world.consumed(user, before_test=True) | set(wanted[user]):
            wanted[user].append(item)
    world.write_candidates(config.paths.workspace, wanted)
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    assert report["users"] == sum(bool(items) for items in wanted.values())
    assert report["interactions"] == sum(map(len, wanted.values()))
    assert set(report["recall"].values()) == {1.0}
    assert (report["ndcg"], report["hit_rate"], report["mrr"]) == ({"20": 1.0}, {"20": 1.0}, {"20": 1.0})
    assert report["intervals"]["recall"]["20"] == [1.0, 1.0]


def test_a_difference_is_that_of_the_means_and_its_interval_holds_it(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    world = make_world(users=60, items=150, seed=8)
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    rng = np.random.default_rng(0)
    world.write_candidates(
        config.paths.workspace, {user: list(map(int, rng.permutation(150)[:60])) for user in world.judged()}
    )
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    for name in ("popularity", "content"):
        found = report[name]["difference"]
        assert found["users"] == report["users"]
        for measure, k in (("recall", "20"), ("recall", "1000"), ("ndcg", "20"), ("mrr", "20")):
            value, (low, high) = found[measure][k], found["intervals"][measure][k]
            assert value == pytest.approx(report[measure][k] - report[name][measure][k], abs=2e-6)
            assert low < value < high


def test_the_same_lists_in_other_files_and_batches_give_the_same_bytes(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(users=50, items=150, seed=8)
    rng = np.random.default_rng(0)
    lists = {user: list(map(int, rng.permutation(150)[: rng.integers(0, 150)])) for user in world.judged()}
    found = []
    for place, users in enumerate((list(lists), list(reversed(lists)))):
        monkeypatch.setattr(evaluate, "BATCH_USERS", 4 + place)
        monkeypatch.setattr(content, "MAX_CELLS", 4000 * (place + 1))
        config = configure(tmp_path / str(place))
        world.write(config.paths.workspace)
        world.write_candidates(config.paths.workspace, {user: lists[user] for user in users})
        evaluate.run(config, world_day)
        day = Path(config.paths.workspace) / world_day
        found.append([(day / file).read_bytes() for file in ("evaluation/report.json", "report/report.html")])
    assert found[0] == found[1]


def test_cold_items_are_counted(make_world: Callable[..., Any], world_day: str, tmp_path: Path) -> None:
    end = datasets.end_of(world_day)
    events = [(0, item, 1.0, end - 300_000, False, tables.TRAIN) for item in (0, 1)]
    events += [(0, 2, 1.0, end - 100_000, False, tables.VALIDATION)]
    events += [(0, item, 1.0, end - 60, False, tables.TEST) for item in (1, 2, 3, 3)]
    world = make_world(users=1, items=5, events=events)
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    world.write_candidates(config.paths.workspace, {0: [3, 4]})
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    assert report["cold_items_share"] == pytest.approx(1 / 3, abs=1e-6)
    assert report["recall"]["20"] == pytest.approx(1 / 3, abs=1e-6)
    assert report["coverage"] == pytest.approx(2 / 5)


def test_what_weighs_nothing_is_neither_wanted_nor_known(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    end = datasets.end_of(world_day)
    events = [(0, 0, 1.0, end - 300_000, False, tables.TRAIN), (1, 2, 1.0, end - 300_000, False, tables.TRAIN)]
    events += [(1, 3, 0.0, end - 200_000 - times, False, tables.TRAIN) for times in range(9)]
    events += [(0, 1, 1.0, end - 60, False, tables.TEST), (0, 2, 0.0, end - 60, False, tables.TEST)]
    events += [(1, 0, 0.0, end - 60, False, tables.TEST)]
    world = make_world(users=2, items=4, events=events)
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    world.write_candidates(config.paths.workspace, {0: [1, 3], 1: [2]})
    evaluate.run(config, world_day)
    report = read_report(config, world_day)
    assert (report["users"], report["interactions"]) == (1, 1)
    assert (report["recall"]["1"], report["ndcg"]["20"]) == (1.0, 1.0)
    recall = report["popularity"]["recall"]
    assert (recall["2"], recall["5"]) == (0.0, 1.0), "the order is 0, 2, 1, 3"
    items = {segment["name"]: segment["items"] for segment in report["segments"]["items"]}
    assert items == {"head": 2, "mid": 0, "tail": 0, "cold": 2}


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
    world.write_candidates(config.paths.workspace, {}, served={5: [1], 3: [1, 2], 2: [0], 1: [], 0: [2]})
    evaluate.run(config, world_day)
    assert read_report(config, world_day)["active"] == {"days": 30, "users": 4, "covered": 2}


def test_no_test_interactions_judge_nothing(make_world: Callable[..., Any], world_day: str, tmp_path: Path) -> None:
    world = make_world(users=2, items=3, events=[(0, 0, 1.0, 1_700_000_000, True, tables.TRAIN)])
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    world.write_candidates(config.paths.workspace, {})
    assert evaluate.run(config, world_day).rows == {"users": 0}
    report = read_report(config, world_day)
    assert (report["users"], report["test_from"], report["coverage"]) == (0, None, None)
    assert set(report["recall"].values()) == {None}
    page = (Path(config.paths.workspace) / world_day / "report/report.html").read_text()
    assert "No interaction is held out" in page
    assert evaluate.run(config, world_day).details["warning_users"] == "nobody is judged; raise split.test_days"


def test_test_interactions_without_judged_lists_are_an_error(
    make_world: Callable[..., Any], world_day: str, tmp_path: Path
) -> None:
    world = make_world()
    config = configure(tmp_path)
    world.write(config.paths.workspace)
    world.write_candidates(config.paths.workspace, {})
    with pytest.raises(NothingToJudgeError, match="test interactions") as refused:
        evaluate.run(config, world_day)
    assert f"remove {tmp_path / world_day / 'candidates'} and run again: shortlist retrieve" in refused.value.hint
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
