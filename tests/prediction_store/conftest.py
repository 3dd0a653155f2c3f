"""A store for each test, and the checker after each test that has not said it would leave damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shop_store import MADE_AT, MakeVersion, write_small_version

from prediction_store import durable
from prediction_store.check import check
from prediction_store.live_items import LiveItems
from prediction_store.opened import _registry

HOUR = 3600


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "leaves_damage: the store is not sound after the test, on purpose")


@pytest.fixture
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty store; checked afterwards."""
    store = tmp_path / "store"
    yield store
    assert not _registry, "a version was left open"
    if request.node.get_closest_marker("leaves_damage") is None:
        assert check(store).problems == []


@pytest.fixture
def live(root: Path) -> Iterator[LiveItems]:
    """The live facts of the store, none so far."""
    root.mkdir()
    with LiveItems(root) as live:
        yield live


@pytest.fixture
def make_version(root: Path) -> MakeVersion:
    """Write a version, an hour later than the last one; see `shop_store.write_small_version`."""
    made = 0

    def make(inputs: str, **settings: Any) -> str:
        nonlocal made
        made += 1
        settings.setdefault("now", MADE_AT + made * HOUR)
        return write_small_version(root, inputs=inputs, **settings)

    return make


Observer = Callable[[str, Path], None]


@pytest.fixture
def observe_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Observer], None]:
    """Have a function called before each durable step."""

    def observe(observer: Observer) -> None:
        monkeypatch.setattr(durable, "before", observer)

    return observe
