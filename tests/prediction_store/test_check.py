"""The checker finds what is wrong, says where, and mends nothing."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from shop_store import MakeVersion, judge

import prediction_store.check as checker
from prediction_store import history, holds, layout
from prediction_store.check import check
from prediction_store.errors import MissingVersionError
from prediction_store.reader import Version
from prediction_store.retention import retire
from schemas.history import encode_history_record
from schemas.manifest import FileFacts, decode_manifest, encode_manifest

pytestmark = pytest.mark.leaves_damage
Edit = Callable[[Path, Callable[[bytes], bytes]], None]


def problems(root: Path, name: str | None = None) -> str:
    return "\n".join(f"{problem.where}: {problem.what}" for problem in check(root, name).problems)


def reseal(root: Path, name: str, edit_sealed: Edit, **changes: Any) -> None:
    """Make the manifest agree with the files, as somebody would who hides a change; and change its fields."""
    path = layout.version_path(root, name)
    manifest = decode_manifest((path / layout.MANIFEST).read_bytes())
    files = {}
    for file, place in layout.files_of(path).items():
        data = place.read_bytes()
        files[file] = FileFacts(len(data), sha256(data).hexdigest())
    changed = msgspec.structs.replace(manifest, files=files, **changes)
    edit_sealed(path / layout.MANIFEST, lambda _: encode_manifest(changed))


def test_a_sound_store_has_no_problems(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a", cut_over=True), make_version("b")
    judge(root, b)
    report = check(root)
    assert (report.versions, report.problems) == ([b, a], [])
    assert (report.history_records, report.records) == (1, 6)
    assert report.files == 2 * len([path for path in layout.version_path(root, a).rglob("*") if path.is_file()])


def test_an_empty_store_has_no_problems(root: Path) -> None:
    assert check(root).problems == []


def test_a_version_that_is_open_can_be_checked(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a")):
        assert check(root).problems == []


def test_one_version_alone_can_be_checked(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a")
    assert check(root, a).versions == [a]
    with pytest.raises(MissingVersionError):
        check(root, "20260101T000000Z-00000000")


def test_every_damaged_file_is_named(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    name = make_version("a")
    for file, path in layout.files_of(layout.version_path(root, name)).items():
        whole = path.read_bytes()
        edit_sealed(path, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        assert file in problems(root)
        edit_sealed(path, lambda _, whole=whole: whole)  # type: ignore[misc]
    assert problems(root) == ""


def test_a_file_too_many_is_found(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    folder = layout.version_path(root, name) / "candidates"
    folder.chmod(0o755)
    (folder / "shard-0002.mdb").write_bytes(b"")
    assert problems(root) == f"{name}: candidates/shard-0002.mdb is there and not in the manifest"


def test_two_shards_that_changed_places_are_found(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    """The manifest was made to agree: only the keys tell."""
    name = make_version("a")
    one, two = (layout.version_path(root, name) / layout.shard_file(number) for number in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    edit_sealed(one, lambda _: second)
    edit_sealed(two, lambda _: first)
    reseal(root, name, edit_sealed, canaries=[])
    found = problems(root)
    assert "key b'ann' belongs into shard" in found
    assert found.count("belongs into shard") == 3


def test_a_count_that_is_not_true_is_found(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    name = make_version("a")
    counts = decode_manifest((layout.version_path(root, name) / layout.MANIFEST).read_bytes()).counts
    reseal(root, name, edit_sealed, counts=msgspec.structs.replace(counts, lists=2))
    assert "(records, lists, list items) are (3, 3, 25); the manifest says (3, 2, 25)" in problems(root)


def test_a_neighbour_beyond_the_catalogue_is_found(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    name = make_version("a")
    path = layout.version_path(root, name) / layout.NEIGHBOURS
    edit_sealed(path, lambda data: data[:-4] + np.int32(12).tobytes())
    reseal(root, name, edit_sealed)
    assert "a neighbour is beyond the catalogue" in problems(root)


def test_a_vector_that_is_not_finite_is_found(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    name = make_version("a")
    path = layout.version_path(root, name) / layout.USER_VECTORS
    edit_sealed(path, lambda data: data[:-4] + np.float32(np.nan).tobytes())
    reseal(root, name, edit_sealed)
    assert "the user vectors have a number that is not finite" in problems(root)


def test_a_history_that_points_nowhere_is_found(root: Path, make_version: MakeVersion, tmp_path: Path) -> None:
    name = make_version("a", cut_over=True)
    layout.version_path(root, name).rename(tmp_path / name)
    assert problems(root) == f"history/00000001: the current version {name} is not there"


def test_a_damaged_record_in_the_history_is_found(root: Path, make_version: MakeVersion) -> None:
    for inputs in "abc":
        make_version(inputs, cut_over=True)
    path = layout.history_path(root, 2)
    path.write_bytes(path.read_bytes().replace(b"test@localhost", b"evil@localhost"))
    assert "history/00000002: " in problems(root)
    assert "does not match its checksum" in problems(root)


def test_a_gap_in_the_history_is_found(root: Path, make_version: MakeVersion) -> None:
    for inputs in "abc":
        make_version(inputs, cut_over=True)
    layout.history_path(root, 2).unlink()
    assert "the records are not numbered 1 to 2 without a gap" in problems(root)


def test_a_manifest_that_is_not_the_one_that_went_live_is_found(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    name = make_version("a", cut_over=True)
    reseal(root, name, edit_sealed, config_digest="another")
    assert problems(root) == f"{name}: history record 1 names another manifest of that name"


def test_a_version_without_a_manifest_is_found(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    layout.version_path(root, name).chmod(0o755)
    (layout.version_path(root, name) / layout.MANIFEST).unlink()
    assert problems(root) == f"{name}: version {name} has no manifest"


def test_a_record_that_forgets_a_quarantine_is_found(root: Path, make_version: MakeVersion) -> None:
    for inputs in "ab":
        make_version(inputs, cut_over=True)
    history.rollback(root, "ann@host", "bad", 7)
    holds.pin(root, "ann@host", "", 8)
    assert problems(root) == ""
    path = layout.history_path(root, 4)
    forgetful = msgspec.structs.replace(history.current(root), quarantined={})
    path.write_bytes(encode_history_record(forgetful))
    assert problems(root) == "history/00000004: it does not carry on what the record before it carried"


def test_every_problem_is_listed_and_not_only_the_first(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    one, two = make_version("a", cut_over=True), make_version("b")
    folder = layout.version_path(root, one)
    edit_sealed(folder / layout.USER_VECTORS, lambda data: data + b"!")
    edit_sealed(folder / layout.LISTS, lambda data: data[:-1] + b"!")
    (folder / layout.RANKER).parent.chmod(0o755)
    (folder / layout.RANKER).unlink()
    edit_sealed(layout.version_path(root, two) / layout.MANIFEST, lambda _: b"")
    layout.history_path(root, 1).write_bytes(b"")
    found = problems(root)
    for part in (
        "history/00000001",
        "users/vectors.npy has",
        "lists.msgpack has digest",
        "weights.json is not there",
        two,
    ):
        assert part in found
    assert len(found.splitlines()) == 5


@pytest.mark.parametrize("report", ["garbage", "a folder"])
def test_a_gate_report_that_cannot_be_read_hides_no_damaged_file(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, report: str
) -> None:
    name = make_version("a")
    judge(root, name)
    path = layout.gate_path(root, name)
    path.unlink()
    if report == "a folder":
        path.mkdir()
    else:
        path.write_text(report)
    shard = layout.version_path(root, name) / layout.shard_file(0)
    edit_sealed(shard, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    found = check(root, name).problems
    assert [problem.where for problem in found] == [f"gates/{name}", name]
    assert "shard-0000.mdb has digest" in found[1].what


def test_a_version_of_another_machine_is_read_to_its_last_byte(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    name = make_version("a")
    here = decode_manifest((layout.version_path(root, name) / layout.MANIFEST).read_bytes()).environment
    reseal(root, name, edit_sealed, environment=msgspec.structs.replace(here, page_bytes=12345))
    edit_sealed(layout.version_path(root, name) / layout.LISTS, lambda data: data[:-1] + b"!")
    assert "was built for page_bytes 12345" in problems(root)
    assert "lists.msgpack has digest" in problems(root)


def test_a_version_that_is_retired_while_others_are_read_is_no_damage(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make_version(inputs, cut_over=True) for inputs in "abcd"]
    read = checker._check_version

    def after_retiring(*args: Any) -> Any:
        retire(root, keep=2, grace_seconds=0, now=4_000_000_000, who="test@localhost")
        return read(*args)

    monkeypatch.setattr(checker, "_check_version", after_retiring)
    report = check(root)
    assert (report.versions, report.problems) == ([names[3], names[2]], [])


def test_a_version_that_is_asked_for_by_name_and_retired_meanwhile_is_told(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make_version(inputs, cut_over=True) for inputs in "abc"]
    read = checker._check_version

    def after_retiring(*args: Any) -> Any:
        retire(root, keep=2, grace_seconds=0, now=4_000_000_000, who="test@localhost")
        return read(*args)

    monkeypatch.setattr(checker, "_check_version", after_retiring)
    with pytest.raises(MissingVersionError):
        check(root, names[0])
