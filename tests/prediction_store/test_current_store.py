"""Following the store: one version per request, the old one until the new one is proved, back in no time."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from shop_store import MakeVersion

from prediction_store import history, holds, layout, manifest
from prediction_store.current import RETRY_SECONDS
from prediction_store.errors import (
    ClosedVersionError,
    DamagedHistoryError,
    DamagedVersionError,
    DiskError,
    MissingVersionError,
    NoCurrentVersionError,
    StoreError,
)
from prediction_store.opened import _registry
from prediction_store.reader import Store, Version
from schemas.manifest import decode_manifest, encode_manifest

Edit = Callable[[Path, Callable[[bytes], bytes]], None]


def served_by(store: Store) -> str:
    with store.acquire() as version:
        assert version.read("ann") is not None
        return version.name


def number_of(store: Store) -> int:
    with (held := store.acquire()):
        return held.number


def test_an_empty_store_is_not_ready_and_says_why(root: Path) -> None:
    store = Store(root)
    assert store.refresh() is False
    assert not store.is_ready
    assert isinstance(store.last_error, NoCurrentVersionError)
    with pytest.raises(NoCurrentVersionError), store.acquire():
        pass
    store.close()


def test_a_version_that_nobody_made_current_is_not_served(root: Path, make_version: MakeVersion) -> None:
    make_version("a")
    store = Store(root)
    store.refresh()
    assert not store.is_ready
    store.close()


def test_the_store_follows_cutover_and_rollback(root: Path, make_version: MakeVersion) -> None:
    store = Store(root, now=lambda: 17.0)
    a = make_version("a", cut_over=True)
    assert (store.refresh(), store.refresh(), served_by(store), number_of(store)) == (True, False, a, 1)
    b = make_version("b", cut_over=True)
    assert served_by(store) == a, "not before it looks"
    assert (store.refresh(), served_by(store), number_of(store)) == (True, b, 2)
    history.rollback(root, "ann@host", "bad", 5)
    assert (store.refresh(), served_by(store), number_of(store)) == (True, a, 3)
    assert (store.last_error, store.changed_at) == (None, 17.0)
    store.close()


def test_a_block_keeps_the_number_of_the_version_that_it_began_with(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    with (held := store.acquire()) as version:
        make_version("b", cut_over=True)
        assert store.refresh()
        assert (version.name, held.number, number_of(store)) == (a, 1, 2)
    store.close()


def test_going_back_needs_no_second_verification(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    make_version("b", cut_over=True)
    store.refresh()
    history.rollback(root, "ann@host", "bad", 5)
    monkeypatch.setattr(manifest, "verify_hashes", lambda *_: pytest.fail("hashed again"))
    assert (store.refresh(), served_by(store)) == (True, a)
    store.close()


def test_a_request_ends_on_the_version_it_began_with(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    with store.acquire() as version:
        for inputs in "bcd":
            make_version(inputs, cut_over=True)
            store.refresh()
        assert version.name == a
        assert version.read("ann") is not None
    with pytest.raises(ClosedVersionError):
        version.read("ann")
    store.close()


def test_only_the_current_version_and_the_one_before_stay_open(root: Path, make_version: MakeVersion) -> None:
    store = Store(root)
    for inputs in "abcd":
        make_version(inputs, cut_over=True)
        store.refresh()
        assert len(_registry) <= 2
    store.close()
    assert not _registry
    assert not store.is_ready


def test_a_version_that_cannot_be_made_ready_is_let_go(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    make_version("b", cut_over=True)

    def refuse(version: Version) -> None:
        raise StoreError(f"version {version.name} has no column 'price'")

    store.prepare = refuse
    for _ in range(2):
        assert store.refresh() is False
    assert (served_by(store), str(store.last_error).endswith("'price'")) == (a, True)
    assert len(_registry) == 1, "nobody has the other one open"
    store.close()


@pytest.mark.parametrize("fault", [StoreError("no column 'price'"), KeyError("price"), MemoryError()])
def test_a_version_that_fails_unforeseen_is_read_again_after_a_while_and_not_at_each_look(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    clock = [1000.0]
    a = make_version("a", cut_over=True)
    store = Store(root, now=lambda: clock[0])
    store.refresh()
    b = make_version("b", cut_over=True)
    verify, hashed = manifest.verify_hashes, list[str]()
    monkeypatch.setattr(manifest, "verify_hashes", lambda *args: (hashed.append("once more"), verify(*args)))

    def refuse(version: Version) -> None:
        raise fault

    store.prepare = refuse
    for clock[0] in (1000.0, 1001.0, 999.0 + RETRY_SECONDS):
        with contextlib.suppress(type(fault)):
            store.refresh()
        assert served_by(store) == a
    assert len(hashed) == 1
    assert store.last_error is fault
    store.prepare, clock[0] = None, 1000.0 + RETRY_SECONDS
    assert (store.refresh(), served_by(store), store.last_error) == (True, b, None)
    store.close()


def test_the_version_before_is_tried_at_each_look_since_it_is_open(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a", cut_over=True), make_version("b")
    store = Store(root)
    store.refresh()
    history.cutover(root, b, "ann@host", "a test", 4, force=True)
    store.refresh()
    history.rollback(root, "ann@host", "bad", 5)

    def refuse(version: Version) -> None:
        raise KeyError("price")

    store.prepare = refuse
    with pytest.raises(KeyError):
        store.refresh()
    store.prepare = None
    assert (store.refresh(), served_by(store)) == (True, a)
    store.close()


@pytest.mark.leaves_damage
def test_a_damaged_version_is_not_taken_and_not_tried_again(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    b = make_version("b", cut_over=True)
    path = layout.version_path(root, b) / layout.USER_VECTORS
    whole = path.read_bytes()
    edit_sealed(path, lambda data: data[:-1] + b"\1")
    assert (store.refresh(), served_by(store)) == (False, a)
    assert isinstance(store.last_error, DamagedVersionError)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "verify_hashes", lambda *_: pytest.fail("tried again"))
        assert store.refresh() is False
    assert isinstance(store.last_error, DamagedVersionError)
    edit_sealed(path, lambda _: whole)
    history.rollback(root, "ann@host", "damaged", 5)
    assert (store.refresh(), store.last_error, served_by(store)) == (False, None, a)
    holds.release(root, b, "ann@host", "restored", 6)
    history.cutover(root, b, "ann@host", "restored", 7, force=True)
    assert (store.refresh(), served_by(store)) == (True, b), "a new record is a new chance"
    store.close()


@pytest.mark.leaves_damage
def test_a_record_that_points_nowhere_keeps_the_old_version_until_it_arrives(
    root: Path, make_version: MakeVersion, tmp_path: Path
) -> None:
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    b = make_version("b", cut_over=True)
    layout.version_path(root, b).rename(tmp_path / b)
    assert (store.refresh(), served_by(store)) == (False, a)
    assert isinstance(store.last_error, MissingVersionError)
    (tmp_path / b).rename(layout.version_path(root, b))
    assert (store.refresh(), served_by(store)) == (True, b)
    store.close()


def test_a_version_that_is_copied_back_file_by_file_is_taken_when_it_is_whole(
    root: Path, make_version: MakeVersion, tmp_path: Path
) -> None:
    a = make_version("a", cut_over=True)
    path, copy = layout.version_path(root, a), tmp_path / "copy"
    path.rename(copy)
    store = Store(root)
    files = sorted(file.relative_to(copy) for file in copy.rglob("*") if file.is_file())
    for file in files:
        assert store.refresh() is False, f"before {file}"
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(copy / file, path / file)
    assert (store.refresh(), served_by(store)) == (True, a)
    store.close()


def test_a_damaged_version_whose_bytes_are_put_right_is_taken(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    a = make_version("a", cut_over=True)
    path = layout.version_path(root, a) / layout.USER_VECTORS
    whole = path.read_bytes()
    edit_sealed(path, lambda data: data[:-1] + b"\1")
    damaged = path.stat()
    store = Store(root)
    assert (store.refresh(), store.is_ready) == (False, False)
    edit_sealed(path, lambda _: whole)
    while path.stat().st_ctime_ns == damaged.st_ctime_ns:  # the kernel's clock ticks every few milliseconds
        os.utime(path)
    os.utime(path, ns=(damaged.st_atime_ns, damaged.st_mtime_ns))  # what restores a copy may restore its times
    assert (store.refresh(), served_by(store)) == (True, a)
    store.close()


def test_a_version_that_cannot_be_opened_is_taken_as_soon_as_it_can(root: Path, make_version: MakeVersion) -> None:
    """As one that was restored from a backup for another user than the server's."""
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    b = make_version("b", cut_over=True)
    path = layout.version_path(root, b)
    path.chmod(0o755)
    path.joinpath(layout.MANIFEST).rename(path / "aside")
    path.joinpath(layout.MANIFEST).symlink_to("aside")  # refused to every user, where modes do not keep root out
    assert (store.refresh(), served_by(store)) == (False, a)
    assert isinstance(store.last_error, DiskError)
    path.joinpath("aside").rename(path / layout.MANIFEST)
    assert (store.refresh(), served_by(store)) == (True, b)
    store.close()


