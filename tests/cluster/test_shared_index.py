"""Executors of one machine share one mapped index. `make test-cluster` runs this file; `make test` leaves it out."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).with_name("executors_sharing_an_index.py")
ROOT = SCRIPT.parents[2]


def test_two_executors_map_one_copy_of_the_vectors(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    work = Path(spec.origin).parent / "work"  # where a local cluster puts what its executors print
    before = set(work.iterdir()) if work.is_dir() else None
    try:
        ran = subprocess.run(
            [sys.executable, SCRIPT, tmp_path],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        _sweep(work, before)
    assert ran.returncode == 0, ran.stderr[-3000:]
    one, other = json.loads(ran.stdout.splitlines()[-1])
    assert one["pid"] != other["pid"]
    assert one["parent"] != other["parent"], "of two executors"
    size = 100_000 * 64 * 4 // 1024
    for worker in (one, other):
        assert worker["Rss"] > 0.9 * size, "it has read them all"
        assert worker["Private_Dirty"] == worker["Anonymous"] == 0, "and copied none"
        assert worker["Pss"] < 0.6 * size, "each counts for half of what both have"


def _sweep(work: Path, before: set[Path] | None) -> None:
    """Remove what this run left in Spark's own folder."""
    if before is None:
        shutil.rmtree(work, ignore_errors=True)
    elif work.is_dir():
        for path in set(work.iterdir()) - before:
            shutil.rmtree(path)
