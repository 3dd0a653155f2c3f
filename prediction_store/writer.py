"""What writes: shards, each by a task of its own, and the `VersionDraft` that they are sealed into."""

from __future__ import annotations

from pathlib import Path

from prediction_store import layout
from prediction_store.columns import Categories, Texts
from prediction_store.draft import VersionDraft
from prediction_store.errors import FormatError, StoreError
from prediction_store.manifest import read_manifest, verify_sizes
from prediction_store.shards import ShardReport, attempt_at, commit_shard, copy_shard, shard_of, write_shard

__all__ = [
    "Categories",
    "ShardReport",
    "Texts",
    "VersionDraft",
    "attempt_at",
    "commit_shard",
    "copy_shard",
    "find_by_inputs",
    "shard_of",
    "write_shard",
]


def find_by_inputs(root: Path, inputs_digest: str) -> str | None:
    """The newest sealed version built from these very inputs whose files are all there; None: there is none."""
    for name in layout.version_names(root):
        if not name.endswith(f"-{inputs_digest[:8]}"):
            continue
        try:
            manifest = read_manifest(root, name)
            verify_sizes(layout.version_path(root, name), manifest)
        except (StoreError, FormatError):
            continue  # a damaged version is no reason not to build a good one
        if manifest.inputs_digest == inputs_digest:
            return name
    return None
