"""Trend and contexts of items against slow loops, and the same bytes whatever the partitioning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import contexts, trend
from schemas import tables
from schemas.config import Lists

END = int(datetime(2026, 3, 3, tzinfo=UTC).timestamp())
DAY = 86_400
Event = tuple[int, float, int, str | None]
"""item, weight, time, device."""
Frame = Callable[..., Any]


@pytest.fixture
def frame(spark: Any) -> Frame:
    """Interactions as Spark has them, cut in so many parts."""

    def make(events: list[Event], partitions: int = 3) -> Any:
        rows = [
            {
                "user_index": 0, "item_index": item, "event": "view", "weight": weight, "time": time,
                "session_id": None, "device": device, "consumed": False, "split": tables.TRAIN,
            }
            for item, weight, time, device in events
        ]  # fmt: skip
        return spark.createDataFrame(pa.Table.from_pylist(rows, schema=tables.INTERACTIONS)).repartition(partitions)

    return make


def random_events(seed: int) -> list[Event]:
    """Of 20 items, each with a taste in hours, on ten devices and none; some weigh nothing."""
    dice = np.random.default_rng(seed)
    devices = [None, "", "TV", *(f"device {number}" for number in range(8)), "Größe"]
    events = []
    for _ in range(900):
        item = int(dice.integers(20))
        hour = int(dice.normal(item, 3)) % 24
        time = END - int(dice.integers(1, 60)) * DAY + hour * 3600 + int(dice.integers(3600))
        device = devices[int(len(devices) * dice.random() ** 2)]
        events.append((item, float(dice.choice([0.0, 1.0, 3.0])), min(time, END - 1), device))
    return events


def write_trend(rows: Any, folder: Path, items: int, **settings: Any) -> np.ndarray:
    trend.write(rows, Lists(**settings), END, np.arange(items, dtype=np.int32)[::-1].copy(), folder)
    return np.load(folder / "trend.npy")[::-1]


def test_a_trend_is_the_share_of_the_last_days_and_shouts_only_when_many_do(frame: Frame, tmp_path: Path) -> None:
    today, long_ago = END - 1, END - 30 * DAY
    events: list[Event] = [(0, 1.0, today, None)] * 10 + [(1, 1.0, today, None)] * 1000 + [(2, 1.0, today, None)]
    events += [(3, 2.0, long_ago, None)] * 1000
    found = write_trend(frame(events), tmp_path, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0.5, 1000 / 1010, 1 / 11, 2000 * 0.5**15 / 1010, 0], rtol=2e-4)


def test_a_trend_is_that_of_a_loop_in_any_partitioning(frame: Frame, tmp_path: Path) -> None:
    events = random_events(1)
    popular, recent = Counter[int](), Counter[int]()
    for item, weight, time, _ in events:
        popular[item] += weight * 0.5 ** ((END - time) / DAY / 30)  # type: ignore[assignment]
        recent[item] += weight * 0.5 ** ((END - time) / DAY / 2)  # type: ignore[assignment]
    one, other = (write_trend(frame(events, partitions), tmp_path, 21) for partitions in (1, 6))
    np.testing.assert_allclose(one, [recent[item] / (popular[item] + 10) for item in range(21)], rtol=1e-5)
    assert one.tobytes() == other.tobytes()
    assert one[:20].min() > 0


def test_a_trend_stays_below_1_when_the_half_lives_change_places(frame: Frame, tmp_path: Path) -> None:
    events: list[Event] = [(0, 1.0, END - 30 * DAY, None)] * 1000
    found = write_trend(frame(events), tmp_path, 1, popular_half_life_days=1.0, trending_half_life_days=60.0)
    assert found.tolist() == [1.0]


def write_contexts(rows: Any, folder: Path, items: int) -> dict[tuple[str, str], np.ndarray]:
    names = contexts.write(rows, np.arange(items, dtype=np.int32)[::-1].copy(), folder)
    found = np.load(folder / "context.npy")
    (folder / "context.npy").unlink()
    assert not list(folder.iterdir())
    assert (found.dtype, found.shape) == (np.float32, (len(names), items))
    return dict(zip(names, found[:, ::-1], strict=True))


def slow_contexts(events: list[Event], items: int) -> dict[tuple[str, str], list[float]]:
    seen = Counter(device for _, weight, _, device in events if device and weight)
    devices = sorted(seen, key=lambda device: (-seen[device], device.encode()))[:8]
    found: dict[tuple[str, str], list[float]] = {}
    for kind, values in (("hour", range(24)), ("weekday", range(7)), ("device", devices)):
        of_kind: list[tuple[int, Any]] = []
        for item, weight, time, device in events:
            when = datetime.fromtimestamp(time, UTC)
            value = {"hour": when.hour, "weekday": when.weekday(), "device": device or None}[kind]
            if weight and value is not None:
                of_kind.append((item, value))
        for value in values:
            usual = sum(there == value for _, there in of_kind) / len(of_kind) if of_kind else 0
            row = []
            for item in range(items):
                own = [there for who, there in of_kind if who == item]
                lift = (own.count(value) + 20 * usual) / ((len(own) + 20) * usual) if usual else 1
                row.append(max(-1.0, min(1.0, math.log2(lift))))
            found[kind, str(value)] = row
    return found


def test_affinities_are_those_of_a_loop_in_any_partitioning(frame: Frame, tmp_path: Path) -> None:
    events = random_events(2)
    expected = slow_contexts(events, 21)
    one, other = (write_contexts(frame(events, partitions), tmp_path, 21) for partitions in (1, 6))
    assert list(one) == list(other) == list(expected)
    assert len(one) == 24 + 7 + 8
    for name, row in expected.items():
        np.testing.assert_allclose(one[name], row, atol=1e-6)
        assert one[name].tobytes() == other[name].tobytes()
        assert one[name][20] == 0  # nobody met it


def test_an_item_of_the_evening_is_known_by_its_evenings(frame: Frame, tmp_path: Path) -> None:
    """The last second of a Sunday and the first one of a Monday, on a phone and on nothing that is known."""
    sunday, monday = (int(datetime(2026, 3, day, hour, tzinfo=UTC).timestamp()) for day, hour in ((1, 23), (2, 0)))
    events: list[Event] = [(0, 1.0, sunday + 3599, "phone")] * 300 + [(1, 1.0, monday, None)] * 300
    found = write_contexts(frame(events), tmp_path, 3)
    share = math.log2((300 + 10) / (320 * 0.5))
    for name, item in ((("hour", "23"), 0), (("hour", "0"), 1), (("weekday", "6"), 0), (("weekday", "0"), 1)):
        row = [-1.0, -1.0, 0.0]
        row[item] = share
        np.testing.assert_allclose(found[name], row, rtol=1e-6)
    for name in (("hour", "12"), ("weekday", "3"), ("device", "phone")):  # never, never, and always: nothing is known
        assert found[name].tolist() == [0, 0, 0]


def test_without_any_device_there_is_no_row_of_one(frame: Frame, tmp_path: Path) -> None:
    found = write_contexts(frame([(0, 1.0, END - 1, None), (0, 1.0, END - 1, "")]), tmp_path, 1)
    assert len(found) == 24 + 7


def test_equally_common_devices_come_by_name(frame: Frame, tmp_path: Path) -> None:
    events: list[Event] = [(0, 1.0, END - 1, f"d{number}") for number in range(12)] + [(0, 1.0, END - 1, "d11")]
    names = [value for kind, value in write_contexts(frame(events), tmp_path, 1) if kind == "device"]
    assert names == ["d11", "d0", "d1", "d10", "d2", "d3", "d4", "d5"]


def test_the_affinity_of_few_interactions_is_small() -> None:
    found = contexts.affinity(np.array([1, 40, 0, 0]), np.array([1, 40, 40, 0]))
    assert 0 < found[0] < 0.1 < found[1] < 1
    assert (found[2], found[3]) == (-1, 0)
