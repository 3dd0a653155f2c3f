"""What of a version is in object storage. It is complete there when its manifest is, which is put last."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from prediction_store import layout
from prediction_store.errors import DamagedVersionError, MissingVersionError
from prediction_store.manifest import decoded, is_file_name
from prediction_store.transfer.remote import Remote
from schemas.manifest import Manifest


class Copy(NamedTuple):
    """A version that is complete in object storage."""

    manifest: Manifest
    sha256: str
    """Digest of the manifest's bytes: the version's identity, as the history names it."""
    data: bytes
    """The manifest's bytes."""


def find_copy(remote: Remote, name: str) -> Copy | None:
    """The version in object storage, if it is complete there.

    Raises:
        DamagedVersionError: its manifest is not one, or another version's.
        NewerFormatError: a later Shortlist has written it.
        RemoteError: object storage does not answer.
    """
    data = remote.read(layout.remote_file(name, layout.MANIFEST))
    if data is None:
        return None
    manifest = decoded(name, data)
    for file in manifest.files:
        if not is_file_name(file):
            raise DamagedVersionError(
                f"version {name}: its manifest in {remote.url} names {file!r}, which is no file of a version"
            )
    return Copy(manifest, hashlib.sha256(data).hexdigest(), data)


def require_copy(remote: Remote, name: str, manifest_sha256: str | None = None) -> Copy:
    """Like `find_copy`, for a version that has to be there.

    Raises:
        MissingVersionError: it is not complete there.
        DamagedVersionError: as above, or its manifest has not the digest asked for.
    """
    found = find_copy(remote, name)
    if found is None:
        raise MissingVersionError(
            f"version {name} is not complete in {remote.url}", hint=f"shortlist push {name}, on a host that has it"
        )
    if manifest_sha256 is not None and found.sha256 != manifest_sha256:
        raise DamagedVersionError(
            f"version {name}: its manifest in {remote.url} has digest {found.sha256[:12]}…;"
            f" wanted {manifest_sha256[:12]}…"
        )
    return found


def sizes_of(remote: Remote, name: str) -> dict[str, int]:
    """The files of a version that are in object storage, complete or not: size in bytes by path inside the version."""
    prefix = layout.remote_file(name, "")
    return {key.removeprefix(prefix): size for key, size in remote.sizes(prefix).items()}


def names_there(remote: Remote) -> dict[str, bool]:
    """Every version of which anything is in object storage, newest first, and whether it is complete there."""
    there: dict[str, bool] = {}
    for key in remote.sizes(layout.REMOTE_VERSIONS):
        name, _, file = key.removeprefix(layout.REMOTE_VERSIONS).partition("/")
        if layout.is_version_name(name):
            there[name] = there.get(name, False) or file == layout.MANIFEST
    return dict(sorted(there.items(), reverse=True))
