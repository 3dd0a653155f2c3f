"""Counts that decay, shared by the processes of a host: against a loop, and whatever is in the file."""

from __future__ import annotations

import multiprocessing
import resource
import struct
from pathlib import Path

import numpy as np
import pytest

from reranker import decayed_counts
from reranker.decayed_counts import BYTES, CELLS, FILE, HALF_LIFE_SECONDS, ROWS, DecayedCounts, cells_of
from reranker.errors import SessionsError

NOW = 1_772_500_000.0
ITEMS = [f"item {number}" for number in range(50)]


@pytest.fixture
def counts(tmp_path: Path) -> DecayedCounts:
    return DecayedCounts(tmp_path)


def counted(counts: DecayedCounts, now: float = NOW) -> dict[str, float]:
    """The items that count."""
    found = counts.of(cells_of(ITEMS), now)
    return {item: count for item, count in zip(ITEMS, found.tolist(), strict=True) if count}


def test_a_count_is_worth_half_after_a_half_life(counts: DecayedCounts) -> None:
    for user, item, age in (("a", "item 1", 2.0), ("b", "item 1", 0.5), ("a", "item 2", 3.0)):
        counts.add(user, item, NOW - age * HALF_LIFE_SECONDS)
    assert counted(counts) == pytest.approx({"item 1": 0.25 + 0.5**0.5, "item 2": 0.125})
    assert counted(counts, NOW + HALF_LIFE_SECONDS)["item 2"] == pytest.approx(0.0625)


def test_it_is_known_since_when_an_item_counts(counts: DecayedCounts, tmp_path: Path) -> None:
    for user, item, hours in (("a", "item 1", -90), ("b", "item 1", -43), ("c", "item 1", -1), ("a", "item 2", -90)):
        counts.add(user, item, NOW + 3600 * hours)
    counts.add("b", "item 2", NOW - 3600)  # after 89 hours of quiet
    other, cells = DecayedCounts(tmp_path), cells_of(["item 1", "item 2"])
    other.of(cells, NOW)
    assert other.since(cells).tolist() == [NOW - 90 * 3600, NOW - 3600]
    assert DecayedCounts(tmp_path / "elsewhere").since(cells).tolist() == [0.0, 0.0]


def test_the_file_of_an_earlier_format_goes(tmp_path: Path) -> None:
    earlier = tmp_path / "trending-1.counts"
    earlier.write_bytes(b"x")
    counts = DecayedCounts(tmp_path)
    assert counted(counts) == {}
    counts.add("a", "item 1", NOW)
    assert not earlier.exists()


