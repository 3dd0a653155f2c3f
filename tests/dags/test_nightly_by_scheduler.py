"""One night by Airflow's real scheduler, two tasks killed in the middle, against the same night in one process.

Both learn from a serving log, too: of a user whom only servers have met.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.datasets import end_of
from prediction_store.version import Version
from reranker.serving_log.records import EventsRecord, LoggedEvent, encode
from reranker.serving_log.segments import SegmentWriter
from schemas.serving_config import Log

ROOT = Path(__file__).resolve().parents[2]
DAG = "shortlist_nightly"
LOGGED_USER = "met-by-servers-only"

CONFIG = """
[paths]
workspace = "{name}/work"
store = "{name}/store"
[simulate]
start_day = "{start}"
days = 6
users = 300
items = 200
events_per_day = 1500
[data.interactions]
serving_log = "log"
[train]
dimensions = 8
max_epochs = 2
batch_size = 256
negatives = 64
title_buckets = 64
threads = 1
[retrieve]
candidates = 50
[store]
shards = 2
[gates.coverage]
warn = "off"
fail = "off"
[spark]
driver_memory = "512m"
shuffle_partitions = 2
"""


@dataclass
class Killer(threading.Thread):
    """Kills the process of one verb as soon as the file pattern says that it is in the middle of its work. Once."""

    folder: Path
    pattern: str
    verb: str
    home: Path
    killed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.killed and not self.over.is_set():
            if any(self.folder.glob(self.pattern)):
                self.killed += [pid for pid in processes(self.home, self.verb) if end(pid)]
            self.over.wait(0.005)


def processes(home: Path, verb: str) -> list[int]:
    """The Python processes of one verb among those that the Airflow at `home` started."""
    from local_airflow import marked_processes

    return [pid for pid in marked_processes(str(home)) if is_verb(pid, verb)]


def is_verb(pid: int, verb: str) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    # …/python …/shortlist train …, or …/python …/shortlist.py build … as spark-submit starts it
    return len(argv) > 2 and "python" in argv[0] and "shortlist" in argv[1] and argv[2] == verb


def end(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def killing(*killers: Killer) -> Iterator[None]:
    for killer in killers:
        killer.start()
    try:
        yield
    finally:
        for killer in killers:
            killer.over.set()
            killer.join()


def last_due_day() -> str:
    """The last day whose nightly run, at 03:15 on the day after, is due."""
    return ((datetime.now(UTC) - timedelta(hours=3, minutes=15)).date() - timedelta(days=1)).isoformat()


def begin(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    command = [ROOT / ".venv/bin/shortlist", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shortlist(*arguments: str, folder: Path) -> str:
    """What the command prints; it must succeed."""
    with begin(*arguments, folder=folder) as process:
        printed, said = process.communicate()
    assert process.returncode == 0, said
    return printed


def write_log(folder: Path, day: str) -> set[str]:
    """The log of two workers: a user who views and buys what most users of the shop want.

    The items bought by the midnight that ends the day, one on the day and one on the day before.
    """
    items = pq.read_table(folder / "data/shop/interactions", columns=["item_id"]).column("item_id").to_pylist()
    wanted = [item for item, _ in Counter(sorted(items)).most_common(9)]
    end = end_of(day)
    before = [("view", wanted[0]), ("purchase", wanted[1]), ("view", wanted[2]), ("view", wanted[3])]
    on_the_day = [("view", wanted[4]), ("purchase", wanted[5]), ("view", wanted[6]), ("view", wanted[7])]
    after = [("purchase", wanted[8])]
    for visits in ([(end - 100_000.0, before)], [(end - 50_000.0, on_the_day), (end + 60.0, after)]):
        writer = SegmentWriter(folder / "log", Log(), lambda: end + 90.0)
        for time, events in visits:
            rows = [LoggedEvent(LOGGED_USER, item, kind, time + at) for at, (kind, item) in enumerate(events)]
            writer.append([encode(EventsRecord(time + len(rows), rows))])
        writer.close()
    return {wanted[1], wanted[5]}


@dataclass(frozen=True)
class Night:
    """What a night by the scheduler left."""

    folder: Path
    day: str
    bought: set[str]
    """By the user of the serving log."""
    tasks: dict[str, Any]
    killers: list[Killer]


@pytest.fixture(scope="module")
def night(airflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """The run of the last due day, by the scheduler; `train` and `build` are killed while they write."""
    from local_airflow import LocalAirflow

    folder, day = tmp_path_factory.mktemp("night"), last_due_day()
    start = datetime.fromisoformat(day) - timedelta(days=5)
    for name in ("scheduled", "plain"):
        (folder / f"{name}.toml").write_text(CONFIG.format(name=name, start=start.date()))
    shortlist("simulate", "--config", "plain.toml", folder=folder)
    bought = write_log(folder, day)
    plain = begin("run", "--config", "plain.toml", "--day", day, folder=folder)  # meanwhile, to save time
    settings = {
        "SHORTLIST_CONFIG": str(folder / "scheduled.toml"),
        "SHORTLIST_START_DATE": day,
        "SHORTLIST_CATCHUP": "true",
        "SHORTLIST_RETRY_SECONDS": "1",
    }
    with LocalAirflow(folder / "airflow", settings) as airflow:
        work, versions = folder / "scheduled/work" / day, folder / "scheduled/store/versions"
        killers = [
            Killer(work, ".model.draft/*", "train", airflow.home),
            Killer(versions, ".building-*/*", "build", airflow.home),
        ]
        with killing(*killers):
            airflow.unpause(DAG)
            airflow.wait_for(lambda: is_over(airflow), f"the night of {day}", seconds=600)
        run = airflow.runs(DAG)[0]
        tasks = {task["task_id"]: task for task in airflow.tasks(DAG, run["dag_run_id"])}
        red = [name for name, task in tasks.items() if task["state"] == "failed"]
        assert not red, airflow.log_tail(DAG, run["dag_run_id"], red[0])
    _, said = plain.communicate()
    assert plain.returncode == 0, said
    return Night(folder, day, bought, tasks, killers)


def is_over(airflow: Any) -> bool:
    runs = airflow.runs(DAG)
    return bool(runs) and runs[0]["state"] in ("success", "failed")


def versions(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shortlist("versions", "--json", "--config", f"{name}.toml", folder=folder))
    return found


def manifest(folder: Path, name: str) -> dict[str, Any]:
    (version,) = versions(folder, name)
    found: dict[str, Any] = json.loads(
        (folder / name / "store/versions" / version["version"] / "manifest.json").read_bytes()
    )
    return found


def test_the_scheduler_runs_every_step_and_the_version_goes_live(night: Night) -> None:
    assert {task["state"] for task in night.tasks.values()} == {"success"}
    (version,) = versions(night.folder, "scheduled")
    assert version["is_current"]


def test_a_killed_task_is_tried_again_and_the_others_are_not(night: Night) -> None:
    assert all(len(killer.killed) == 1 for killer in night.killers)
    tries = {name: task["try_number"] for name, task in night.tasks.items()}
    assert tries == {name: 2 if name in ("train", "build") else 1 for name in tries}


def test_the_scheduled_night_and_a_plain_run_make_the_same_version(night: Night) -> None:
    scheduled, plain = manifest(night.folder, "scheduled"), manifest(night.folder, "plain")
    assert scheduled["inputs_digest"] == plain["inputs_digest"]
    assert scheduled["files"] == plain["files"]
    shortlist("check", "--config", "scheduled.toml", folder=night.folder)


def test_a_user_whom_only_the_serving_log_knows_has_a_list_without_what_was_bought(night: Night) -> None:
    (made,) = versions(night.folder, "scheduled")
    with Version.open(night.folder / "scheduled/store", made["version"]) as version:
        found = version.read(LOGGED_USER)
        assert found is not None
        listed, consumed = (set(version.item_ids(each)) for each in (found.items, version.consumed(found.user_row)))
    assert consumed == night.bought, "what was bought after midnight belongs to the next night"
    assert listed and not listed & night.bought
    answer = json.loads(shortlist("lookup", LOGGED_USER, "--json", "--config", "scheduled.toml", folder=night.folder))
    assert answer["rung"] == "personal"
    assert not {item["item"] for item in answer["items"]} & night.bought


def test_nothing_of_airflow_is_left_running(night: Night) -> None:
    from local_airflow import marked_processes

    assert marked_processes(str(night.folder / "airflow")) == []
