"""Object storage that is not there, or not meant: an error in words, and no empty history."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_storage import BUCKET

from prediction_store import layout
from prediction_store.errors import RemoteError
from prediction_store.transfer.remote import Remote
from schemas.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    ["", "stores/one", "ftp://host/x", "memory:///", "file://host/x", "file://", "file:///", "file:x",
     "file:///lists#1", "file:///lists?1", "s3://bucket/lists#1"],
)  # fmt: skip
def test_a_url_that_means_no_object_storage_is_a_mistake_in_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match="wanted file:///FOLDER, s3://BUCKET/PREFIX"):
        Remote(url, make=True)


def test_a_folder_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="nothing-here"):
        Remote((tmp_path / "nothing-here").as_uri())
    assert not (tmp_path / "nothing-here").exists()


def test_a_bucket_that_is_not_there_is_an_error_and_no_empty_history(s3_url: str) -> None:
    remote = Remote(s3_url.replace(BUCKET, "no-such-bucket"))
    for ask in (lambda: remote.sizes(layout.REMOTE_HISTORY), lambda: remote.read(layout.remote_history(1))):
        with pytest.raises(RemoteError, match=r"object storage: NoSuchBucket: The specified bucket does not exist \("):
            ask()


def test_the_same_error_has_the_same_words(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the log of a follow that cannot reach object storage would have a line for every look."""
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    remote, said = Remote(s3_url), set()
    for _ in range(5):
        with pytest.raises(RemoteError) as caught:
            remote.sizes(layout.REMOTE_HISTORY)
        said.add(caught.value.message)
    assert len(said) == 1, said
