"""Fixtures that every package's tests share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from object_storage import BUCKET, S3Server, s3_server

from schemas.config import Spark

# A machine that others use, too, may take a second for anything.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A real local Spark session with two slots, one for the whole test run."""
    from jobs.spark import session

    with session(Spark(master="local[2]", driver_memory="1g", shuffle_partitions=2), "tests") as spark:
        yield spark


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto's S3 server, one for the whole test run."""
    with s3_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def s3_url(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix of the bucket, and the environment that leads there."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def edit_sealed() -> Callable[[Path, Callable[[bytes], bytes]], None]:
    """Change a file of a sealed version, as a bad disk or a careless hand would."""

    def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
        path.parent.chmod(0o755)
        path.chmod(0o644)
        path.write_bytes(change(path.read_bytes()))
        path.chmod(0o444)

    return edit
