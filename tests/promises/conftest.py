"""A folder for the trials of each test; afterwards nothing is open, and every store that is left in it is sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prediction_store.check import check
from prediction_store.opened import _registry
from promises.tiny_store import memory_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, in memory where there is one."""
    with memory_folder() as place:
        yield place
        assert not _registry, "a version was left open"
        for versions in place.rglob("versions"):
            assert check(versions.parent).problems == [], versions.parent
