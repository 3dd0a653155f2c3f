"""What the benchmark of pressure measures itself by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import pressure, services


@pytest.mark.skipif(shutil.which("wrk") is None or shutil.which("cc") is None, reason="wrk or cc is not there")
def test_the_least_server_refuses_all_and_tells_what_that_takes(tmp_path: Path) -> None:
    with services.least(tmp_path, cores={0}) as running:
        row = pressure._refused(running, [b'{"user": "u1"}'], 1.0)
    assert float(row["cpu_us"]) > 0
    assert float(row["per_second"]) > 0
