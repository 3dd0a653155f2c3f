"""What travels to a cluster. The journey on a real one: `make test-cluster`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cluster import PACKAGES, is_cluster, pack_code


@pytest.mark.parametrize("master", ["local", "local[2]", "local[*]", "local[2,4]"])
def test_the_tasks_of_a_local_master_run_here(master: str) -> None:
    assert not is_cluster(master)


@pytest.mark.parametrize("master", ["spark://host:7077", "yarn", "k8s://https://host:443", "local-cluster[2,1,1024]"])
def test_the_tasks_of_any_other_master_may_run_elsewhere(master: str) -> None:
    assert is_cluster(master)


def test_the_archive_holds_all_that_a_task_imports(tmp_path: Path) -> None:
    """In a Python that looks into the archive first, as Spark's workers do."""
    archive = pack_code(tmp_path / "code.zip")
    code = f"""
import sys
sys.path.insert(1, {str(archive)!r})
import jobs.build, jobs.embed, jobs.lists, jobs.retrieve
for name, module in list(sys.modules.items()):
    if name.split(".")[0] in {PACKAGES!r}:
        print(name, module.__file__)
"""
    found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    origins = dict(line.split() for line in found.stdout.splitlines())
    assert {"jobs.retrieve", "jobs.index", "prediction_store.shards", "schemas.record"} <= origins.keys()
    assert [name for name, origin in origins.items() if not origin.startswith(str(archive))] == []
