"""From object storage into the store: aside, verified as it arrives, then sealed like any version."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from prediction_store import contents, durable, layout, locks
from prediction_store.errors import (
    ConcurrentPullError,
    DamagedVersionError,
    FormatError,
    MissingVersionError,
    PartialVersionError,
)
from prediction_store.file_system import refuse_network
from prediction_store.held import files_with, held_shards, is_whole
from prediction_store.manifest import read_identity, verify_environment
from prediction_store.transfer.copies import Copy, require_copy, sizes_of
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.remote import Remote
from schemas.gate_report import decode_gate_report
from schemas.held import HeldShards, ShardRange, encode_held
from schemas.manifest import FileFacts

LOCK_TRIES: Final = 5
LOCK_WAIT_SECONDS: Final = 0.02


class PullReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull did."""

    version: str
    files: int
    """That this pull brought to their end; an earlier one may have begun them, or brought the others."""
    files_in_all: int
    bytes: int
    """That have travelled."""
    seconds: float


def pull(
    root: Path, remote: Remote, name: str, *, flow: Flow, parallel: int = 4, manifest_sha256: str | None = None,
    shards: ShardRange | None = None,
) -> PullReport:  # fmt: skip
    """Bring a version here and seal it; it becomes current by nothing of this. An interrupted pull is gone on with.

    Args:
        manifest_sha256: the digest that the history names, if it is known.
        shards: of users, to hold here; None: all of them.

    Raises:
        MissingVersionError: it is not complete in object storage.
        DamagedVersionError: what arrives is not what was sealed. Nothing of it can be seen.
        ForeignVersionError: built for another kind of machine.
        PartialVersionError: the version has another number of shards; or it is here already, in other shards.
        ConcurrentPullError: another process on this host is pulling it.
        DiskError, RemoteError, TransferStoppedError: no room, no answer, or the word to stop.
        NetworkFileSystemError: the store lies where LMDB must not be used.
    """
    started = time.monotonic()
    refuse_network(root)
    copy = require_copy(remote, name, manifest_sha256)
    held = _wanted(copy, shards)
    files = files_with(copy.manifest, held)
    before = flow.bytes
    brought: list[str] = []
    if not _is_here(root, copy, held):
        _require_sizes(remote, copy, files)
        with _arrival(root, name) as folder:
            _tidy(folder, files)
            missing = sum(_missing_bytes(folder / file, facts) for file, facts in files.items())
            flow.expect(missing)
            durable.require_room(folder, missing)

            def bring(file: str) -> None:
                if _bring(remote, layout.remote_file(name, file), folder / file, files[file], flow):
                    brought.append(file)

            flow.each(sorted(files, key=lambda file: -files[file].bytes), bring, parallel)
            _take_gates(root, remote, copy)
            _seal(root, folder, copy, held)
    return PullReport(
        version=name,
        files=len(brought),
        files_in_all=len(files),
        bytes=flow.bytes - before,
        seconds=time.monotonic() - started,
    )


def _wanted(copy: Copy, shards: ShardRange | None) -> ShardRange:
    """The shards to hold. Raises ForeignVersionError, PartialVersionError."""
    verify_environment(copy.manifest)
    n_shards = copy.manifest.shards
    if shards is None:
        return ShardRange(0, n_shards - 1, n_shards)
    if shards.of != n_shards:
        raise PartialVersionError(
            f"version {copy.manifest.name} has {n_shards} shards; this host is to hold {shards}",
            hint="follow.shards and store.shards must agree on the number",
        )
    return shards


def _is_here(root: Path, copy: Copy, held: ShardRange) -> bool:
    """True when the version is sealed here already, with the shards that are wanted or more."""
    name = copy.manifest.name
    try:
        manifest, sha256 = read_identity(root, name)
    except MissingVersionError:
        return False
    if sha256 != copy.sha256:
        raise DamagedVersionError(
            f"version {name} is here with a manifest of digest {sha256[:12]}…; the hosts' is {copy.sha256[:12]}…",
            hint=f"shortlist check {name}",
        )
    here = held_shards(layout.version_path(root, name), manifest)
    if not set(held.numbers) <= set(here.numbers):
        raise PartialVersionError(
            f"version {name} is here with shards {here}; wanted {held}",
            hint="the next version comes with the shards that are wanted",
        )
    return True


def _require_sizes(remote: Remote, copy: Copy, files: Mapping[str, FileFacts]) -> None:
    """See now what would be seen after an hour: an object that is missing or cut off. Raises DamagedVersionError."""
    there = sizes_of(remote, copy.manifest.name)
    for file, facts in files.items():
        if there.get(file) != facts.bytes:
            found = f"has {there[file]} bytes" if file in there else "is not there"
            raise DamagedVersionError(
                f"version {copy.manifest.name}: {file} {found} in {remote.url}; wanted {facts.bytes} bytes",
                hint=f"shortlist push {copy.manifest.name}, on a host that has it",
            )


