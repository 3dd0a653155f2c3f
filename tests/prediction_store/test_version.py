"""Reading one version: what was written comes back, and what was not is refused before it can do harm."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shop_store import DAY, MADE_AT, SPACE, MakeVersion, score_at, write_small_version

from prediction_store import layout, manifest
from prediction_store.errors import (
    ClosedVersionError,
    DamagedRecordError,
    DamagedVersionError,
    ForeignVersionError,
    MissingVersionError,
    NewerFormatError,
    StoreError,
)
from prediction_store.manifest import this_environment
from prediction_store.reader import Version
from prediction_store.shards import shard_of
from schemas.errors import UsageError

Edit = Callable[[Path, Callable[[bytes], bytes]], None]


def shard_path(root: Path, name: str, user: str) -> Path:
    return layout.version_path(root, name) / layout.shard_file(shard_of(user.encode(), 2))


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_every_users_list_comes_back(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a")) as version:
        for row, (user, items) in enumerate({"ann": range(12), "bob": range(11, -1, -1), "cy": [0]}.items()):
            found = version.read(user)
            assert found is not None
            assert found.items.tolist() == list(items)
            assert np.allclose(found.scores, [score_at(rank) for rank in range(len(found.items))], atol=1e-3)
            assert (found.made_at, found.user_row) == (MADE_AT, row)


@pytest.mark.parametrize("user", ["nobody", "", "x" * 511, "x" * 512, "ANN", "ann ", "a\0", "\ud800"])
def test_an_unknown_user_has_no_list(root: Path, make_version: MakeVersion, user: str) -> None:
    with Version.open(root, make_version("a")) as version:
        assert version.read(user) is None
        assert version.item_index(user) is None


def test_ids_are_compared_as_bytes_and_never_normalised(root: Path, make_version: MakeVersion) -> None:
    composed, decomposed, big = "caf\u00e9", "cafe\u0301", str(2**63 - 1)
    lists = {composed: [1], decomposed: [2], big: [3], "\u30e6\U0001f600": [4], "é" * 255: [5]}
    with Version.open(root, make_version("a", lists=lists)) as version:
        found = {user: version.read(user) for user in lists}
    assert {user: list(one.items) if one else None for user, one in found.items()} == lists


def test_what_can_be_the_id_of_no_item_has_no_index(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a")) as version:
        strange = ["", "x" * 512, "x" * 100_000, "\ud800", "item-3\0"]
        assert version.indexes_of([*strange, "item-3"]) == [None] * len(strange) + [3]
        assert [version.item_index(item) for item in strange] == [None] * len(strange)


def test_everything_about_items_comes_back(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a")) as version:
        assert (version.n_items, version.n_users, version.dimensions) == (12, 3, 4)
        assert version.item_ids([3, 1, 3]) == ["item-3", "item-1", "item-3"]
        assert [version.item_index(f"item-{i}") for i in range(13)] == [*range(12), None]
        assert version.column("title").texts(np.array([11, 0], np.uint32)) == ["Title 11", "Title 0"]
        category, brand = version.column("category"), version.column("brand")
        assert category.values == ["hats", "shoes"]
        assert category.codes.tolist() == [0, 1] * 6
        assert brand.texts([0, 1, 2]) == ["", "brand-1", "brand-2"]
        assert brand.codes[0] == -1
        assert np.isnan(version.column("price")[1])
        assert version.column("released")[2] == MADE_AT - 2 * DAY
        assert version.column("in_stock").tolist() == [True] * 11 + [False]
        assert version.item_vectors.shape == (12, 4)
        assert version.user_vector(2).tolist() == [1.0] * 4
        assert (version.ranker.signals, version.ranker.space_id) == (["base_score"], SPACE)


def test_everybodys_lists_stand_in_for_a_segments(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a")) as version:
        assert version.popular("DE").items.tolist() == [3, 2, 1]
        assert version.popular("FR").items.tolist() == list(range(12))
        assert version.trending("DE").items.tolist() == list(range(12))[::-1]
        assert [version.has_segment(segment) for segment in ("DE", "FR", "")] == [True, False, True]


def test_neighbours_come_without_their_padding(root: Path, make_version: MakeVersion) -> None:
    near = np.full((12, 3), -1, np.int32)
    near[0] = [4, 8, -1]
    with Version.open(root, make_version("a", neighbours=near)) as version:
        assert version.neighbours(0).items.tolist() == [4, 8]
        assert version.neighbours(0).scores.tolist() == pytest.approx([0.9, 0.8])
        assert version.neighbours(1).items.tolist() == []


def test_a_column_that_is_not_there_is_named(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a")) as version, pytest.raises(StoreError, match="no column 'colour'"):
        version.column("colour")


def test_nothing_that_was_given_out_can_be_written_into_the_store(root: Path, make_version: MakeVersion) -> None:
    with Version.open(root, make_version("a")) as version:
        for array in (version.item_vectors, version.user_vector(0), version.column("price")):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


def test_what_was_given_out_outlives_the_version(root: Path, make_version: MakeVersion) -> None:
    version = Version.open(root, make_version("a"))
    found, vectors, title, near = version.read("ann"), version.item_vectors, version.column("title"), version.neighbours
    scores = near(0).scores
    version.close()
    assert found is not None
    assert (found.items[11], float(vectors[1, 1]), title.texts([2])) == (11, 1.0, ["Title 2"])
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_a_closed_version_says_so(root: Path, make_version: MakeVersion) -> None:
    version = Version.open(root, make_version("a"))
    version.close()
    version.close()
    with pytest.raises(ClosedVersionError):
        version.read("ann")


def test_one_process_opens_a_file_once_however_often_it_asks(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    first, second = Version.open(root, name), Version.open(root.parent / "store", name)
    first.close()
    assert second.read("ann") is not None
    second.close()
    with Version.open(root, name) as third:
        assert third.read("ann") is not None


def in_child(action: Callable[[], bool]) -> bool:
    """Whether an action is true in a forked child."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if action() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_version_is_not_used_across_a_fork(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")

    def refused_and_opened_anew() -> bool:
        with pytest.raises(ClosedVersionError, match="before a fork"):
            version.read("ann")
        version.close()
        with Version.open(root, name) as own:
            return own.read("ann") is not None

    with Version.open(root, name) as version:
        assert in_child(refused_and_opened_anew)
        assert version.read("ann") is not None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_reader_needs_no_right_to_write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "store"
        name = write_small_version(root)

        def read_as_nobody() -> bool:
            os.setgid(65534)
            os.setuid(65534)
            with Version.open(root, name) as version:
                return version.read("ann") is not None

        assert in_child(read_as_nobody)


