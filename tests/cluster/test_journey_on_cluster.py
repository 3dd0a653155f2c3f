"""The whole journey on a Spark cluster: with another master's address, and nothing else, the same version comes out.

`make test-cluster` runs this file; `make test` leaves it out.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standalone_cluster import StandaloneCluster, can_hide_folders

from jobs.cluster import PACKAGES
from prediction_store.check import check
from prediction_store.history import current
from prediction_store.layout import files_of, version_path
from prediction_store.manifest import read_manifest
from schemas.manifest import Manifest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
DAY = "2026-01-05"
CONFIG = """
[simulate]
start_day = "2026-01-01"
days = 5
users = 400
items = 300
events_per_day = 1500
[train]
max_epochs = 2
dimensions = 16
[retrieve]
method = "grouped"   # so that lists of items are searched, by the tasks
[spark]
master = "{master}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each configuration. On the cluster only the driver sees its store and our code."""
    folder = tmp_path_factory.mktemp("cluster")
    for name in ("local", "cluster"):
        (folder / name / "store").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[StandaloneCluster]:
    unseen = [folder / "cluster" / "store", *code()] if can_hide_folders() else []
    with StandaloneCluster(folder / "spark", unseen=unseen) as started:
        yield started


def code() -> set[Path]:
    """Our packages in this checkout, and where they are installed, if that is elsewhere."""
    where = (
        "import importlib, sys; print(*(importlib.import_module(name).__path__[0] for name in sys.argv[1:]), sep='\\n')"
    )
    argv = [sys.executable, "-I", "-c", where, *PACKAGES]
    installed = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
    return {*(ROOT / package for package in PACKAGES), *map(Path, installed)}


def start(folder: Path, master: str, **environment: str) -> subprocess.Popen[bytes]:
    """`shortlist run` with the configuration in that folder, as an operator starts it; its log is beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "shortlist.toml").write_text(CONFIG.format(master=master))
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, ROOT / "shortlist.py", "run", "--day", DAY],
            cwd=folder,
            env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1"} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def version_of(folder: Path) -> Manifest:
    store = folder / "store"
    return read_manifest(store, current(store).version)


def test_the_journey_on_a_cluster_makes_the_version_that_local_mode_makes(
    folder: Path, cluster: StandaloneCluster
) -> None:
    for name, master in (("local", "local[2]"), ("cluster", cluster.master)):
        done = start(folder / name, master)
        assert done.wait() == 0, log_of(folder / name)
    local, there = version_of(folder / "local"), version_of(folder / "cluster")
    assert there.inputs_digest == local.inputs_digest
    assert there.inputs == local.inputs
    assert there.config_digest == local.config_digest
    assert there.files == local.files
    for name, manifest in (("local", local), ("cluster", there)):
        path = version_path(folder / name / "store", manifest.name)
        assert {file: sha256(path / file) for file in files_of(path)} == {
            file: facts.sha256 for file, facts in manifest.files.items()
        }
        assert check(folder / name / "store").problems == []
    tasks = cluster.tasks()
    assert len(tasks) == 2
    assert min(tasks.values()) > 0, tasks


def test_a_journey_that_gets_no_executor_says_what_it_waits_for(folder: Path, cluster: StandaloneCluster) -> None:
    """The memory comes from Spark's own defaults: the way to give a cluster what it needs beside the address."""
    here = folder / "waiting"
    here.mkdir()
    (here / "spark-defaults.conf").write_text("spark.executor.memory 64g\n")
    waiting = start(here, cluster.master, SPARK_CONF_DIR=str(here))
    try:
        while "event='waiting'" not in log_of(here):
            assert waiting.poll() is None, log_of(here)
            time.sleep(0.1)
        assert "a free core and 64g (spark.executor.memory)" in log_of(here)
    finally:
        waiting.terminate()
        waiting.wait()


def test_a_master_that_is_not_there_is_told_in_a_line(folder: Path) -> None:
    here = folder / "nowhere"
    assert start(here, "spark://127.0.0.1:1").wait() == 1
    assert "Spark does not start with the master spark://127.0.0.1:1" in log_of(here)
    assert "Traceback" not in log_of(here)


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
