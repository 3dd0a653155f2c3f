"""Shops to serve from: an empty store for each test, and one with a version that tests only read."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A store without a version."""
    return Shop(tmp_path / "store")


@pytest.fixture(scope="session")
def stocked_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A store whose version of kind "a" is current. Read only."""
    shop = Shop(tmp_path_factory.mktemp("stocked") / "store")
    shop.publish("a")
    return shop
