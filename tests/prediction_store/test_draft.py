"""Building a version: complete or not there, sealed, and the same bytes for the same inputs."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop_store import MADE_AT, SPACE, MakeVersion, write_small_version

from prediction_store import durable, layout
from prediction_store.columns import Texts
from prediction_store.errors import BuildError, DiskError
from prediction_store.manifest import read_manifest
from prediction_store.writer import VersionDraft, find_by_inputs, write_shard
from schemas.ranker import RankerWeights
from schemas.record import RankedItems

DIGEST = hashlib.sha256(b"inputs").hexdigest()


def drafts(root: Path) -> list[str]:
    return [path.name for path in layout.leftovers(root, layout.BUILDING)]


def test_a_sealed_version_is_read_only(root: Path, make_version: MakeVersion) -> None:
    path = layout.version_path(root, make_version("a"))
    modes = {stat.S_IMODE(entry.stat().st_mode) for entry in (path, *path.rglob("*")) if entry.is_dir()}
    assert modes == {0o555}
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in path.rglob("*") if entry.is_file()} == {0o444}


def test_the_same_inputs_give_the_same_bytes(root: Path, make_version: MakeVersion) -> None:
    first, second = (read_manifest(root, make_version("a")) for _ in range(2))
    assert first.name != second.name
    assert first.files == second.files


def test_two_builds_in_one_second_get_two_names(root: Path) -> None:
    first, second = (write_small_version(root, now=MADE_AT) for _ in range(2))
    assert first != second


def test_the_manifest_tells_what_is_there(root: Path, make_version: MakeVersion) -> None:
    manifest = read_manifest(root, make_version("a", lists={"ann": [1, 2], "bob": [], "cy": [3]}))
    counts = manifest.counts
    assert (counts.users, counts.records, counts.lists, counts.list_items, counts.items) == (3, 3, 2, 3, 12)
    assert (manifest.index_bits, manifest.shards, manifest.dimensions) == (20, 2, 4)
    assert set(manifest.canaries) <= {"ann", "bob", "cy"}
    path = layout.version_path(root, manifest.name)
    for file, facts in manifest.files.items():
        data = (path / file).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (facts.bytes, facts.sha256)


def test_nothing_is_visible_before_the_seal(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        assert layout.version_names(root) == []
        assert drafts(root) == [draft.path.name]
    assert drafts(root) == []


def test_a_build_sweeps_what_a_killed_one_left(root: Path) -> None:
    child = os.fork()
    if child == 0:
        VersionDraft.begin(root, DIGEST, MADE_AT)
        os._exit(0)  # as a kill: nothing is tidied up
    os.waitpid(child, 0)
    assert len(drafts(root)) == 1
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        assert drafts(root) == [draft.path.name]


def test_a_leftover_that_cannot_be_removed_stops_no_build(
    root: Path, observe_steps: Callable[[Callable[[str, Path], None]], None]
) -> None:
    left = layout.building_path(root, layout.version_name(MADE_AT, DIGEST), "1")
    left.mkdir(parents=True)

    def is_of_another_user(step: str, path: Path) -> None:
        if step == "remove" and path == left:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    observe_steps(is_of_another_user)
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        assert set(drafts(root)) == {left.name, draft.path.name}


@pytest.mark.parametrize("step", ["make folder", "create"])
def test_a_build_that_the_disk_lets_down_keeps_no_lock(
    root: Path, observe_steps: Callable[[Callable[[str, Path], None]], None], step: str
) -> None:
    """Not even when its draft cannot be removed: or nobody could, for as long as this process lives."""

    def break_the_disk(at: str, path: Path) -> None:
        if (at == step and layout.BUILDING in path.parent.as_posix()) or at == "remove":
            raise OSError(errno.EIO, f"broken on purpose at {at}")

    VersionDraft.begin(root, DIGEST, MADE_AT).abandon()
    observe_steps(break_the_disk)
    with pytest.raises(DiskError, match=f"at {step}"), VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        filled(draft)
    observe_steps(lambda step, path: None)
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        assert drafts(root) == [draft.path.name]


def test_a_build_leaves_a_living_one_alone(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as first, VersionDraft.begin(root, DIGEST, MADE_AT) as second:
        assert sorted(drafts(root)) == sorted([first.path.name, second.path.name])


def test_a_task_that_was_killed_leaves_no_attempt_in_the_version(root: Path) -> None:
    def leave_attempt(step: str, path: Path) -> None:
        if step == "create" and path.name == "report.json":
            (path.parents[1] / "candidates/.attempt-shard-0000-dead.mdb").write_bytes(b"half a shard")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "before", leave_attempt)
        name = write_small_version(root)
    assert len(list((layout.version_path(root, name) / "candidates").iterdir())) == 2


def test_a_sealed_version_is_found_by_its_inputs(root: Path, make_version: MakeVersion) -> None:
    make_version("a")
    newer, other = make_version("a"), make_version("b")
    assert find_by_inputs(root, hashlib.sha256(b"a").hexdigest()) == newer
    assert find_by_inputs(root, hashlib.sha256(b"b").hexdigest()) == other
    assert find_by_inputs(root, hashlib.sha256(b"c").hexdigest()) is None


@pytest.mark.leaves_damage
def test_a_truncated_version_is_not_found_by_its_inputs(
    root: Path, make_version: MakeVersion, edit_sealed: Callable[..., None]
) -> None:
    name = make_version("a")
    edit_sealed(layout.version_path(root, name) / layout.USER_VECTORS, lambda data: data[:-1])
    assert find_by_inputs(root, hashlib.sha256(b"a").hexdigest()) is None


def filled(draft: VersionDraft, **left_out: Any) -> VersionDraft:
    """A draft of two items and one empty shard, complete but for what is left out."""
    ones = RankedItems(np.array([1], np.uint32), np.array([1.0], np.float32))
    parts: dict[str, Callable[[], None]] = {
        "items": lambda: draft.write_items(np.ones((2, 3), np.float32), ["a", "b"]),
        "users": lambda: draft.write_user_vectors(np.ones((1, left_out.get("dimensions", 3)), np.float32)),
        "lists": lambda: draft.write_lists({"": ones}, {}),
        "facts": lambda: draft.write_user_facts(None, [""]),
        "neighbours": lambda: draft.write_neighbours(np.zeros((2, 1), np.int32), np.zeros((2, 1), np.float32)),
        "ranker": lambda: draft.write_ranker(RankerWeights([], [], left_out.get("space", SPACE))),
        "report": lambda: draft.write_report(b"{}"),
        "shard": lambda: _write_no_records(draft),
    }
    for name, write in parts.items():
        if name not in left_out:
            write()
    return draft


def _write_no_records(draft: VersionDraft) -> None:
    write_shard(draft.shard_path(0), [], expected_bytes=0)


def seal(draft: VersionDraft) -> None:
    draft.seal(space_id=SPACE, made_at=1, expires_at=2, shards=1)


@pytest.mark.parametrize("part", ["facts", "neighbours", "ranker", "report", "shard"])
def test_an_incomplete_draft_is_not_sealed(root: Path, part: str) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft, pytest.raises(BuildError, match="missing"):
        seal(filled(draft, **{part: None}))
    assert layout.version_names(root) == []


def test_segments_of_other_users_than_there_are_vectors_of_are_refused(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        filled(draft, facts=None)
        with pytest.raises(BuildError, match="segments of 2 users; there are vectors of 1"):
            draft.write_user_facts(None, ["", ""])


def test_a_complete_draft_is_sealed(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        seal(filled(draft))
    assert layout.version_names(root) == [draft.name]


def test_a_file_nobody_knows_is_not_sealed(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        (draft.path / "lists/notes.txt").write_text("remember the milk")
        with pytest.raises(BuildError, match=r"unexpected \['lists/notes.txt'\]"):
            seal(filled(draft))


def test_vectors_of_two_spaces_are_not_sealed_together(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft, pytest.raises(BuildError, match="embedding space"):
        seal(filled(draft, space="another"))


def test_vectors_of_two_sizes_are_not_sealed_together(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft, pytest.raises(BuildError, match="3 dimensions"):
        seal(filled(draft, dimensions=4))


@pytest.mark.parametrize(
    ("key", "settings", "message"),
    [
        (b"ann", {"seed": 1}, "does not match its checksum"),
        (b"ann", {"user_row": 9}, "user row 9 of 1"),
        (b"ann", {"items": [7]}, "item 7 of 2"),
    ],
)
def test_a_record_that_does_not_fit_is_not_sealed(
    root: Path, key: bytes, settings: dict[str, Any], message: str
) -> None:
    from schemas.record import encode_record

    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        filled(draft, shard=None)
        record: dict[str, Any] = {"items": [1], "user_row": 0, "seed": draft.seed, **settings}
        value = encode_record(key, scores=[1.0], made_at=1, index_bits=draft.index_bits, **record)
        write_shard(draft.shard_path(0), [(key, value)], expected_bytes=0)
        with pytest.raises(BuildError, match=message):
            seal(draft)


@pytest.mark.parametrize(
    ("vectors", "ids", "columns", "message"),
    [
        (np.ones((2, 3), np.float64), ["a", "b"], {}, r"wanted float32\[n, d\]"),
        (np.ones((2, 3), np.float32), ["a"], {}, "and 1 ids"),
        (np.ones((0, 3), np.float32), [], {}, "and 0 ids"),
        (np.full((2, 3), np.nan, np.float32), ["a", "b"], {}, "not finite"),
        (np.ones((2, 3), np.float32), ["a", "a"], {}, "there already"),
        (np.ones((2, 3), np.float32), ["a", ""], {}, "item id of 0 bytes"),
        (np.ones((2, 3), np.float32), ["a", "\ud800"], {}, "is not text"),
        (np.ones((2, 3), np.float32), ["a", "b"], {"title": Texts(["one"])}, "has 1 values"),
        (np.ones((2, 3), np.float32), ["a", "b"], {"../x": Texts(["1", "2"])}, "cannot name a column"),
        (np.ones((2, 3), np.float32), ["a", "b"], {"price": np.array([1.0, np.inf])}, "not finite"),
        (np.ones((2, 3), np.float32), ["a", "b"], {"price": np.array(["1", "2"])}, "numbers of type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_catalogue_that_cannot_be_stored_is_refused(
    root: Path, vectors: Any, ids: list[str], columns: Any, message: str
) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft, pytest.raises(BuildError, match=message):
        draft.write_items(vectors, ids, columns)


def test_lists_of_items_that_are_not_there_are_refused(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        draft.write_items(np.ones((2, 3), np.float32), ["a", "b"])
        for items in ([2], [0, 0]):
            with pytest.raises(BuildError, match="popular list of everybody"):
                draft.write_lists({"": RankedItems(np.array(items), np.zeros(len(items)))}, {})
        with pytest.raises(BuildError, match="up to item 2"):
            draft.write_neighbours(np.array([[1], [2]], np.int32), np.zeros((2, 1), np.float32))


def test_a_version_far_larger_than_the_disk_is_refused_at_once(root: Path) -> None:
    with VersionDraft.begin(root, DIGEST, MADE_AT) as draft:
        draft.check_room(1000)
        with pytest.raises(DiskError, match="are free"):
            draft.check_room(1 << 60)


@pytest.mark.parametrize("digest", ["", "xyz", "../../etc/passwd", "A" * 64])
def test_a_digest_that_is_none_is_refused(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BuildError, match="64 hexadecimal digits"):
        VersionDraft.begin(tmp_path, digest, MADE_AT)


def test_a_document_in_the_place_of_a_folder_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with pytest.raises(DiskError, match="Is a directory"):
        durable.replace_document(tmp_path / "page", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
