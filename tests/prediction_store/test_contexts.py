"""The contexts in a version: read as they were written, refused where they do not fit, absent from older versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shop_store import MakeVersion

from prediction_store import layout
from prediction_store.check import check
from prediction_store.contexts import Contexts
from prediction_store.errors import BuildError, DamagedVersionError, NewerFormatError
from prediction_store.manifest import read_manifest
from prediction_store.reader import Version
from schemas.contexts import ContextNames, decode_contexts, encode_contexts
from schemas.errors import FormatError

Edit = Callable[[Path, Callable[[bytes], bytes]], None]
NAMES = [("hour", "0"), ("hour", "23"), ("weekday", "0"), ("device", "Größe 8")]


def small_contexts() -> Contexts:
    """Four contexts of twelve items."""
    return Contexts(NAMES, np.linspace(-1, 1, 48, dtype=np.float32).reshape(4, 12))


def test_affinities_come_back_as_they_were_written(root: Path, make_version: MakeVersion) -> None:
    written = small_contexts()
    with Version.open(root, make_version("a", contexts=written)) as version:
        found = [version.context(*name) for name in NAMES]
        for name in (("hour", "1"), ("device", ""), ("weekday", "23"), ("mood", "0")):
            assert version.context(*name) is None
    for row, affinities in zip(found, written.affinities, strict=True):
        assert row is not None
        assert row.dtype == np.float32
        np.testing.assert_array_equal(row, affinities)
        with pytest.raises(ValueError, match="read-only"):
            row[0] = 0


def test_a_version_without_contexts_is_read_and_knows_none(root: Path, make_version: MakeVersion) -> None:
    """As every version was before there were contexts in them."""
    name = make_version("a")
    assert not set(layout.OF_CONTEXTS) & read_manifest(root, name).files.keys()
    with Version.open(root, name) as version:
        assert version.context("hour", "0") is None


@pytest.mark.parametrize(
    ("names", "affinities", "message"),
    [
        (NAMES, np.zeros((4, 11), np.float32), r"affinities \(4, 11\)"),
        (NAMES[:3], np.zeros((4, 12), np.float32), "to 3 contexts"),
        (NAMES, np.zeros((4, 12), np.float64), "of float64"),
        ([*NAMES[:3], NAMES[0]], np.zeros((4, 12), np.float32), "there twice"),
        (NAMES, np.full((4, 12), np.nan, np.float32), "context hour 0 is not from -1 to 1"),
        (NAMES, np.full((4, 12), 1.01, np.float32), "not from -1 to 1"),
        (NAMES, np.full((4, 12), -1.01, np.float32), "not from -1 to 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_contexts_that_do_not_fit_are_not_written(
    root: Path, make_version: MakeVersion, names: list[tuple[str, str]], affinities: np.ndarray, message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        make_version("a", contexts=Contexts(names, affinities))
    assert layout.version_names(root) == []


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", layout.OF_CONTEXTS)
def test_a_damaged_or_missing_file_is_refused(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str
) -> None:
    name = make_version("a", contexts=small_contexts())
    path = layout.version_path(root, name) / file
    edit_sealed(path, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedVersionError, match=Path(file).name):
        Version.open(root, name)
    assert any(file in problem.what for problem in check(root).problems)
    path.unlink()
    with pytest.raises(DamagedVersionError, match="is not there"):
        Version.open(root, name)


@pytest.mark.leaves_damage
@pytest.mark.parametrize(
    ("file", "change"),
    [
        (layout.CONTEXTS, (np.float32(1).tobytes(), np.float32(np.nan).tobytes())),
        (layout.CONTEXTS, (np.float32(1).tobytes(), np.float32(2).tobytes())),
        (layout.CONTEXTS, (b"(4, 12)", b"(12, 4)")),
        (layout.CONTEXT_NAMES, (b'"23"', b'"0" ')),
        (layout.CONTEXT_NAMES, (b'"23"', b"2300")),
        (layout.CONTEXT_NAMES, (b'"hour"', b'"h"""r')),
    ],
    ids=["NaN", "beyond 1", "shape", "twice", "number", "no JSON"],
)
def test_without_hashes_contexts_that_do_not_fit_are_damage(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str, change: tuple[bytes, bytes]
) -> None:
    name = make_version("a", contexts=small_contexts())
    path = layout.version_path(root, name) / file
    assert change[0] in path.read_bytes()
    edit_sealed(path, lambda data: data.replace(*change))
    with pytest.raises(DamagedVersionError):
        Version.open(root, name, verify=False)


@pytest.mark.leaves_damage
def test_contexts_of_a_later_format_are_refused_as_such(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    name = make_version("a", contexts=small_contexts())
    path = layout.version_path(root, name) / layout.CONTEXT_NAMES
    edit_sealed(path, lambda data: data.replace(b'"format": 1', b'"format": 9'))
    with pytest.raises(NewerFormatError, match="context"):
        Version.open(root, name, verify=False)


def test_names_come_back_as_they_were_and_nothing_else_passes_for_them() -> None:
    names = ContextNames(contexts=NAMES)
    assert decode_contexts(encode_contexts(names)) == names
    with pytest.raises(FormatError, match="context"):
        decode_contexts(b'{"format": 1, "contexts": [["hour"]]}')
