"""The small world, a configuration, and the public data sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_shop import Shop
from small_world import DAY, World

from schemas.config import Config, Paths
from schemas.config_file import load_config


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    """Makes a `World`; keyword arguments are its fields."""
    return World


@pytest.fixture(scope="session")
def world_day() -> str:
    """The day of a `World`'s datasets."""
    return DAY


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration whose workspace and store are folders of this test."""
    return Config(paths=Paths(workspace=str(tmp_path / "work"), store=str(tmp_path / "store")))


@pytest.fixture(scope="session")
def real_data() -> Callable[[str, Path], Config]:
    """The configuration of an example on its public data set, with the workspace and store below a folder.

    The data lies in `$SHORTLIST_DATA`, else in ../shared/data beside the repository. The test is skipped without it.
    """

    def configure(example: str, folder: Path) -> Config:
        root = Path(__file__).parents[2]
        data = Path(os.environ.get("SHORTLIST_DATA") or root.parent / "shared" / "data") / example
        if not data.is_dir():
            pytest.skip(f"the public data set {example} is not there: {data} (set SHORTLIST_DATA)")
        file = root / "examples" / example / "shortlist.toml"
        own = load_config(file).data
        overrides = [f"paths.workspace={folder / 'work'}", f"paths.store={folder / 'store'}"]
        for table in ("interactions", "items", "users"):
            path = getattr(own, table).path
            if path:
                overrides.append(f"data.{table}.path={data / Path(path).name}")
        return load_config(file, overrides)

    return configure


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A store whose version of kind "a" is current."""
    shop = Shop(tmp_path / "store")
    shop.publish("a")
    return shop


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with nothing in it."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"