def test_a_version_that_came_when_no_file_could_be_opened_is_taken_when_one_can(
    root: Path, make_version: MakeVersion
) -> None:
    make_version("a", cut_over=True)
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for room in range(100):
        store = Store(root)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, most))
        try:
            is_taken = store.refresh()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))
        if not is_taken:
            assert isinstance(store.last_error, DiskError)
            assert (store.refresh(), store.last_error) == (True, None), f"with room for {room} files"
        store.close()
        if is_taken:
            assert room > 10
            break


@pytest.mark.leaves_damage
def test_another_version_under_the_name_that_the_history_names_is_not_taken(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    path = layout.version_path(root, make_version("b", cut_over=True)) / layout.MANIFEST
    other = msgspec.structs.replace(decode_manifest(path.read_bytes()), expires_at=1)
    edit_sealed(path, lambda _: encode_manifest(other))
    assert (store.refresh(), served_by(store)) == (False, a)
    assert isinstance(store.last_error, DamagedVersionError)
    store.close()


@pytest.mark.leaves_damage
def test_a_damaged_record_keeps_the_old_version(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a", cut_over=True)
    store = Store(root)
    store.refresh()
    make_version("b", cut_over=True)
    layout.history_path(root, 2).write_bytes(b"{")
    assert (store.refresh(), served_by(store)) == (False, a)
    assert isinstance(store.last_error, DamagedHistoryError)
    store.close()


def test_requests_never_see_two_versions_while_it_changes(root: Path, make_version: MakeVersion) -> None:
    """Items of version x are what the store answers while it says that it is x."""
    lists = {"a": {"ann": [1, 2, 3]}, "b": {"ann": [7, 8, 9]}}
    names = {make_version(kind, lists=lists[kind], cut_over=True): lists[kind]["ann"] for kind in "ab"}
    store = Store(root)
    store.refresh()
    wrong: list[str] = []
    answered = 0
    stopping = threading.Event()

    def ask() -> None:
        nonlocal answered
        while not stopping.is_set():
            with store.acquire() as version:
                found = version.read("ann")
                if found is None or found.items.tolist() != names[version.name]:
                    wrong.append(version.name)
                answered += 1

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    changes = 0
    order = list(names)
    for turn in range(6):
        history.cutover(root, order[turn % 2], "ann@host", "a test", turn, force=True)
        changes += store.refresh()
    stopping.set()
    for thread in threads:
        thread.join()
    store.close()
    assert (wrong, changes) == ([], 6)
    assert answered > 0
