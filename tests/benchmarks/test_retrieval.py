"""The benchmark of candidate generation, from end to end at a size that measures nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
START = """
import sys
from pathlib import Path
from benchmarks import measure, retrieval
measure.RAW = retrieval.RAW = Path(sys.argv[1])
retrieval.main(["--quick", "--folder", sys.argv[2]])
"""


def test_it_ends_with_one_line_of_json(tmp_path: Path) -> None:
    """In a process of its own: the benchmark starts a Spark session, and there is one in a process."""
    raw, folder = tmp_path / "raw", tmp_path / "folder"
    folder.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", START, str(raw), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-5000:]
    figures = json.loads(ran.stdout.splitlines()[-1])
    keys = ["vs_flat_328k", "recall_328k", "vs_flat_2m", "recall_2m", "vs_implicit", "vs_spark_als", "job_vs_search"]
    assert list(figures)[: len(keys)] == keys
    assert all(figures[key] > 0 for key in keys if key != "vs_implicit")
    assert min(figures["recall_328k"], figures["recall_2m"]) > 0.95
    assert json.loads((raw / "retrieval.jsonl").read_text())["summary"] == figures
    ElementTree.parse(raw / "retrieval.svg")
    assert list(folder.iterdir()) == [], "it cleans up"
