"""The manifest of a version on disk: read it under a lease, and hold the version's files against it.

Imports neither numpy nor lmdb, so that `rollback` can verify a version and be quick about it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from prediction_store import contents, layout, locks
from prediction_store.errors import (
    DamagedVersionError,
    ForeignVersionError,
    FormatError,
    MissingVersionError,
    NewerFormatError,
)
from prediction_store.held import files_with, held_shards
from schemas.manifest import Environment, FileFacts, Manifest, decode_manifest

WAY_OUT: Final = "if it is current, shortlist rollback; then restore it from a copy, or remove it"
LEASE_TRIES: Final = 5
LEASE_WAIT_SECONDS: Final = 0.02


class Sealed(NamedTuple):
    """A version that is leased: it stays on disk until the lease is given back."""

    path: Path
    manifest: Manifest
    sha256: str
    """Digest of the manifest's bytes: the version's identity, as the history names it."""
    lease: int
    """Open descriptor of the manifest, with a shared lock."""


def take_lease(root: Path, name: str, *, manifest_sha256: str | None = None) -> Sealed:
    """Lock a version against removal and read its manifest. Give back with `locks.unlock(sealed.lease)`.

    The kernel gives the lease back when the process dies, however it dies.

    Raises:
        MissingVersionError: it is not there, or is being removed.
        DamagedVersionError: the manifest is not one, is another version's, or has not the digest asked for.
        NewerFormatError: a later Shortlist has written it.
    """
    path = layout.version_path(root, name)
    manifest_path = path / layout.MANIFEST
    descriptor = None
    for attempt in range(LEASE_TRIES):
        if attempt:
            time.sleep(LEASE_WAIT_SECONDS)  # retention has it: for a moment, or for good
        descriptor = locks.lock(manifest_path, exclusive=False)
        if descriptor is not None or not manifest_path.exists():
            break
    if descriptor is None:
        if path.is_dir() and not manifest_path.exists():
            raise DamagedVersionError(f"version {name} has no manifest", hint=WAY_OUT)
        raise MissingVersionError(f"version {name} is not there, or is being removed", hint="shortlist versions")
    try:
        data = contents.read_descriptor(descriptor, manifest_path)
        sha256 = hashlib.sha256(data).hexdigest()
        if manifest_sha256 is not None and sha256 != manifest_sha256:
            raise DamagedVersionError(
                f"version {name}: its manifest has digest {sha256[:12]}…; the history says {manifest_sha256[:12]}…",
                hint=WAY_OUT,
            )
        manifest = decoded(name, data)
    except BaseException:
        locks.unlock(descriptor)
        raise
    return Sealed(path, manifest, sha256, descriptor)


@contextmanager
def leased(root: Path, name: str) -> Iterator[Sealed]:
    """`take_lease` for the length of a block."""
    sealed = take_lease(root, name)
    try:
        yield sealed
    finally:
        locks.unlock(sealed.lease)


def read_manifest(root: Path, name: str) -> Manifest:
    """The manifest of a version, without a lease. Raises like `take_lease`."""
    return read_identity(root, name)[0]


def read_identity(root: Path, name: str) -> tuple[Manifest, str]:
    """The manifest of a version and the SHA-256 of its bytes, without a lease. Raises like `take_lease`."""
    path = layout.version_path(root, name)
    try:
        data = contents.read_document(path / layout.MANIFEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_dir():
            raise DamagedVersionError(f"version {name} has no manifest", hint=WAY_OUT) from error
        raise MissingVersionError(f"version {name} is not there", hint="shortlist versions") from error
    return decoded(name, data), hashlib.sha256(data).hexdigest()


def verify(sealed: Sealed, *, hashes: bool = True) -> None:
    """Hold a version against its manifest: the machine it was built for, the size of each file, then each digest.

    Cost: reads every byte, about a second per gigabyte; everything is in the page cache afterwards.

    Raises:
        ForeignVersionError: built for another kind of machine.
        DamagedVersionError: a file is missing, has another size or other bytes, or is no regular file.
    """
    verify_environment(sealed.manifest)
    verify_sizes(sealed.path, sealed.manifest)
    if hashes:
        verify_hashes(sealed.path, sealed.manifest)


def this_environment(libraries: dict[str, str] | None = None) -> Environment:
    """What a version built here depends on."""
    return Environment(
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        byte_order=sys.byteorder,
        word_bits=sys.maxsize.bit_length() + 1,
        lmdb_format=1,
        libraries=libraries or {},
    )


def verify_environment(manifest: Manifest) -> None:
    """Refuse a version whose bytes this machine would read wrongly. Raises ForeignVersionError."""
    here, there = this_environment(), manifest.environment
    for what in ("page_bytes", "byte_order", "word_bits", "lmdb_format"):
        found, wanted = getattr(there, what), getattr(here, what)
        if found != wanted:
            raise ForeignVersionError(
                f"version {manifest.name} was built for {what} {found}; here it is {wanted}",
                hint="build it on a machine like the ones that serve it",
            )


def verify_sizes(path: Path, manifest: Manifest) -> None:
    """Compare the size of each file: before LMDB maps anything, for it never looks. Raises DamagedVersionError."""
    for problem in wrong_sizes(path, manifest):
        raise DamagedVersionError(f"version {manifest.name}: {problem}", hint=WAY_OUT)


def verify_hashes(path: Path, manifest: Manifest) -> None:
    """Read every file that is to be here and compare its digest. Raises DamagedVersionError."""
    for problem in wrong_hashes(path, manifest):
        raise DamagedVersionError(f"version {manifest.name}: {problem}", hint=WAY_OUT)


def wrong_sizes(path: Path, manifest: Manifest) -> Iterator[str]:
    """Each file that is not there, is no regular file, or has another size than the manifest says.

    Of a version that is here in part the other shards must not be there.
    """
    here = files_here(path, manifest)
    for file, facts in manifest.files.items():
        if not is_file_name(file):
            yield f"its manifest names {file!r}, which is no file of a version"
            continue
        size = contents.size_of(path / file)
        if file not in here:
            if size is not None:
                yield f"{file} is there, and {layout.HELD} says it is not"
        elif size != facts.bytes:
            found = "is not there" if size is None else f"has {size} bytes"
            yield f"{file} {found}; wanted {facts.bytes} bytes"


def wrong_hashes(path: Path, manifest: Manifest) -> Iterator[str]:
    """Each file of the right size whose bytes are not the ones that were sealed, or cannot be read."""
    for file, facts in files_here(path, manifest).items():
        if not is_file_name(file) or contents.size_of(path / file) != facts.bytes:
            continue
        try:
            digest = contents.sha256_of(path / file)
        except DamagedVersionError as error:
            yield error.message
            continue
        if digest != facts.sha256:
            yield f"{file} has digest {digest[:12]}…; wanted {facts.sha256[:12]}…"


def files_here(path: Path, manifest: Manifest) -> dict[str, FileFacts]:
    """The files of a version that this host has to have: all, or all but the shards that others hold."""
    return files_with(manifest, held_shards(path, manifest))


def decoded(name: str, data: bytes) -> Manifest:
    """The manifest in some bytes, if it is that of the version named. Raises DamagedVersionError, NewerFormatError."""
    try:
        manifest = decode_manifest(data)
    except NewerFormatError:
        raise
    except FormatError as error:
        raise DamagedVersionError(f"version {name}: {error.message}", hint=WAY_OUT) from error
    if manifest.name != name:
        raise DamagedVersionError(f"version {name}: its manifest is that of version {manifest.name}", hint=WAY_OUT)
    return manifest


def is_file_name(file: str) -> bool:
    """True for what a manifest may name: a path that stays inside the version, and not the manifest itself."""
    parts = file.split("/")
    is_inside = all(part not in ("", ".", "..") for part in parts) and "\0" not in file
    return is_inside and file not in (layout.MANIFEST, layout.HELD)
