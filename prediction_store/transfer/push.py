"""From the store to object storage: what is missing there, read back and hashed, and the manifest last."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec

from prediction_store import contents, layout
from prediction_store.errors import DamagedVersionError, PartialVersionError, RemoteError
from prediction_store.gate_report import read_report
from prediction_store.held import held_shards, is_whole
from prediction_store.manifest import Sealed, leased, verify
from prediction_store.transfer.copies import find_copy, sizes_of
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.remote import Remote
from schemas.manifest import FileFacts


class PushReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a push did."""

    version: str
    files: int
    """That were sent; the others were there."""
    files_in_all: int
    bytes: int
    """That were sent."""
    seconds: float


def push(
    root: Path, remote: Remote, name: str, *, flow: Flow, parallel: int = 4, verify_again: bool = False
) -> PushReport:
    """Bring a version into object storage; nothing travels that is there. An interrupted push is gone on with.

    What has been sent is read back and hashed before the manifest follows, and so is what an interrupted push has left.

    Args:
        verify_again: read everything back although the version is complete there, and mend what is damaged.

    Raises:
        MissingVersionError, DamagedVersionError: the version here is not there, or not as it was sealed; or object
            storage has another one of that name, or gives back other bytes than it was given.
        PartialVersionError: this host has some of its shards only.
        RemoteError: object storage does not answer.
    """
    started = time.monotonic()
    with leased(root, name) as sealed:
        if not is_whole(held_shards(sealed.path, sealed.manifest)):
            raise PartialVersionError(
                f"version {name} is here in part only, and cannot be pushed from this host",
                hint="push it from the host that built it",
            )
        is_complete = _is_complete(remote, sealed)
        there = sizes_of(remote, name)
        files = sealed.manifest.files
        missing = {file for file, facts in files.items() if there.get(file) != facts.bytes}
        doubtful = missing if is_complete and not verify_again else set(files)
        if doubtful:
            verify(sealed)
        flow.expect(sum(files[file].bytes for file in missing) + sum(files[file].bytes for file in doubtful))

        def bring(file: str) -> None:
            _bring(remote, sealed, file, is_there=file not in missing, flow=flow)

        flow.each(sorted(doubtful, key=lambda file: -files[file].bytes), bring, parallel)
        remote.settle(layout.remote_file(name, file) for file in doubtful)
        _put_gates(root, remote, sealed)
        if not is_complete:
            _put_manifest(remote, sealed)
    return PushReport(
        version=name,
        files=len(missing),
        files_in_all=len(files),
        bytes=sum(files[file].bytes for file in missing),
        seconds=time.monotonic() - started,
    )


def _is_complete(remote: Remote, sealed: Sealed) -> bool:
    name = sealed.manifest.name
    found = find_copy(remote, name)
    if found is not None and found.sha256 != sealed.sha256:
        raise DamagedVersionError(f"version {name} in {remote.url} is not the one of that name that is here")
    return found is not None


def _bring(remote: Remote, sealed: Sealed, file: str, *, is_there: bool, flow: Flow) -> None:
    """Send a file unless it is there, and hold what is there against the manifest."""
    key, facts = layout.remote_file(sealed.manifest.name, file), sealed.manifest.files[file]
    if is_there and _digest_of(remote, key, facts, flow) == facts.sha256:
        return
    remote.put_file(key, sealed.path / file, flow)
    digest = _digest_of(remote, key, facts, flow)
    if digest != facts.sha256:
        raise DamagedVersionError(
            f"{key}: {remote.url} gives back bytes of digest {digest[:12]}…; it was given {facts.sha256[:12]}…",
            hint="push it again; if that fails too, distrust the way there",
        )


def _digest_of(remote: Remote, key: str, facts: FileFacts, flow: Flow) -> str:
    digest, start = hashlib.sha256(), 0
    while start < facts.bytes:
        piece = remote.read_piece(key, start, min(flow.piece_bytes, facts.bytes - start))
        if not piece:
            raise RemoteError(f"{key} ends at byte {start} in {remote.url}; wanted {facts.bytes}")
        digest.update(piece)
        start += len(piece)
        flow.passed(len(piece))
    return digest.hexdigest()


def _put_gates(root: Path, remote: Remote, sealed: Sealed) -> None:
    """The gate report travels with the version that it is about, so that other hosts can cut over to it."""
    name = sealed.manifest.name
    report = read_report(root, name)
    if report is None or report.manifest_sha256 != sealed.sha256:
        return
    key, data = layout.remote_gate(name), contents.read_document(layout.gate_path(root, name))
    if remote.read(key) != data:
        remote.put(key, data)
        remote.settle([key])


def _put_manifest(remote: Remote, sealed: Sealed) -> None:
    """From here on the version is complete in object storage."""
    name = sealed.manifest.name
    key = layout.remote_file(name, layout.MANIFEST)
    data = contents.read_descriptor(sealed.lease, sealed.path / layout.MANIFEST)
    remote.put(key, data)
    remote.settle([key])
    there = sizes_of(remote, name)
    gone = [file for file, facts in sealed.manifest.files.items() if there.get(file) != facts.bytes]
    if gone or remote.read(key) != data:
        remote.delete([key])
        raise RemoteError(
            f"version {name}: {', '.join(gone[:3]) or key} was changed in {remote.url} while it was pushed",
            hint=f"shortlist push {name}",
        )
