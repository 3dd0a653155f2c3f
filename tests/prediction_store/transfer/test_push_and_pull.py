"""Versions travel whole, only what is missing travels, and what is pushed can be read back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from shop_store import MakeVersion, judge
from travelling import SHARD, StopAfter, everything, inside, with_changes

from prediction_store import layout
from prediction_store.check import check
from prediction_store.errors import DamagedVersionError, MissingVersionError, TransferStoppedError
from prediction_store.gate_report import has_passed
from prediction_store.manifest import read_manifest
from prediction_store.transfer.copies import find_copy, sizes_of
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.pull import pull
from prediction_store.transfer.push import push
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.stop import Stop
from schemas.manifest import decode_manifest, encode_manifest

Observe = Callable[[Callable[[str, Path], None]], None]


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
    other = encode_manifest(with_changes(decode_manifest(everything(root, name)[layout.MANIFEST]), space_id="another"))
    folder.put(key, other)
    with pytest.raises(DamagedVersionError, match="is not the one of that name that is here"):
        push(root, folder, name, flow=Flow())
    assert folder.read(key) == other


def test_a_transfer_takes_no_more_than_its_share(
    root: Path, make_version: MakeVersion, folder: Remote, there: Path
) -> None:
    """By a clock that passes only when the transfer waits."""
    name = make_version("a")
    push(root, folder, name, flow=Flow())
    at = 0.0
    lock = threading.Lock()

    def wait(_: Stop, seconds: float) -> None:
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