@pytest.mark.leaves_damage
@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_file_is_refused_before_it_is_mapped(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, verify: bool
) -> None:
    """A mapped file that is too short would kill the process."""
    name = make_version("a")
    path = shard_path(root, name, "ann")
    whole = path.read_bytes()
    for length in (0, 1, 4095, 4096, 8192, len(whole) - 1):
        edit_sealed(path, lambda _, length=length: whole[:length])  # type: ignore[misc]
        with pytest.raises(DamagedVersionError, match=f"has {length} bytes"):
            Version.open(root, name, verify=verify)


@pytest.mark.leaves_damage
def test_a_flipped_bit_in_any_file_is_refused(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    name = make_version("a")
    folder = layout.version_path(root, name)
    for file, path in layout.files_of(folder).items():
        whole = path.read_bytes()
        edit_sealed(path, lambda data: flip(data, len(data) // 2))
        with pytest.raises(DamagedVersionError, match=file.split("/")[-1]):
            Version.open(root, name)
        edit_sealed(path, lambda _, whole=whole: whole)  # type: ignore[misc]
    Version.open(root, name).close()


@pytest.mark.leaves_damage
def test_whoever_wants_the_hashes_gets_them_though_it_is_open_without(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    name = make_version("a")
    edit_sealed(layout.version_path(root, name) / layout.REPORT, lambda data: flip(data, len(data) // 2))
    with Version.open(root, name, verify=False), pytest.raises(DamagedVersionError, match="has digest"):
        Version.open(root, name)


@pytest.mark.leaves_damage
def test_without_hashes_a_flipped_bit_is_a_damaged_record_and_no_wrong_list(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    name = make_version("a", shards=1)  # the canary is the first user, ann
    path = layout.version_path(root, name) / layout.shard_file(0)
    edit_sealed(path, lambda data: flip(data, data.rindex(b"bob") + len("bob") + 40))
    with Version.open(root, name, verify=False) as version:
        assert version.read("ann") is not None
        with pytest.raises(DamagedRecordError, match="bob"):
            version.read("bob")


@pytest.mark.leaves_damage
@pytest.mark.parametrize(
    "damage",
    [
        (layout.USER_VECTORS, 8, b"\xff"),  # the header claims to be longer than the file
        (layout.USER_VECTORS, 10, b"("),  # and to be other Python than it is
        (layout.SEGMENTS, 10, b"\\"),
        ("items/columns/id.utf8", 0, b"\xff"),
        ("items/columns/category.values.utf8", 0, b"\xff"),
    ],
    ids=str,
)
def test_without_hashes_a_file_that_cannot_be_understood_is_damaged(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, damage: tuple[str, int, bytes]
) -> None:
    name = make_version("a")
    file, place, byte = damage
    edit_sealed(layout.version_path(root, name) / file, lambda data: data[:place] + byte + data[place + 1 :])
    with pytest.raises(DamagedVersionError):
        Version.open(root, name, verify=False)


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", ["candidates/shard-0001.mdb", "users/vectors.npy", "items/columns/id.utf8"])
def test_a_missing_file_is_refused(root: Path, make_version: MakeVersion, file: str) -> None:
    path = layout.version_path(root, make_version("a")) / file
    path.parent.chmod(0o755)
    path.unlink()
    with pytest.raises(DamagedVersionError, match="is not there"):
        Version.open(root, path.parents[file.count("/")].name)


@pytest.mark.leaves_damage
def test_a_link_in_the_place_of_a_file_is_refused(root: Path, make_version: MakeVersion, tmp_path: Path) -> None:
    name = make_version("a")
    path = layout.version_path(root, name) / layout.USER_VECTORS
    path.parent.chmod(0o755)
    path.rename(tmp_path / "elsewhere.npy")
    path.symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(DamagedVersionError, match="is not there"):
        Version.open(root, name)


@pytest.mark.leaves_damage
def test_a_manifest_is_refused_under_another_versions_name(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    first, second = make_version("a"), make_version("b")
    other = (layout.version_path(root, first) / layout.MANIFEST).read_bytes()
    edit_sealed(layout.version_path(root, second) / layout.MANIFEST, lambda _: other)
    with pytest.raises(DamagedVersionError, match=f"its manifest is that of version {first}"):
        Version.open(root, second)


@pytest.mark.leaves_damage
@pytest.mark.parametrize("change", [lambda data: b"", lambda data: b"{}", lambda data: data[:-10], lambda data: b"\0"])
def test_a_manifest_that_is_none_is_refused(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, change: Callable[[bytes], bytes]
) -> None:
    name = make_version("a")
    edit_sealed(layout.version_path(root, name) / layout.MANIFEST, change)
    with pytest.raises(DamagedVersionError):
        Version.open(root, name)


@pytest.mark.leaves_damage
def test_a_version_without_a_manifest_is_damaged(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    path = layout.version_path(root, name)
    path.chmod(0o755)
    (path / layout.MANIFEST).unlink()
    with pytest.raises(DamagedVersionError, match="has no manifest"):
        Version.open(root, name)


@pytest.mark.leaves_damage
def test_a_version_of_a_later_format_is_refused(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    name = make_version("a")
    path = layout.version_path(root, name) / layout.MANIFEST
    edit_sealed(path, lambda data: data.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(NewerFormatError, match="has format 2; this Shortlist reads up to 1"):
        Version.open(root, name)


@pytest.mark.leaves_damage
def test_a_version_of_two_embedding_spaces_is_refused(root: Path, make_version: MakeVersion, edit_sealed: Edit) -> None:
    name = make_version("a")
    path = layout.version_path(root, name) / layout.MANIFEST
    edit_sealed(path, lambda data: data.replace(SPACE.encode(), b"another-space-id"))
    with pytest.raises(ForeignVersionError, match="embedding space"):
        Version.open(root, name)


@pytest.mark.parametrize("page_bytes", [16384])
def test_a_version_for_another_kind_of_machine_is_refused(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch, page_bytes: int
) -> None:
    import msgspec

    name = make_version("a")
    with monkeypatch.context() as patch:
        elsewhere = msgspec.structs.replace(this_environment(), page_bytes=page_bytes)
        patch.setattr(manifest, "this_environment", lambda: elsewhere)
        with pytest.raises(ForeignVersionError, match="built for page_bytes 4096; here it is 16384"):
            Version.open(root, name)


def test_the_digest_that_the_history_names_is_asked_for(root: Path, make_version: MakeVersion) -> None:
    with pytest.raises(DamagedVersionError, match="the history says 00000000"):
        Version.open(root, make_version("a"), manifest_sha256="0" * 64)


def test_a_version_that_is_not_there_is_missing(root: Path) -> None:
    with pytest.raises(MissingVersionError):
        Version.open(root, "20260101T000000Z-00000000")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc/passwd", "20260101T000000Z-00000000/..", "20260101T000000Z-0000000\0",
             "20260101T000000Z-00000000\n", "20260101T000000Z-0000000G", ".building-20260101T000000Z-00000000-x"],
)  # fmt: skip
def test_what_cannot_name_a_version_reaches_no_path(root: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a version"):
        Version.open(root, name)