def test_counts_are_those_of_a_loop(counts: DecayedCounts) -> None:
    rng = np.random.default_rng(3)
    times = np.sort(NOW - rng.random(3_000) * 4 * HALF_LIFE_SECONDS)
    wanted: dict[str, float] = {}
    has_counted = set()
    for time, user, item in zip(times, rng.integers(30, size=3_000), rng.integers(50, size=3_000), strict=True):
        counts.add(f"user {user}", ITEMS[item], float(time))
        if (mark := (user, item, time // HALF_LIFE_SECONDS)) not in has_counted:
            has_counted.add(mark)
            wanted[ITEMS[item]] = wanted.get(ITEMS[item], 0.0) + 0.5 ** ((NOW - time) / HALF_LIFE_SECONDS)
    assert len(has_counted) < 2_700
    assert counted(counts) == pytest.approx(wanted)


def test_one_user_counts_once_for_an_item_within_a_half_life(counts: DecayedCounts) -> None:
    began = NOW // HALF_LIFE_SECONDS * HALF_LIFE_SECONDS
    for second in range(200):
        counts.add("a", "item 1", began + second)
        counts.add("b" * (second % 2 + 1), "item 2", began + second)
    found = counted(counts, began + 200)
    assert (found["item 1"], found["item 2"]) == (pytest.approx(1.0, abs=0.01), pytest.approx(2.0, abs=0.02))
    counts.add("a", "item 1", began + HALF_LIFE_SECONDS)
    assert counted(counts, began + HALF_LIFE_SECONDS)["item 1"] == pytest.approx(1.5)
    counts.add("a 1", "2 x", began)
    counts.add("a", "1 2 x", began)
    assert counts.of(cells_of(["2 x", "1 2 x"]), began).tolist() == [1.0, 1.0], "other pairs, spelt alike"


def test_items_that_share_a_cell_never_count_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decayed_counts, "CELLS", 32)
    counts = DecayedCounts(tmp_path)
    for number, item in enumerate(ITEMS):
        for user in range(number % 4):
            counts.add(f"user {user}", item, NOW)
    found = counts.of(cells_of(ITEMS), NOW)
    assert (found >= np.arange(len(ITEMS)) % 4).all()
    assert (found > np.arange(len(ITEMS)) % 4).any()


def _count(folder: Path, worker: int) -> None:
    counts = DecayedCounts(folder)
    for user in range(100):
        counts.add(f"{worker} {user}", ITEMS[worker], NOW)


def test_processes_count_into_one_file(tmp_path: Path) -> None:
    here = DecayedCounts(tmp_path)
    here.add("me", "item 9", NOW)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(tmp_path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    expected = {"item 0": 100.0, "item 1": 100.0, "item 2": 100.0, "item 9": 1.0}
    assert counted(here) == expected
    again = DecayedCounts(tmp_path)
    assert counted(again) == expected, "what was counted before a restart counts on"
    again.add("you", "item 9", NOW)
    assert counted(here) == expected | {"item 9": 2.0}


def test_the_file_is_made_for_the_first_event_with_room_for_all(tmp_path: Path) -> None:
    counts, file = DecayedCounts(tmp_path / "sessions"), tmp_path / "sessions" / FILE
    assert (counted(counts), file.exists()) == ({}, False)
    file.parent.mkdir()
    file.write_bytes(b"")  # its maker was killed
    assert (counted(counts), file.stat().st_size) == ({}, 0)
    counts.add("me", "item 1", NOW)
    assert counted(counts) == {"item 1": 1.0}
    assert (file.stat().st_size, file.stat().st_blocks * 512 >= BYTES) == (BYTES, True)


def test_who_counts_goes_on_in_the_file_that_others_use(counts: DecayedCounts, tmp_path: Path) -> None:
    counts.add("a", "item 1", NOW)
    (tmp_path / FILE).unlink()
    assert counted(counts) == {}
    other = DecayedCounts(tmp_path)
    other.add("b", "item 2", NOW)
    assert counted(counts) == {"item 2": 1.0}
    counts.add("a", "item 3", NOW)
    assert counted(other) == {"item 2": 1.0, "item 3": 1.0}


def test_a_clock_that_was_ahead_leaves_nothing_behind(counts: DecayedCounts) -> None:
    for user in range(9):
        counts.add(f"user {user}", "item 1", NOW + 365 * 86_400)
        counts.add(f"user {user}", "item 2", NOW + 60)
    assert counted(counts) == pytest.approx({"item 2": 9.0})
    counts.add("me", "item 1", NOW)
    assert counted(counts) == pytest.approx({"item 1": 1.0, "item 2": 9.0})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 1e308])
def test_numbers_that_are_no_counts_are_none(counts: DecayedCounts, tmp_path: Path, number: float) -> None:
    counts.add("me", "item 9", NOW)
    with (tmp_path / FILE).open("r+b") as file:
        file.write(struct.pack("<d", number) * (BYTES // 8))
    assert counted(counts) == {}
    counts.add("me", "item 1", NOW)
    assert counted(counts)["item 1"] == 1.0


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), -1e308])
def test_times_that_are_none_are_long_ago(counts: DecayedCounts, tmp_path: Path, number: float) -> None:
    counts.add("me", "item 9", NOW)
    length = ROWS * CELLS
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(BYTES - 8 * length)
        file.write(struct.pack("<d", number) * length)
    cells = cells_of(["item 9"])
    assert (counts.of(cells, NOW).tolist(), counts.since(cells).tolist()) == ([1.0], [0.0])


def test_what_cannot_be_made_is_told_and_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    counts = DecayedCounts(tmp_path)
    with pytest.raises(SessionsError, match=f"opening {tmp_path / FILE}: Is a directory"):
        counts.add("me", "item 1", NOW)
    assert counted(counts) == {}
    with pytest.raises(SessionsError, match="sessions"):
        DecayedCounts(tmp_path / "nowhere" / "sessions").add("me", "item 1", NOW)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES // 2, before[1]))
    counts = DecayedCounts(tmp_path)
    try:
        with pytest.raises(SessionsError, match="File too large"):
            counts.add("me", "item 1", NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert counted(counts) == {}
    counts.add("me", "item 1", NOW)
    assert counted(counts) == {"item 1": 1.0}