@contextlib.contextmanager
def _arrival(root: Path, name: str) -> Iterator[Path]:
    """The folder in which the version arrives, locked; it stays when the block fails. Raises ConcurrentPullError."""
    for folder in (layout.versions_folder(root), layout.history_folder(root), layout.gates_folder(root)):
        durable.make_folder(folder, for_all=True)
    path = layout.pulling_path(root, name)
    for attempt in range(LOCK_TRIES):
        if attempt:
            time.sleep(LOCK_WAIT_SECONDS)  # whoever lists or sweeps drafts has it: for a moment
        if not path.is_dir():
            with contextlib.suppress(FileExistsError):  # another process was faster, and the lock decides
                durable.make_new_folder(path)
        lock = locks.lock(path, exclusive=True)
        if lock is not None:
            break
    else:
        raise ConcurrentPullError(f"version {name} is being pulled by another process", hint="shortlist versions")
    try:
        durable.open_modes(path)
        yield path
    finally:
        locks.unlock(lock)


def _tidy(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Remove what is not on its way to be a file of the version, and make the folders of those that are."""
    for file in (layout.MANIFEST, layout.HELD):  # of a pull that was killed when it was about to seal
        durable.remove_file(folder / file)
    arriving = {str(layout.part_path(Path(file))) for file in files}
    for file, path in layout.files_of(folder).items():
        if file not in files and file not in arriving:
            durable.remove_file(path)
    for sub in reversed(_folders(files)):
        if not (folder / sub).is_dir():
            durable.make_new_folder(folder / sub)


def _missing_bytes(final: Path, facts: FileFacts) -> int:
    if contents.size_of(final) == facts.bytes:
        return 0
    return max(0, facts.bytes - (contents.size_of(layout.part_path(final)) or 0))


def _bring(remote: Remote, key: str, final: Path, facts: FileFacts, flow: Flow) -> bool:
    """Have a file under its final name, whole and verified; False: it was."""
    if contents.size_of(final) == facts.bytes and contents.sha256_of(final) == facts.sha256:
        return False
    durable.remove_file(final)
    part = layout.part_path(final)
    digest, begun = _begun(part, facts)
    while True:
        arrived = begun
        with durable.extend(part) as opened:
            while arrived < facts.bytes:
                piece = remote.read_piece(key, arrived, min(flow.piece_bytes, facts.bytes - arrived))
                if not piece:
                    raise DamagedVersionError(f"{key} ends at byte {arrived} in {remote.url}; wanted {facts.bytes}")
                opened.write(piece)
                digest.update(piece)
                arrived += len(piece)
                flow.passed(len(piece))
        if digest.hexdigest() == facts.sha256:
            durable.rename(part, final)
            return True
        durable.remove_file(part)
        if not begun:
            raise DamagedVersionError(
                f"{key}: what arrives from {remote.url} has digest {digest.hexdigest()[:12]}…;"
                f" wanted {facts.sha256[:12]}…",
                hint="shortlist push --verify VERSION, on a host that has it",
            )
        digest, begun = hashlib.sha256(), 0  # a power cut may have taken what an earlier pull had brought


def _begun(part: Path, facts: FileFacts) -> tuple[hashlib._Hash, int]:
    """What an earlier pull has brought of a file: its digest so far, and its length."""
    size = contents.size_of(part)
    if size is None or size > facts.bytes:
        durable.remove_file(part)
        return hashlib.sha256(), 0
    return contents.digest_of(part), size


def _take_gates(root: Path, remote: Remote, copy: Copy) -> None:
    """The gate report on this version, if it has one there and none here."""
    data = remote.read(layout.remote_gate(copy.manifest.name))
    path = layout.gate_path(root, copy.manifest.name)
    if data is None or contents.size_of(path) is not None:
        return
    try:
        report = decode_gate_report(data)
    except FormatError:
        return  # a cutover from here would ask for the gates to be run; following needs none
    if report.manifest_sha256 == copy.sha256:
        durable.replace_document(path, data, for_all=True)


def _seal(root: Path, folder: Path, copy: Copy, held: ShardRange) -> None:
    """The last steps, in the order in which a version that was built here is sealed."""
    name = copy.manifest.name
    if not is_whole(held):
        with durable.create(folder / layout.HELD) as file:
            file.write(encode_held(HeldShards(version=name, shards=held)))
    with durable.create(folder / layout.MANIFEST) as file:
        file.write(copy.data)
    durable.seal(folder, _folders(files_with(copy.manifest, held)), layout.version_path(root, name))


def _folders(files: Mapping[str, FileFacts]) -> list[str]:
    """Every folder that the files lie in, children before their parents."""
    found = {str(parent) for file in files for parent in Path(file).parents if parent != Path()}
    return sorted(found, key=lambda folder: (-folder.count("/"), folder))
