"""The whole journey by its command line: done once, skipped when repeated, and the same after a kill in every step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.datasets import STEP_OF
from jobs.journey import STEPS, default_day
from prediction_store.check import check
from prediction_store.history import current
from prediction_store.manifest import read_manifest
from schemas.config_file import load_config

ROOT = Path(__file__).parents[2]
DAY = "2026-01-05"
CONFIG = """
[simulate]
start_day = "2026-01-01"
days = 5
users = 150
items = 90
events_per_day = 400
[train]
max_epochs = 2
dimensions = 16
[spark]
master = "local[2]"
driver_memory = "1g"
"""

KILLED_BEFORE_THE_NAME = """
import os, signal, sys
import shortlist
from jobs import datasets

victim, complete = sys.argv[1], datasets._complete

def die(draft, final, manifest):
    if manifest.name == victim:
        os.killpg(os.getpgid(0), signal.SIGKILL)
    complete(draft, final, manifest)

datasets._complete = die
sys.exit(shortlist.run(sys.argv[2:]))
"""
"""`shortlist`, killed with all of its processes when the victim's dataset is written and has not got its name."""


def shop(folder: Path) -> Path:
    folder.mkdir()
    (folder / "shortlist.toml").write_text(CONFIG)
    return folder


def shortlist(folder: Path, *argv: str, killed_in: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_THE_NAME, killed_in, *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )


def outcomes(log: str) -> dict[str, str]:
    """Step to outcome, from the one line that each step logs."""
    found = {}
    for line in log.splitlines():
        if "outcome='" in line:
            found[line.split("event='")[1].split("'")[0]] = line.split("outcome='")[1].split("'")[0]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose journey ran from end to end without any trouble."""
    folder = shop(tmp_path_factory.mktemp("journey") / "whole")
    done = shortlist(folder, "run", "--day", DAY)
    assert done.returncode == 0, done.stderr
    assert outcomes(done.stderr) == dict.fromkeys(STEPS, "done")
    return folder


def test_a_repeated_journey_skips_what_is_done_and_changes_nothing(whole: Path) -> None:
    before = current(whole / "store")
    done = shortlist(whole, "run", "--day", DAY)
    assert done.returncode == 0, done.stderr
    made = {step for step, outcome in outcomes(done.stderr).items() if outcome == "done"}
    assert made == {"gate", "retire"}
    assert current(whole / "store") == before


def test_a_journey_killed_in_every_step_ends_like_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = shop(tmp_path / "killed")
    for name in STEP_OF:
        done = shortlist(folder, "run", "--day", DAY, killed_in=name)
        assert done.returncode == -signal.SIGKILL, f"{name}: {done.stderr}"
        assert not (folder / "work" / DAY / name).exists()
    done = shortlist(folder, "run", "--day", DAY)
    assert done.returncode == 0, done.stderr
    assert outcomes(done.stderr)["evaluate"] == "skipped"
    expected, found = (read_manifest(root / "store", current(root / "store").version) for root in (whole, folder))
    assert found.files == expected.files
    assert check(folder / "store").problems == []
    left = [path.name for path in (folder / "work" / DAY).iterdir() if path.name.endswith((".draft", ".old"))]
    assert left == []


def test_a_step_whose_input_is_missing_names_the_step_before(whole: Path) -> None:
    done = shortlist(whole, "train", "--day", "2026-01-03")
    assert done.returncode == 1
    assert "shortlist prepare --day 2026-01-03" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--day", "yesterday"], "wanted YYYY-MM-DD"),
        (["run", "--only", "trian"], "there is no step 'trian'"),
        (["simulate", "--day", "2025-12-31"], "the shop opens on 2026-01-01"),
    ],
)
def test_a_mistake_exits_2_with_a_message(whole: Path, argv: list[str], message: str) -> None:
    done = shortlist(whole, *argv)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_version_is_not_served_and_the_command_exits_3(whole: Path) -> None:
    before = current(whole / "store")
    another = ["--set", "store.shards=3", "--set", "gates.min_users=1000"]
    done = shortlist(whole, "run", "--day", DAY, *another)
    assert done.returncode == 3
    assert "gate users: found 1" in done.stderr
    assert "cutover" not in outcomes(done.stderr)
    assert current(whole / "store") == before


def test_the_default_day_is_the_last_one_in_the_data(whole: Path, tmp_path: Path) -> None:
    assert default_day(load_config(whole / "shortlist.toml", environ={})) == DAY
    assert default_day(load_config(shop(tmp_path / "empty") / "shortlist.toml", environ={})) == DAY
