"""What lists are put in order by, against loops over the interactions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import datasets
from jobs.datasets import DAY_SECONDS
from jobs.errors import DatasetDamagedError
from jobs.known import Known, open_known, write_known

END = 1_000
"""Day of the newest event."""
Events = list[tuple[int, int, float, int]]
"""(user, item, weight, days before the end)"""


def known_of(make_world: Any, world_day: str, folder: Path, events: Events, **settings: Any) -> Known:
    """What is known of these events, the dense indexes being the numbers of the items turned around."""
    split = settings.pop("split", 0)
    consumed = settings.pop("consumed", ())
    rows = [
        (user, item, weight, (END - age) * DAY_SECONDS, (user, item, weight) in consumed, split)
        for user, item, weight, age in events
    ]
    world = make_world(events=rows)
    world.write(folder)
    prepared = datasets.open_dataset(folder, world_day, "prepared")
    return write_known(prepared, np.arange(world.items)[::-1], folder / "known", **settings)


def met_by(known: Known, user: int) -> dict[int, float]:
    """Item to times."""
    mine = slice(known.starts[user], known.ends[user])
    items = len(known.recent) - 1 - known.items[mine].astype(np.int64)
    return dict(zip(items.tolist(), known.times[mine].tolist(), strict=True))


def recent_of(known: Known) -> dict[int, float]:
    """Item to what is known of it, where that is something."""
    found = known.recent[::-1]
    return {int(item): float(found[item]) for item in np.flatnonzero(found)}


def test_what_is_of_late_halves_every_two_days_and_what_is_ones_own_every_ninety(
    make_world: Any, world_day: str, tmp_path: Path
) -> None:
    # The last one says nothing, and so is not the newest.
    events = [(1, 2, 1.0, 0), (1, 2, 4.0, 4), (0, 2, 2.0, 90), (0, 5, 1.0, 180), (0, 2, 1.0, 0), (3, 3, 0.0, -9)]
    known = known_of(make_world, world_day, tmp_path, events)
    assert recent_of(known) == pytest.approx({2: math.log1p(1 + 1 + 1)}, abs=1e-6)
    assert met_by(known, 0) == pytest.approx({2: math.log1p(1.5), 5: math.log1p(0.25)})
    assert met_by(known, 1) == pytest.approx({2: math.log1p(1 + 0.5 ** (4 / 90))})
    assert (met_by(known, 2), met_by(known, 3)) == ({}, {})
    kinds = ["float32", "uint32", "int64", "int64", "uint32", "float32", "bool"]
    assert [array.dtype.name for array in known] == kinds
    assert not known.is_dropped.any()


def test_every_user_of_a_world_is_known_by_all_that_was_done_until_then(
    make_world: Any, world_day: str, tmp_path: Path
) -> None:
    world = make_world()
    world.write(tmp_path)
    prepared, order = datasets.open_dataset(tmp_path, world_day, "prepared"), np.arange(world.items)[::-1]
    everything = write_known(prepared, order, tmp_path / "everything")
    before = write_known(prepared, order, tmp_path / "before", before=2)
    differ = 0
    for user in range(world.users):
        assert met_by(everything, user) == pytest.approx(world.times(user))
        assert met_by(before, user) == pytest.approx(world.times(user, before_test=True))
        differ += met_by(everything, user).keys() != met_by(before, user).keys()
    assert differ
    for array, again in zip(before, open_known(tmp_path / "before"), strict=True):
        np.testing.assert_array_equal(array, again)


def test_a_user_may_have_met_more_than_a_history_holds(make_world: Any, world_day: str, tmp_path: Path) -> None:
    events = [(0, item % 40, 1.0, age) for age in range(20) for item in range(40)]
    found = met_by(known_of(make_world, world_day, tmp_path, events), 0)
    assert sorted(found) == list(range(40))
    assert list(found.values()) == pytest.approx([math.log1p(sum(0.5 ** (age / 90) for age in range(20)))] * 40)


def test_what_is_of_late_is_the_same_in_whatever_order_the_interactions_come(
    make_world: Any, world_day: str, tmp_path: Path
) -> None:
    # So near to the next number of 32 bits that old interactions, added up first, reach it; one by one they vanish.
    events = [(0, 0, 14_464_286 / 2**23, 0)] + [(0, 0, 1.0, 108)] * 2_000
    for turn, name in ((1, "one"), (-1, "other")):
        known_of(make_world, world_day, tmp_path / name, events[::turn])
    one, other = (open_known(tmp_path / name / "known") for name in ("one", "other"))
    assert (one.recent.max(), one.times.max()) == (other.recent.max(), other.times.max())


def test_what_was_met_ages_ago_counts_for_nothing(make_world: Any, world_day: str, tmp_path: Path) -> None:
    found = known_of(make_world, world_day, tmp_path, [(0, 1, 1.0, 0), (0, 2, 1.0, 100), (0, 3, 1.0, 99 * 90)])
    assert sorted(met_by(found, 0)) == [1, 2]


def test_what_was_consumed_is_dropped_however_long_ago_and_whatever_it_says(
    make_world: Any, world_day: str, tmp_path: Path
) -> None:
    events = [(0, 1, 1.0, 0), (0, 2, 1.0, 99 * 90), (0, 3, 0.0, 5), (0, 4, 0.0, -9_000), (0, 5, 1.0, 0), (0, 5, 2.0, 9)]
    consumed = [(0, 2, 1.0), (0, 3, 0.0), (0, 4, 0.0), (0, 5, 2.0)]
    known = known_of(make_world, world_day, tmp_path, events, consumed=consumed, drop_consumed=True)
    both = math.log1p(1 + 0.5 ** (9 / 90))
    assert met_by(known, 0) == pytest.approx({1: math.log1p(1), 2: 0.0, 3: 0.0, 4: 0.0, 5: both})
    assert sorted(59 - known.items[known.is_dropped].astype(int)) == [2, 3, 4, 5]
    assert sorted(recent_of(known)) == [1, 5]
    prepared = datasets.open_dataset(tmp_path, world_day, "prepared")
    kept = write_known(prepared, np.arange(60)[::-1], tmp_path / "kept")
    assert (sorted(met_by(kept, 0)), kept.is_dropped.any()) == ([1, 5], False)


def test_what_is_of_late_for_everybody_is_a_short_list_the_most_met_first(
    make_world: Any, world_day: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [(user, item, 1.0, 0) for item in range(9) for user in range(item)] + [(0, 20, 1.0, 900), (0, 21, 1.0, 0)]
    known = known_of(make_world, world_day, tmp_path / "all", events)
    assert (59 - known.late.astype(int)).tolist() == [8, 7, 6, 5, 4, 3, 2, 21, 1]
    monkeypatch.setattr("jobs.known.LATE_ITEMS", 3)
    known = known_of(make_world, world_day, tmp_path / "three", events)
    assert (59 - known.late.astype(int)).tolist() == [8, 7, 6]


def test_nothing_may_be_known(make_world: Any, world_day: str, tmp_path: Path) -> None:
    known = known_of(make_world, world_day, tmp_path, [(0, 1, 0.0, 0)])
    assert (known.recent.max(), known.ends.max(), known.items.size, known.times.size) == (0.0, 0, 0, 0)


def test_a_user_in_two_files_is_refused(make_world: Any, world_day: str, tmp_path: Path) -> None:
    known_of(make_world, world_day, tmp_path, [(0, 1, 1.0, 0), (1, 2, 1.0, 3)])
    prepared = datasets.open_dataset(tmp_path, world_day, "prepared")
    file = next(prepared.part("interactions").glob("*-0.parquet"))
    file.with_name("part-9.parquet").write_bytes(file.read_bytes())
    with pytest.raises(DatasetDamagedError, match=r"part-9\.parquet: has users whose interactions lie in another"):
        write_known(prepared, np.arange(60), tmp_path / "known")
