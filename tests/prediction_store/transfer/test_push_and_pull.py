"""Versions travel whole, only what is missing travels, and nothing arrives that is not what was sealed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from object_storage import BUCKET
from shop_store import MakeVersion, judge

from prediction_store import durable, layout, locks
from prediction_store.check import check
from prediction_store.errors import (
    ConcurrentPullError,
    DamagedVersionError,
    DiskError,
    ForeignVersionError,
    MissingVersionError,
    RemoteError,
    TransferStoppedError,
)
from prediction_store.gate_report import has_passed
from prediction_store.listing import list_versions
from prediction_store.manifest import read_manifest
from prediction_store.retention import retire
from prediction_store.transfer.copies import find_copy, sizes_of
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.pull import pull
from prediction_store.transfer.push import push
from prediction_store.transfer.remote import Remote
from schemas.errors import ConfigError
from schemas.manifest import Manifest, decode_manifest, encode_manifest

SHARD = layout.shard_file(0)
Observe = Callable[[Callable[[str, Path], None]], None]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The store of another host."""
    return tmp_path / "there"


def everything(root: Path, name: str) -> dict[str, bytes]:
    """Every file of a version, by path."""
    path = layout.version_path(root, name)
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def inside(folder: Remote, key: str) -> Path:
    """The file behind an object."""
    return Path(folder.url.removeprefix("file://")) / key


class StopAfter(Flow):
    """Asks for the end when so many bytes have travelled."""

    def __init__(self, limit: int, piece_bytes: int) -> None:
        super().__init__()
        self._limit = limit
        self._piece_bytes = piece_bytes

    @property
    def piece_bytes(self) -> int:
        return self._piece_bytes

    def passed(self, count: int) -> None:
        super().passed(count)
        if self.bytes >= self._limit:
            raise TransferStoppedError("enough")


def test_a_version_arrives_byte_for_byte_with_its_gate_report(
    root: Path, make_version: MakeVersion, remote: Remote, there: Path
) -> None:
    name = make_version("a", shards=3)
    judge(root, name)
    pushed = push(root, remote, name, flow=Flow())
    pulled = pull(there, remote, name, flow=Flow())
    assert everything(there, name) == everything(root, name)
    assert check(there).problems == []
    assert has_passed(there, name)
    n_files = len(read_manifest(root, name).files)
    assert (pushed.files, pulled.files) == (n_files, n_files)
    mode = layout.version_path(there, name).stat().st_mode
    assert mode & 0o777 == 0o555


def test_nothing_travels_twice(root: Path, make_version: MakeVersion, remote: Remote, there: Path) -> None:
    name = make_version("a")
    push(root, remote, name, flow=Flow())
    pull(there, remote, name, flow=Flow())
    again, back = Flow(), Flow()
    assert push(root, remote, name, flow=again).files == 0
    assert pull(there, remote, name, flow=back).files == 0
    assert (again.bytes, back.bytes) == (0, 0)


def test_only_what_is_missing_is_sent(root: Path, make_version: MakeVersion, folder: Remote) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    keys = [layout.remote_file(name, file) for file in (SHARD, layout.LISTS)]
    folder.delete([*keys, layout.remote_file(name, layout.MANIFEST)])
    assert find_copy(folder, name) is None
    assert push(root, folder, name, flow=Flow()).files == 2
    assert find_copy(folder, name) is not None


def test_a_version_is_complete_there_only_when_its_manifest_is(
    root: Path, make_version: MakeVersion, remote: Remote, there: Path
) -> None:
    name = make_version("a")
    with pytest.raises(TransferStoppedError):
        push(root, remote, name, flow=StopAfter(20_000, 1 << 20), parallel=1)
    assert sizes_of(remote, name), "something has arrived"
    with pytest.raises(MissingVersionError, match="is not complete in"):
        pull(there, remote, name, flow=Flow())
    assert 0 < push(root, remote, name, flow=Flow()).files < len(read_manifest(root, name).files)
    pull(there, remote, name, flow=Flow())


