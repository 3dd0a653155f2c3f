"""Days of the workspace that were last run long ago."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs import datasets
from jobs.datasets import DAY_SECONDS
from jobs.errors import JobError
from jobs.lock import lock
from jobs.old_days import remove_old_days

NOW = 2_000_000_000.0


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The days 1 to 4 of January, the last of them run a minute ago and each earlier one ten days before the next."""
    for back, day in enumerate(("2027-01-04", "2027-01-03", "2027-01-02", "2027-01-01")):
        run(tmp_path, day, seconds_ago=60 + back * 10 * DAY_SECONDS)
    return tmp_path


def run(workspace: Path, day: str, *, seconds_ago: float) -> None:
    with datasets.step(workspace, day, "prepared") as draft:
        (draft.path / "rows").write_bytes(b"rows")
    os.utime(workspace / day, (NOW - seconds_ago,) * 2)


def remove(workspace: Path, *, keep_days: int = 14, but: str = "2027-01-04") -> int:
    return remove_old_days(workspace, keep_days=keep_days, but=but, now=NOW)


def left(workspace: Path) -> list[str]:
    return sorted(path.name for path in workspace.iterdir())


def test_days_go_that_were_last_run_longer_ago_than_the_setting_says(workspace: Path) -> None:
    assert remove(workspace) == 2
    assert left(workspace) == ["2027-01-03", "2027-01-04"]
    assert datasets.open_dataset(workspace, "2027-01-03", "prepared").part("rows").read_bytes() == b"rows"


def test_zero_keeps_every_day(workspace: Path) -> None:
    assert remove(workspace, keep_days=0) == 0
    assert len(left(workspace)) == 4


def test_a_day_that_was_run_anew_is_not_old_whatever_its_date(workspace: Path) -> None:
    run(workspace, "2026-06-01", seconds_ago=5)
    remove(workspace)
    assert "2026-06-01" in left(workspace)


def test_the_day_of_the_run_stays_though_all_its_steps_were_skipped(workspace: Path) -> None:
    assert remove(workspace, but="2027-01-01") == 1
    assert "2027-01-01" in left(workspace)


def test_a_day_in_which_a_step_is_running_stays_whole(workspace: Path) -> None:
    with lock(workspace / "2027-01-01" / ".prepared.lock", "what another process makes"):
        assert remove(workspace) == 1
    assert (workspace / "2027-01-01" / "prepared" / "rows").is_file()


def test_what_is_not_ours_stays(workspace: Path) -> None:
    for name in ("2026-01-01", "sentences", ".2026-01-01"):  # a folder of tables, a dataset for all days, some other
        (workspace / name).mkdir()
        os.utime(workspace / name, (0, 0))
    remove(workspace)
    assert {"2026-01-01", "sentences", ".2026-01-01"} <= {*left(workspace)}


def test_what_a_killed_removal_has_left_goes_with_the_next_one(workspace: Path) -> None:
    (workspace / "2027-01-01").rename(workspace / ".2027-01-01.old")
    assert remove(workspace) == 1
    assert left(workspace) == ["2027-01-03", "2027-01-04"]


def test_a_day_that_cannot_be_removed_is_named_and_the_others_go(workspace: Path) -> None:
    (workspace / ".2027-01-01.old").write_text("a file where a folder is wanted")
    with pytest.raises(JobError, match=r"the first is .*\.2027-01-01\.old: Not a directory"):
        remove(workspace)
    assert "2027-01-02" not in left(workspace)


def test_a_workspace_that_is_not_there_has_no_old_days(tmp_path: Path) -> None:
    assert remove(tmp_path / "none") == 0
