"""For each test object storage, a folder or S3 by moto's server, and the hosts that share it."""

from __future__ import annotations

from pathlib import Path

import pytest
from following_hosts import Cluster
from pair_of_hosts import WHO, Pair
from shop_store import MakeVersion, judge

from prediction_store import history
from prediction_store.transfer.remote import Remote


@pytest.fixture
def folder_url(tmp_path: Path) -> str:
    return (tmp_path / "remote").as_uri()


@pytest.fixture
def folder(folder_url: str) -> Remote:
    """An empty folder as object storage, where a test can look and meddle."""
    return Remote(folder_url, make=True)


@pytest.fixture(params=["file", "s3"])
def remote(request: pytest.FixtureRequest) -> Remote:
    """Empty object storage of either kind."""
    kind = "folder_url" if request.param == "file" else "s3_url"
    return Remote(request.getfixturevalue(kind), make=True)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The store of another host."""
    return tmp_path / "there"


@pytest.fixture
def cluster(root: Path, tmp_path: Path, folder: Remote, make_version: MakeVersion) -> Cluster:
    return Cluster(root, tmp_path, folder, make_version)


@pytest.fixture
def versions(root: Path, make_version: MakeVersion) -> tuple[str, str]:
    names = make_version("a"), make_version("b")
    for name in names:
        judge(root, name)
    history.cutover(root, names[0], WHO, "first", 2)
    return names


@pytest.fixture
def pair(root: Path, tmp_path: Path, folder: Remote, versions: tuple[str, str]) -> Pair:
    return Pair(root, tmp_path / "there", folder, versions)


@pytest.fixture
def pair_over_s3(root: Path, tmp_path: Path, s3_url: str, versions: tuple[str, str]) -> Pair:
    return Pair(root, tmp_path / "there", Remote(s3_url), versions)
