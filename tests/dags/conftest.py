"""Fixtures: the real DAG files as Airflow's own Python reads them, and what their tasks would run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AIRFLOW_PYTHON = ROOT / ".venv-airflow/bin/python"

sys.path.insert(0, str(ROOT / "examples"))  # examples are run as files; there is no package to install

Requests = list[dict[str, Any]]
Dump = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def airflow_python() -> Path:
    """Airflow's environment. Its absence is a failure: a DAG that nobody parsed proves nothing."""
    if not AIRFLOW_PYTHON.exists():
        pytest.fail(f"{AIRFLOW_PYTHON.parent.parent} is not there; make it with: make install", pytrace=False)
    return AIRFLOW_PYTHON


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for Shortlist's environment; its `shortlist` prints its arguments and does nothing."""
    folder = tmp_path_factory.mktemp("environment") / "bin"
    folder.mkdir()
    shortlist = folder / "shortlist"
    shortlist.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    shortlist.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def dump(airflow_python: Path, recorder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dump:
    """Parse dags/ in Airflow's environment and render the tasks of the runs asked for: see dump_dags.py."""
    home = tmp_path_factory.mktemp("airflow")

    def parse(requests: Requests, **settings: str) -> dict[str, Any]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "SHORTLIST_"))} | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
            "SHORTLIST_PYTHON": str(recorder / "python"),
            "SHORTLIST_CONFIG": str(home / "it's a shop.toml"),
            "SHORTLIST_SIMULATE": "true",
            **dict.fromkeys(["SHORTLIST_START_DATE", "SHORTLIST_RETRY_SECONDS"], ""),  # empty: as if it were not there
            **settings,
        }
        answer = subprocess.run(
            [airflow_python, Path(__file__).with_name("dump_dags.py"), ROOT / "dags"],
            input=json.dumps(requests),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        parsed: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
        return parsed

    return parse
