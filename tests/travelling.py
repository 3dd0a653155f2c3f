"""Versions that travel: what is in them, what lies in object storage, and a transfer that is interrupted."""

from __future__ import annotations

from pathlib import Path

import msgspec

from prediction_store import layout
from prediction_store.errors import TransferStoppedError
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.remote import Remote
from schemas.manifest import Manifest

SHARD = layout.shard_file(0)


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


def with_changes(manifest: Manifest, **changes: object) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)
