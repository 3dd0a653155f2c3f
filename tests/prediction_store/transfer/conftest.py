"""Object storage for each test: a folder, and S3 by moto's server."""

from __future__ import annotations

from pathlib import Path

import pytest

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
