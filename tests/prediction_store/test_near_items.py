"""What is near to every item: read as it was written, refused where it does not fit, absent from older versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shop_store import MakeVersion

from prediction_store import layout
from prediction_store.check import check
from prediction_store.errors import BuildError, DamagedVersionError
from prediction_store.manifest import read_manifest
from prediction_store.reader import Version

Edit = Callable[[Path, Callable[[bytes], bytes]], None]
FILES = {
    layout.NEIGHBOURS: layout.NEIGHBOUR_SCORES,
    layout.OF_TOGETHER[0]: layout.OF_TOGETHER[1],
}


def small_together() -> tuple[np.ndarray, np.ndarray]:
    """Of twelve items: 0 was met with 4 and 8, 11 with 0, the others with nothing."""
    items, scores = np.full((12, 3), -1, np.int32), np.zeros((12, 3), np.float32)
    items[0, :2], scores[0, :2] = [4, 8], [0.5, 0.25]
    items[11, 0], scores[11, 0] = 0, 0.125
    return items, scores


def test_what_was_met_together_comes_back_without_its_padding(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a", together=small_together())) as version:
        found = [version.together(index) for index in (0, 1, 11)]
        assert version.neighbours(0).items.tolist() == [1, 2, 3]
    assert [(one.items.tolist(), one.scores.tolist()) for one in found] == [
        ([4, 8], [0.5, 0.25]),
        ([], []),
        ([0], [0.125]),
    ]
    assert (found[0].items.dtype, found[0].scores.dtype) == (np.uint32, np.float32)


def test_a_version_without_it_is_read_and_has_met_nothing(root: Path, make_version: MakeVersion) -> None:
    """As every version was before this was in them."""
    name = make_version("a")
    assert not set(layout.OF_TOGETHER) & read_manifest(root, name).files.keys()
    with Version.open(root, name) as version:
        assert [version.together(index).items.size for index in range(12)] == [0] * 12
        assert version.together(0).scores.size == 0


def test_items_without_room_for_any_other_are_written(root: Path, make_version: MakeVersion) -> None:
    nothing = np.empty((12, 0), np.int32), np.empty((12, 0), np.float32)
    with Version.open(root, make_version("a", together=nothing)) as version:
        assert version.together(3).items.size == 0


@pytest.mark.parametrize(
    ("items", "scores", "message"),
    [
        (np.zeros((12, 2), np.int64), np.zeros((12, 2), np.float32), "of int64"),
        (np.zeros((12, 2), np.int32), np.zeros((12, 2), np.float64), "of float64"),
        (np.zeros((12, 2), np.int32), np.zeros((12, 3), np.float32), r"scores \(12, 3\)"),
        (np.zeros(12, np.int32), np.zeros(12, np.float32), r"neighbours \(12,\)"),
        (np.zeros((11, 2), np.int32), np.zeros((11, 2), np.float32), "of 11 items; there are 12"),
        (np.full((12, 2), 12, np.int32), np.zeros((12, 2), np.float32), "up to item 12 of 12"),
        (np.full((12, 2), -2, np.int32), np.zeros((12, 2), np.float32), "from item -2"),
        (np.tile(np.int32([-1, 3]), (12, 1)), np.zeros((12, 2), np.float32), "after the padding"),
        (np.zeros((12, 2), np.int32), np.full((12, 2), np.nan, np.float32), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_do_not_fit_are_not_written(
    root: Path, make_version: MakeVersion, items: np.ndarray, scores: np.ndarray, message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        make_version("a", together=(items, scores))
    assert layout.version_names(root) == []


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", layout.OF_TOGETHER)
def test_a_damaged_or_missing_file_is_refused(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str
) -> None:
    name = make_version("a", together=small_together())
    path = layout.version_path(root, name) / file
    edit_sealed(path, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedVersionError, match=Path(file).name):
        Version.open(root, name)
    assert any(file in problem.what for problem in check(root).problems)
    path.unlink()
    with pytest.raises(DamagedVersionError, match="is not there"):
        Version.open(root, name)


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("item", [12, -2])
def test_without_hashes_an_item_beyond_the_catalogue_is_damage(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str, item: int
) -> None:
    name = make_version("a", together=small_together())
    edit_sealed(layout.version_path(root, name) / file, lambda data: data[:-4] + np.int32(item).tobytes())
    with pytest.raises(DamagedVersionError, match="beyond the catalogue"):
        Version.open(root, name, verify=False)


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", FILES.values())
def test_without_hashes_a_score_that_is_no_number_is_damage(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str
) -> None:
    name = make_version("a", together=small_together())
    edit_sealed(layout.version_path(root, name) / file, lambda data: data[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(DamagedVersionError, match="not finite"):
        Version.open(root, name, verify=False)


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", [*FILES, *FILES.values()])
def test_without_hashes_an_array_of_another_shape_is_damage(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str
) -> None:
    name = make_version("a", together=small_together())
    edit_sealed(layout.version_path(root, name) / file, lambda data: data.replace(b"(12, 3)", b"(6, 6) "))
    with pytest.raises(DamagedVersionError, match=Path(file).name):
        Version.open(root, name, verify=False)
