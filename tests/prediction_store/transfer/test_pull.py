"""What arrives is what was sealed, or nothing does; a pull that was interrupted goes on."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from shop_store import MakeVersion
from travelling import StopAfter, everything, inside, with_changes

from prediction_store import durable, layout, locks
from prediction_store.errors import (
    ConcurrentPullError,
    DamagedVersionError,
    DiskError,
    ForeignVersionError,
    TransferStoppedError,
)
from prediction_store.listing import list_versions
from prediction_store.manifest import read_manifest
from prediction_store.retention import retire
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.pull import pull
from prediction_store.transfer.push import push
from prediction_store.transfer.remote import Remote
from schemas.manifest import decode_manifest, encode_manifest

Observe = Callable[[Callable[[str, Path], None]], None]


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_what_is_damaged_there_is_refused_on_arrival_and_seen_by_nobody(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path, harm: str
) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    files = read_manifest(root, name).files
    last = min(files, key=lambda file: (files[file].bytes == 0, files[file].bytes))  # the larger ones travel first
    path = inside(folder, layout.remote_file(name, last))
    good = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(good[:-1] if harm == "cut" else bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(DamagedVersionError, match=re.escape(last)) as refused:
        pull(there, folder, name, flow=Flow(), parallel=1)
    assert "shortlist push" in refused.value.hint
    assert layout.version_names(there) == []
    push(root, folder, name, flow=Flow(), verify_again=True)
    report = pull(there, folder, name, flow=Flow())
    assert everything(there, name) == everything(root, name)
    if harm == "flip":
        empty = sum(facts.bytes == 0 for facts in files.values())
        assert report.files <= 1 + empty, "what had arrived is kept"


def test_an_interrupted_pull_goes_on_in_the_middle_of_a_file(
    root: Path, make_version: MakeVersion, remote: Remote, there: Path
) -> None:
    name = make_version("a")
    push(root, remote, name, flow=Flow())
    total = sum(facts.bytes for facts in read_manifest(root, name).files.values())
    travelled = 0
    for _ in range(1 + total // 10_000):
        flow = StopAfter(10_000, 3_000)
        try:
            pull(there, remote, name, flow=flow, parallel=1)
        except TransferStoppedError:
            travelled += flow.bytes
            continue
        travelled += flow.bytes
        break
    assert travelled == total, "no byte has travelled twice"
    assert everything(there, name) == everything(root, name)


def test_what_a_power_cut_has_made_of_a_part_is_fetched_again(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    with pytest.raises(TransferStoppedError):
        pull(there, folder, name, flow=StopAfter(5_000, 5_000), parallel=1)
    (part,) = layout.pulling_path(there, name).rglob(f"{layout.PART}*")
    part.write_bytes(bytes(part.stat().st_size))
    pull(there, folder, name, flow=Flow())
    assert everything(there, name) == everything(root, name)


def test_a_version_that_the_history_names_by_another_digest_is_refused(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    with pytest.raises(DamagedVersionError, match="wanted 000000000000"):
        pull(there, folder, name, flow=Flow(), manifest_sha256="0" * 64)
    assert layout.entries(layout.versions_folder(there)) == []


def test_a_version_of_another_kind_of_machine_does_not_travel(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    name = make_version("a")
    manifest = decode_manifest(everything(root, name)[layout.MANIFEST])
    foreign = with_changes(manifest, environment=with_changes(manifest.environment, page_bytes=65_536))  # type: ignore[arg-type]
    folder.put(layout.remote_file(name, layout.MANIFEST), encode_manifest(foreign))
    flow = Flow()
    with pytest.raises(ForeignVersionError, match="page_bytes"):
        pull(there, folder, name, flow=flow)
    assert flow.bytes == 0


@pytest.mark.parametrize("file", ["../outside", "/etc/passwd", "a//b", "held.json", "manifest.json"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path, file: str
) -> None:
    name = make_version("a")
    manifest = decode_manifest(everything(root, name)[layout.MANIFEST])
    (facts, *_) = manifest.files.values()
    folder.put(layout.remote_file(name, layout.MANIFEST), encode_manifest(with_changes(manifest, files={file: facts})))
    with pytest.raises(DamagedVersionError, match=r"its manifest in .* names"):
        pull(there, folder, name, flow=Flow())


def test_two_processes_do_not_pull_the_same_version(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    durable.make_folder(layout.pulling_path(there, name))
    lock = locks.lock(layout.pulling_path(there, name), exclusive=True)
    assert lock is not None
    with pytest.raises(ConcurrentPullError, match="is being pulled by another process"):
        pull(there, folder, name, flow=Flow())
    (row,) = list_versions(there, 0)
    assert (row.version, row.state, row.problem) == (name, "building", "")
    assert retire(there, keep=2, grace_seconds=0, now=0).swept == []
    locks.unlock(lock)
    (row,) = list_versions(there, 0)
    assert "shortlist pull goes on with it" in row.problem
    pull(there, folder, name, flow=Flow())


def test_a_pull_waits_for_whoever_looks_at_the_drafts(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    durable.make_folder(layout.pulling_path(there, name))
    looking = locks.lock(layout.pulling_path(there, name), exclusive=False)
    assert looking is not None
    (row,) = list_versions(there, 0)
    assert "whoever pulled it is dead" in row.problem, "two may look at once"

    def wait(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():  # threads of other tests wait, too
            locks.unlock(looking)

    monkeypatch.setattr(time, "sleep", wait)
    pull(there, folder, name, flow=Flow())
    assert layout.version_names(there) == [name]


def test_a_draft_that_cannot_be_opened_is_a_row_that_says_so(there: Path, tmp_path: Path) -> None:
    durable.make_folder(layout.versions_folder(there))
    layout.pulling_path(there, "20260101T000000Z-aaaaaaaa").symlink_to(tmp_path)
    (row,) = list_versions(there, 0)
    assert "opening" in row.problem


def test_what_a_dead_pull_has_left_is_swept_by_retire(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    with pytest.raises(TransferStoppedError):
        pull(there, folder, name, flow=StopAfter(5_000, 5_000))
    assert retire(there, keep=2, grace_seconds=0, now=0).swept == [f"{layout.PULLING}{name}"]
    assert layout.entries(layout.versions_folder(there)) == []


def test_a_disk_with_too_little_room_is_found_before_anything_travels(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    real = durable.shutil.disk_usage
    monkeypatch.setattr(durable.shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    flow = Flow()
    with pytest.raises(DiskError, match="1000 bytes are free"):
        pull(there, folder, name, flow=flow)
    assert flow.bytes == 0


def test_the_way_a_pull_takes(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path, observe_steps: Observe
) -> None:
    """What FORMAT.md says under "Pulling"; leaving out any of the syncs loses something in a power cut."""
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    taken: list[str] = []
    observe_steps(lambda step, path: taken.append(f"{step} {path.name}"))
    pull(there, folder, name, flow=Flow(), parallel=1)
    manifest = taken.index("create manifest.json")
    for file in read_manifest(root, name).files:
        part = f"{layout.PART}{Path(file).name}"
        places = [taken.index(step) for step in (f"extend {part}", f"sync file {part}", f"rename {Path(file).name}")]
        assert places == sorted(places)
        assert places[-1] < manifest
    tail = taken[manifest:]
    folders = [Path(step.removeprefix("sync folder ")).name for step in tail if step.startswith("sync folder ")]
    assert tail[:2] == ["create manifest.json", "sync file manifest.json"]
    assert folders[:-2] == ["columns", "candidates", "evaluation", "items", "lists", "ranker", "users"]
    assert tail[-3:] == [f"sync folder {layout.PULLING}{name}", f"rename {name}", "sync folder versions"]
