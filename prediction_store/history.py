"""Cutover and rollback: which version is served, decided by one more record in the history, the pointer."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

from prediction_store import layout
from prediction_store.decision import carry_out, look
from prediction_store.errors import (
    NoCurrentVersionError,
    NothingToRollBackToError,
)
from prediction_store.gate_report import require_passed_report
from prediction_store.holds import inputs_digest_of, require_free, require_unpinned
from prediction_store.manifest import Sealed, leased
from prediction_store.records import (
    Ground,
    SharedHistory,
    current,
    current_or_none,
    read_record,
    readable_records,
    sync_again,
)
from prediction_store.succession import opening, way_back
from schemas.errors import UsageError
from schemas.history import CUTOVER, ROLLBACK, HistoryRecord

__all__ = [
    "current",
    "current_or_none",
    "cutover",
    "read_record",
    "readable_records",
    "rollback",
    "rollback_target",
    "user_at_host",
]


def cutover(
    root: Path, name: str, who: str, why: str, now: float, *, force: bool = False, expect: int | None = None,
    apply: bool = True, shared: SharedHistory | None = None,
) -> HistoryRecord:  # fmt: skip
    """Make a version current: require its gates, verify every byte, append a record. Returns the newest record.

    Cutting over to what is current already changes nothing and succeeds, so that repeating the command is safe.

    Args:
        who: user@host, for the audit. why: the reason; `force` needs one.
        force: go live although the gates have not passed, or although the newest history record is damaged.
        expect: the number of the history record that the decision was made on.
        apply: False: check everything, change nothing, and return the record that would be appended.
        shared: the history that several hosts share, if they do.

    Raises:
        GateRefusedError: the gates have not passed, or (MissingGateReportError) not been run on these bytes.
        PinnedError, QuarantinedError: a person has said no, and `force` does not overrule that.
        ConcurrentPublishError: someone else has appended first; nothing was changed.
        MissingVersionError, DamagedVersionError, ForeignVersionError: the version cannot be served.
        UnknownOutcomeError: the last sync failed.
    """
    if force and not why.strip():
        raise UsageError("forcing a cutover needs a reason", hint='--why "…"')
    found = look(root, shared, tolerate_damage=force)
    with leased(root, name) as sealed:

        def decide(at: Ground) -> HistoryRecord | None:
            if _is_served(at, sealed):
                return None
            require_unpinned(at.newest)
            require_free(at.newest, sealed)
            if not force:
                require_passed_report(root, name, sealed.sha256)
            return opening(
                at.newest, at.number + 1, CUTOVER, name, sealed.sha256, who=who, why=why, now=now, forced=force
            )

        return carry_out(root, found, decide, sealed=sealed, expect=expect, apply=apply, shared=shared)


def rollback(
    root: Path, who: str, why: str, now: float, *, to: str | None = None, expect: int | None = None,
    apply: bool = True, shared: SharedHistory | None = None,
) -> HistoryRecord:  # fmt: skip
    """Go back to the version that was served before, or to a named one; the one that is left is quarantined.

    So no later run makes it current again before it is released. A second rollback goes one version further; with `to`
    or `expect`, repeating the command changes nothing. A pin does not keep a rollback back, and outlives it.

    Args:
        to: a version that was current at some time, or has passed its gates.
        expect, apply, shared: as in `cutover`.

    Raises:
        NothingToRollBackToError: no earlier version was served, or none of them is left.
        NoCurrentVersionError: nothing was ever current.
        QuarantinedError: `to` is quarantined.
        GateRefusedError: `to` was never current and has not passed its gates.
        ConcurrentPublishError, UnknownOutcomeError, and what a version that cannot be served raises: as `cutover`.
    """
    found = look(root, shared, tolerate_damage=to is not None)
    if _is_done(found, to, expect):
        sync_again(root)
        return found.newest or current(root)
    target = _nearest_way_back(root, found) if to is None else layout.checked_name(to)
    with leased(root, target) as sealed:

        def decide(at: Ground) -> HistoryRecord | None:
            if _is_served(at, sealed):
                return None
            require_free(at.newest, sealed)
            if to is not None and not _was_served(root, target, sealed.sha256):
                require_passed_report(root, target, sealed.sha256)
            number, left = at.number + 1, _left(root, at, sealed)
            return opening(
                at.newest, number, ROLLBACK, target, sealed.sha256, who=who, why=why, now=now, abandoned=left
            )

        return carry_out(root, found, decide, sealed=sealed, expect=expect, apply=apply, shared=shared)


def rollback_target(root: Path) -> str | None:
    """The version that `rollback` would go to: the nearest one served before that is still on disk; None: none."""
    newest = current_or_none(root)
    ways = way_back(newest, layout.version_names(root)) if newest else []
    return ways[0] if ways else None


def user_at_host() -> str:
    """Who runs this process, as the history writes it down."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _nearest_way_back(root: Path, found: Ground) -> str:
    """The version that `rollback` goes to. Raises NoCurrentVersionError or NothingToRollBackToError."""
    if found.newest is None:
        raise NoCurrentVersionError(
            f"no version is current in {root}, so there is nothing to go back from", hint="shortlist cutover VERSION"
        )
    ways = way_back(found.newest, layout.version_names(root))
    if not ways:
        raise NothingToRollBackToError(
            f"no version was served before {found.newest.version}, or none of those is left and not quarantined",
            hint="shortlist versions; shortlist rollback --to VERSION",
        )
    return ways[0]


def _is_served(at: Ground, sealed: Sealed) -> bool:
    return at.served is not None and at.served.identity == (sealed.manifest.name, sealed.sha256)


def _left(root: Path, at: Ground, target: Sealed) -> dict[str, str]:
    """The version that is rolled back from, with its inputs' digest; without, if the target has the same inputs."""
    if at.served is None:
        return {}
    inputs = inputs_digest_of(root, at.served.version)
    return {at.served.version: "" if inputs == target.manifest.inputs_digest else inputs}


def _is_done(found: Ground, to: str | None, expect: int | None) -> bool:
    """True when this very rollback is what stands in the newest record: the command is being repeated."""
    newest = found.served
    if newest is None or expect is None or newest.number != expect + 1:
        return False
    return newest.action == ROLLBACK and to in (None, newest.version)


def _was_served(root: Path, name: str, manifest_sha256: str) -> bool:
    """True when an undamaged record names exactly these bytes."""
    return any(record.identity == (name, manifest_sha256) for record in readable_records(root))
