"""Fixtures that every package's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from schemas.config import Spark


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A real local Spark session with two slots, one for the whole test run."""
    from jobs.spark import session

    with session(Spark(master="local[2]", driver_memory="1g", shuffle_partitions=2), "tests") as spark:
        yield spark
