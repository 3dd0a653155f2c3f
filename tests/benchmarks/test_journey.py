"""What the benchmark of a night reads: the lines of a log, and the memory of what has been started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.journey import STEP, resident
from jobs import progress
from jobs.progress import Report


def test_it_reads_the_line_of_a_finished_step_and_of_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    for skipped in (False, True):
        progress.stage(Report(step="train-ranker", day="2026-01-30", seconds=12.34, rows={"lists": 3}, skipped=skipped))
    progress.notice("train", epoch=1, seconds=7.0)
    found = [STEP.search(line) for line in capsys.readouterr().err.splitlines()]
    assert [None if line is None else line.groups() for line in found] == [("train-ranker", "12.3"), None, None]


def test_memory_counts_what_a_process_has_started() -> None:
    alone = resident(os.getpid())
    held = "import sys; held = bytearray(200_000_000); print(len(held), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        assert resident(os.getpid()) > alone + 150
        child.stdin.close()
