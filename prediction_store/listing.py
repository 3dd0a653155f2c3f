"""The versions on disk, one row each, for people and programs; a version that cannot be read is a row, too."""

from __future__ import annotations

from pathlib import Path

import msgspec

from prediction_store import history, layout
from prediction_store.errors import StoreError
from prediction_store.gate_report import read_report
from prediction_store.manifest import read_manifest
from schemas.errors import FormatError


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of a version without reading its bytes."""

    version: str
    is_current: bool
    is_rollback_target: bool
    """`rollback` would go there."""
    gates: str
    """passed, refused, not run, or unreadable."""
    built_at: int
    made_at: int | None = None
    expires_at: int | None = None
    users: int | None = None
    """Users with a list."""
    items: int | None = None
    bytes: int | None = None
    problem: str = ""
    """Why the rest is not known."""


def list_versions(root: Path) -> list[VersionRow]:
    """Every sealed version, newest first.

    Raises:
        DamagedHistoryError: the newest history record cannot be read, so that the current version is not known.
    """
    root = Path(root)
    record = history.current_or_none(root)
    current = record.version if record else None
    try:
        target = history.rollback_target(root)
    except (StoreError, FormatError):
        target = None  # an old record is damaged: `check` says so
    return [_row(root, name, current, target) for name in layout.version_names(root)]


def _row(root: Path, name: str, current: str | None, target: str | None) -> VersionRow:
    row = VersionRow(
        version=name,
        is_current=name == current,
        is_rollback_target=name == target,
        gates="not run",
        built_at=layout.built_at(name),
    )
    try:
        manifest = read_manifest(root, name)
    except (StoreError, FormatError) as error:
        return msgspec.structs.replace(row, problem=error.message)
    try:
        report = read_report(root, name)
        gates = "not run" if report is None else ("passed" if report.passed else "refused")
    except StoreError:
        gates = "unreadable"
    return msgspec.structs.replace(
        row,
        gates=gates,
        made_at=manifest.made_at,
        expires_at=manifest.expires_at,
        users=manifest.counts.lists,
        items=manifest.counts.items,
        bytes=sum(facts.bytes for facts in manifest.files.values()),
    )