def test_what_an_interrupted_push_has_left_is_not_trusted(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    """An object of the right size and other bytes: nothing but reading it tells."""
    name = make_version("a")
    with pytest.raises(TransferStoppedError):
        push(root, folder, name, flow=StopAfter(40_000, 1 << 20), parallel=1)
    (file, size), *_ = sizes_of(folder, name).items()
    inside(folder, layout.remote_file(name, file)).write_bytes(bytes(size))
    push(root, folder, name, flow=Flow())
    pull(there, folder, name, flow=Flow())
    assert everything(there, name) == everything(root, name)


def test_a_version_that_object_storage_gives_back_otherwise_is_not_complete_there(
    root: Path, make_version: MakeVersion, folder: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_version("a")
    put_file = folder.put_file

    def put_badly(key: str, path: Path, flow: Flow) -> None:
        put_file(key, path, flow)
        if key.endswith(SHARD):
            inside(folder, key).write_bytes(bytes(path.stat().st_size))

    monkeypatch.setattr(folder, "put_file", put_badly)
    with pytest.raises(DamagedVersionError, match="gives back bytes of digest"):
        push(root, folder, name, flow=Flow())
    assert find_copy(folder, name) is None


def test_a_complete_version_can_be_read_back_and_mended(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    path = inside(folder, layout.remote_file(name, SHARD))
    path.write_bytes(bytes(path.stat().st_size))
    assert push(root, folder, name, flow=Flow()).bytes == 0, "the sizes are right"
    push(root, folder, name, flow=Flow(), verify_again=True)
    pull(there, folder, name, flow=Flow())


@pytest.mark.leaves_damage
def test_damaged_bytes_are_not_pushed(
    root: Path, make_version: MakeVersion, folder: Remote, edit_sealed: Callable[..., None]
) -> None:
    name = make_version("a")
    edit_sealed(layout.version_path(root, name) / SHARD, lambda data: bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(DamagedVersionError, match=r"candidates/shard-0000\.mdb has digest"):
        push(root, folder, name, flow=Flow())
    assert sizes_of(folder, name) == {}


def test_another_version_of_the_same_name_is_not_overwritten(
    root: Path, make_version: MakeVersion, folder: Remote
) -> None:
    name = make_version("a")
    key = layout.remote_file(name, layout.MANIFEST)
    other = encode_manifest(_with(decode_manifest(everything(root, name)[layout.MANIFEST]), space_id="another"))
    folder.put(key, other)
    with pytest.raises(DamagedVersionError, match="is not the one of that name that is here"):
        push(root, folder, name, flow=Flow())
    assert folder.read(key) == other


def _with(manifest: Manifest, **changes: object) -> Manifest:
    import msgspec

    return msgspec.structs.replace(manifest, **changes)


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
    foreign = _with(manifest, environment=_with(manifest.environment, page_bytes=65_536))  # type: ignore[arg-type]
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
    folder.put(layout.remote_file(name, layout.MANIFEST), encode_manifest(_with(manifest, files={file: facts})))
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
    monkeypatch.setattr(time, "sleep", lambda seconds: locks.unlock(looking))
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


def test_a_transfer_takes_no_more_than_its_share(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    """By a clock that passes only when the transfer waits."""
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    at = 0.0
    lock = threading.Lock()

    def wait(_: threading.Event, seconds: float) -> None:
        nonlocal at
        with lock:
            at += seconds

    flow = Flow(10_000, clock=lambda: at, wait=wait)
    assert flow.piece_bytes == 64 << 10
    pull(there, folder, name, flow=flow, parallel=1)
    assert at == pytest.approx(flow.bytes / 10_000)


def test_a_transfer_tells_how_far_it_is(root: Path, make_version: MakeVersion, folder: Remote, there: Path) -> None:
    class Counter:
        expected = advanced = 0

        def expect(self, count: int) -> None:
            self.expected += count

        def advance(self, count: int) -> None:
            self.advanced += count

    name = make_version("a")
    out, back = Counter(), Counter()
    push(root, folder, name, flow=Flow(meter=out))
    pull(there, folder, name, flow=Flow(meter=back))
    total = sum(facts.bytes for facts in read_manifest(root, name).files.values())
    assert (out.expected, out.advanced) == (2 * total, 2 * total), "sent and read back"
    assert (back.expected, back.advanced) == (total, total)


def test_files_travel_side_by_side(
    root: Path, make_version: MakeVersion, folder: Remote, observe_steps: Observe
) -> None:
    """Four at a time: the first four uploads meet at a barrier that lets nobody through before."""
    name = make_version("a")
    meeting = threading.Barrier(4, timeout=60)
    first_ones = iter(range(4))

    def meet(step: str, path: Path) -> None:
        if step == "put" and next(first_ones, None) is not None:
            meeting.wait()

    observe_steps(meet)
    push(root, folder, name, flow=Flow(), parallel=4)
    assert next(first_ones, None) is None


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


def test_the_way_a_push_takes(root: Path, make_version: MakeVersion, folder: Remote, observe_steps: Observe) -> None:
    name = make_version("a")
    judge(root, name)
    taken: list[tuple[str, str]] = []
    observe_steps(lambda step, path: taken.append((step, path.name)))
    push(root, folder, name, flow=Flow(), parallel=1)
    puts = [file for step, file in taken if step == "put"]
    assert puts[-2:] == [f"{name}.json", layout.MANIFEST], "the manifest comes last, the gate report before it"
    first_settled = next(at for at, (step, _) in enumerate(taken) if step.startswith("sync"))
    files = [Path(file).name for file in read_manifest(root, name).files]
    assert sorted(file for _, file in taken[:first_settled]) == sorted(files)
    manifest = taken.index(("put", layout.MANIFEST))
    assert {("sync file", file) for file in files} <= set(taken[:manifest]), "all are safe before it"
    assert ("sync folder", "versions") in taken[:manifest]
    assert ("sync file", layout.MANIFEST) in taken[manifest:]


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
