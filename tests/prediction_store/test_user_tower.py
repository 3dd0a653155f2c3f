"""The user tower in a version: read as it was written, refused where it does not fit, absent from older versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop_store import MakeVersion, small_tower

from prediction_store import layout
from prediction_store.check import check
from prediction_store.errors import BuildError, DamagedVersionError, NewerFormatError
from prediction_store.manifest import read_manifest
from prediction_store.reader import Version

Edit = Callable[[Path, Callable[[bytes], bytes]], None]


def test_a_tower_comes_back_as_it_was_written(root: Path, make_version: MakeVersion) -> None:
    written = small_tower(3, 12, 4)
    with Version.open(root, make_version("a", tower=written)) as version:
        read = version.user_tower
    assert read is not None
    assert read.tower.facts == written.tower.facts
    for found, wanted in zip([*read.tower[1:], read.bases, *read.histories], arrays_of(written), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def arrays_of(stored: Any) -> list[np.ndarray]:
    return [*stored.tower[1:], stored.bases, *stored.histories]


def test_a_version_without_a_tower_is_read_and_has_none(root: Path, make_version: MakeVersion) -> None:
    """As every version was before there were towers in them."""
    name = make_version("a")
    assert not set(layout.OF_TOWER) & read_manifest(root, name).files.keys()
    with Version.open(root, name) as version:
        assert version.user_tower is None
        assert version.read("ann") is not None


def test_a_history_of_nobody_is_a_history(root: Path, make_version: MakeVersion) -> None:
    written = small_tower(3, 12, 4)
    empty = written.histories._replace(
        offsets=np.zeros(4, np.int64), items=np.empty(0, np.uint32), weights=np.empty(0, np.float32)
    )
    with Version.open(root, make_version("a", tower=written._replace(histories=empty))) as version:
        assert version.user_tower is not None
        assert version.user_tower.histories.items.size == 0


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("matrix", np.ones((4, 3), np.float32), r"wanted|have 4 numbers"),
        ("stranger", np.ones(3, np.float32), "have 4 numbers"),
        ("stranger", np.ones(4, np.float64), "not float32"),
        ("stranger", np.full(4, np.nan, np.float32), "not finite"),
        ("recency", np.empty(0, np.float32), "recency are missing"),
        ("recency", np.array([1.0, 0.0], np.float32), "not above 0"),
        ("bases", np.ones((2, 4), np.float32), "have 4 numbers"),
        ("offsets", np.array([0, 2, 3], np.int64), "do not fit 3 users"),
        ("offsets", np.array([0, 2, 2, 4], np.int64), "do not fit"),
        ("offsets", np.array([0, 4, 2, 3], np.int64), "fall"),
        ("items", np.array([0, 12, 1], np.uint32), "item 12 of 12"),
        ("items", np.array([0, 1], np.uint32), r"\(2,\) items"),
        ("weights", np.array([1.0, 0.0, 1.0], np.float32), "no weight"),
    ],
)
def test_a_tower_that_does_not_fit_is_not_written(
    root: Path, make_version: MakeVersion, part: str, value: np.ndarray, message: str
) -> None:
    stored = small_tower(3, 12, 4)
    if part in stored.tower._fields:
        changed = stored._replace(tower=stored.tower._replace(**{part: value}))
    elif part in stored.histories._fields:
        changed = stored._replace(histories=stored.histories._replace(**{part: value}))
    else:
        changed = stored._replace(**{part: value})
    with pytest.raises(BuildError, match=message):
        make_version("a", tower=changed)
    assert layout.version_names(root) == []


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", layout.OF_TOWER)
def test_a_damaged_or_missing_file_of_the_tower_is_refused(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str
) -> None:
    name = make_version("a", tower=small_tower(3, 12, 4))
    path = layout.version_path(root, name) / file
    edit_sealed(path, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedVersionError, match=Path(file).name):
        Version.open(root, name)
    assert any(file in problem.what or file in str(problem.where) for problem in check(root).problems)
    path.unlink()
    with pytest.raises(DamagedVersionError, match="is not there"):
        Version.open(root, name)


@pytest.mark.leaves_damage
@pytest.mark.parametrize(
    ("file", "change"),
    [
        (layout.TOWER_FACTS, (b'"history_length": 8', b'"history_length": 0')),
        (layout.HISTORY_ITEMS, (np.uint32(11).tobytes(), np.uint32(12).tobytes())),
    ],
)
def test_without_hashes_a_tower_that_does_not_fit_is_damaged(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str, change: tuple[bytes, bytes]
) -> None:
    name = make_version("a", tower=small_tower(3, 12, 4))
    path = layout.version_path(root, name) / file
    assert change[0] in path.read_bytes()
    edit_sealed(path, lambda data: data.replace(*change))
    with pytest.raises(DamagedVersionError):
        Version.open(root, name, verify=False)


@pytest.mark.leaves_damage
def test_a_tower_of_a_later_format_is_refused_as_such(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    name = make_version("a", tower=small_tower(3, 12, 4))
    edit_sealed(
        layout.version_path(root, name) / layout.TOWER_FACTS, lambda data: data.replace(b'"format": 1', b'"format": 9')
    )
    with pytest.raises(NewerFormatError, match="tower"):
        Version.open(root, name, verify=False)
