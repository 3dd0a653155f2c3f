"""What a person forbids: the pin holds what is served, the quarantine keeps a version from being served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from prediction_store import layout
from prediction_store.decision import carry_out, look
from prediction_store.errors import (
    FormatError,
    MissingVersionError,
    NoCurrentVersionError,
    PinnedError,
    QuarantinedError,
    ServedVersionError,
    StoreError,
)
from prediction_store.manifest import Sealed, read_manifest
from prediction_store.records import Ground, SharedHistory
from prediction_store.succession import held_by, remark
from schemas.history import PIN, QUARANTINE, RELEASE, UNPIN, HistoryRecord


def pin(root: Path, who: str, why: str, now: float, *, shared: SharedHistory | None = None) -> HistoryRecord:
    """Hold what is served: until `unpin`, every cutover is refused. Pinning twice changes nothing."""
    return _remark(root, PIN, lambda newest: newest.pinned > 0, who=who, why=why, now=now, shared=shared)


def unpin(root: Path, who: str, why: str, now: float, *, shared: SharedHistory | None = None) -> HistoryRecord:
    """Allow cutovers again. Without a pin it changes nothing."""
    return _remark(root, UNPIN, lambda newest: newest.pinned == 0, who=who, why=why, now=now, shared=shared)


def quarantine(
    root: Path, name: str, who: str, why: str, now: float, *, shared: SharedHistory | None = None
) -> HistoryRecord:
    """Forbid serving a version, and every other one of the same inputs, until it is released.

    Raises:
        ServedVersionError: it is current.
        MissingVersionError: it is not on disk.
    """
    inputs = inputs_digest_of(root, layout.checked_name(name))
    if not inputs and name not in layout.version_names(root):
        raise MissingVersionError(f"version {name} is not there", hint="shortlist versions")

    def is_done(newest: HistoryRecord) -> bool:
        if newest.version == name:
            raise ServedVersionError(f"version {name} is current", hint='shortlist rollback --why "…" does both')
        return name in newest.quarantined

    return _remark(root, QUARANTINE, is_done, who=who, why=why, now=now, shared=shared, subjects={name: inputs})


def release(
    root: Path, name: str, who: str, why: str, now: float, *, shared: SharedHistory | None = None
) -> HistoryRecord:
    """Allow a quarantined version to be served again; it does not become current. Releasing twice changes nothing."""
    subjects = {layout.checked_name(name): ""}

    def is_done(newest: HistoryRecord) -> bool:
        return name not in newest.quarantined

    return _remark(root, RELEASE, is_done, who=who, why=why, now=now, shared=shared, subjects=subjects)


def require_unpinned(newest: HistoryRecord | None) -> None:
    """Go on only if no pin holds what is served. Raises PinnedError."""
    if newest is not None and newest.pinned:
        raise PinnedError(
            f"version {newest.version} is pinned by history record {newest.pinned}; nothing was changed",
            hint='shortlist history says who and why; shortlist unpin --why "…"',
        )


def require_free(newest: HistoryRecord | None, sealed: Sealed) -> None:
    """Go on only if neither the version nor another one of the same inputs is quarantined. Raises QuarantinedError."""
    held = held_by(newest, sealed.manifest.name, sealed.manifest.inputs_digest)
    if newest is None or held is None:
        return
    same = "" if held == sealed.manifest.name else f" has the same inputs as {held}, which"
    raise QuarantinedError(
        f"version {sealed.manifest.name}{same} is quarantined by history record {newest.quarantined[held].number}",
        hint=f'shortlist history says who and why; shortlist release {held} --why "…"',
    )


def inputs_digest_of(root: Path, name: str) -> str:
    """The digest of a version's inputs; "" when its manifest cannot be read, which is no reason to keep serving it."""
    try:
        return read_manifest(root, name).inputs_digest
    except (StoreError, FormatError):
        return ""


def _remark(
    root: Path, action: str, is_done: Callable[[HistoryRecord], bool], *, who: str, why: str, now: float,
    shared: SharedHistory | None, subjects: Mapping[str, str] | None = None,
) -> HistoryRecord:  # fmt: skip
    """Append a record that leaves current what is current."""

    def decide(at: Ground) -> HistoryRecord | None:
        newest = at.newest
        if newest is None:
            raise NoCurrentVersionError(
                f"no version is current in {root}, so there is nothing to {action}", hint="shortlist cutover VERSION"
            )
        if is_done(newest):
            return None
        return remark(newest, at.number + 1, action, who=who, why=why, now=now, subjects=subjects)

    return carry_out(root, look(root, shared, tolerate_damage=False), decide, shared=shared)
