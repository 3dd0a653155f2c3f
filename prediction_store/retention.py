"""Retention: which versions may go, and their going. Never one that a process has open: the lease says so."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from prediction_store import durable, history, layout
from prediction_store.leftovers import sweep_drafts, sweep_temporary, sweep_trash


class RetireReport(msgspec.Struct, frozen=True):
    """What `retire` did."""

    removed: list[str]
    kept: dict[str, str]
    """Each version that is left, and why."""
    swept: list[str]
    """Drafts, interrupted removals and temporary files of processes that are no more."""


def retire(root: Path, *, keep: int, grace_seconds: float, now: float) -> RetireReport:
    """Remove the versions nothing needs any more, and what killed processes have left behind.

    Kept are the current version, the one `rollback` would go to, and as many of the newest as make `keep` in all;
    beyond those, what was built less than `grace_seconds` ago, and what any process has open.

    Raises:
        DamagedHistoryError: a history record cannot be read, so that what is needed is not known; nothing was removed.
    """
    root = Path(root)
    kept = _needed(root, keep, grace_seconds, now)
    removed = []
    for name in reversed(layout.version_names(root)):
        if name in kept:
            continue
        reason = _remove(root, name)
        if reason is None:
            removed.append(name)
        else:
            kept[name] = reason
    swept = [*sweep_drafts(root), *sweep_trash(root), *sweep_temporary(root)]
    return RetireReport(removed, dict(sorted(kept.items(), reverse=True)), swept)


def _needed(root: Path, keep: int, grace_seconds: float, now: float) -> dict[str, str]:
    """The versions to keep whoever has them open, and why."""
    there = layout.version_names(root)
    needed = {}
    for name, reason in _protected(root).items():
        if name in there:
            needed[name] = reason
    for name in there:
        if len(needed) < keep:
            needed.setdefault(name, "among the newest")
    for name in there:
        if now - layout.built_at(name) < grace_seconds:
            needed.setdefault(name, "built a moment ago")
    return needed


def _protected(root: Path) -> dict[str, str]:
    """The current version and the rollback target."""
    record = history.current_or_none(root)
    if record is None:
        return {}
    protected = {record.version: "current"}
    target = history.rollback_target(root)
    if target is not None:
        protected.setdefault(target, "rollback goes there")
    return protected


def _remove(root: Path, name: str) -> str | None:
    """Remove one version; None: it is gone, else why it is not.

    The rename comes first: a version is listed whole or not at all, wherever a removal is interrupted.
    """
    path = layout.version_path(root, name)
    manifest = path / layout.MANIFEST
    lock = durable.lock(manifest, exclusive=True)
    if lock is None and durable.size_of(manifest) is not None:
        return "open in some process"
    try:
        # Rollback holds a lease from before it verifies until its record is there: now its word is final.
        reason = _protected(root).get(name)
        if reason is not None:
            return reason
        trash = layout.trash_path(root, name, secrets.token_hex(4))
        durable.rename(path, trash)
        durable.sync_folder(layout.versions_folder(root))
    finally:
        if lock is not None:
            durable.unlock(lock)
    durable.remove_folder(trash)
    return None
