"""The history is the pointer: the record with the highest number names the current version.

A cutover and a rollback append a record, whose number exactly one of all who try can have. Nothing is ever moved or
overwritten, so the log of what happened cannot disagree with what is served.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import socket
from pathlib import Path
from typing import Final

from prediction_store import durable, layout
from prediction_store.errors import (
    ConcurrentPublishError,
    DamagedHistoryError,
    DiskError,
    FormatError,
    NewerFormatError,
    NoCurrentVersionError,
    NothingToRollBackToError,
    UnknownOutcomeError,
)
from prediction_store.gate_report import require_passed_report
from prediction_store.manifest import leased, verify
from schemas.errors import UsageError
from schemas.manifest import HistoryRecord, decode_history_record, encode_history_record

CUTOVER: Final = "cutover"
ROLLBACK: Final = "rollback"


def cutover(root: Path, name: str, who: str, why: str, now: float, *, force: bool = False) -> HistoryRecord:
    """Make a version current: verify every byte, require its gates, append a record. Returns the newest record.

    Cutting over to what is current already changes nothing and succeeds, so that repeating the command is safe.

    Args:
        who: user@host, for the audit. why: the reason; `force` needs one.
        force: go live although the gates have not passed, or although the newest history record is damaged.

    Raises:
        GateRefusedError: the gates have not passed, or (MissingGateReportError) not been run on these bytes.
        ConcurrentPublishError: someone else has appended first; nothing was changed.
        MissingVersionError, DamagedVersionError, ForeignVersionError: the version cannot be served.
        UnknownOutcomeError: the last sync failed.
    """
    root = Path(root)
    if force and not why.strip():
        raise UsageError("forcing a cutover needs a reason", hint='--why "…"')
    number, newest = _newest_for_append(root, tolerate_damage=force)
    with leased(root, name) as sealed:
        if newest is not None and (newest.version, newest.manifest_sha256) == (name, sealed.sha256):
            _sync_again(root)
            return newest
        verify(sealed)
        if not force:
            require_passed_report(root, name, sealed.sha256)
        return _append(
            root,
            HistoryRecord(
                number=number + 1,
                action=CUTOVER,
                version=name,
                manifest_sha256=sealed.sha256,
                previous=newest.version if newest else "",
                who=who,
                why=why,
                at=int(now),
                forced=force,
            ),
        )


def rollback(root: Path, who: str, why: str, now: float, *, to: str | None = None) -> HistoryRecord:
    """Go back to the version that was served before, or to a named one; verified before the record is appended.

    What has been rolled back from does not come back: a second rollback goes one version further, see `served_before`.

    Args:
        to: a version that was current at some time, or has passed its gates.

    Raises:
        NothingToRollBackToError: no earlier version was served, or none of them is left.
        NoCurrentVersionError: nothing was ever current.
        GateRefusedError: `to` was never current and has not passed its gates.
        ConcurrentPublishError, UnknownOutcomeError, and what a version that cannot be served raises: as `cutover`.
    """
    root = Path(root)
    number, newest = _newest_for_append(root, tolerate_damage=to is not None)
    if newest is None and to is None:
        raise NoCurrentVersionError("no version is current, so there is nothing to go back from")
    target = rollback_target(root) if to is None else layout.checked_name(to)
    if target is None:
        raise NothingToRollBackToError(
            f"no version was served before {newest.version if newest else 'this one'}, or none of those is left",
            hint="shortlist versions; shortlist rollback --to VERSION",
        )
    with leased(root, target) as sealed:
        if newest is not None and (newest.version, newest.manifest_sha256) == (target, sealed.sha256):
            _sync_again(root)
            return newest
        verify(sealed)
        if to is not None and not _was_served(root, target, sealed.sha256):
            require_passed_report(root, target, sealed.sha256)
        return _append(
            root,
            HistoryRecord(
                number=number + 1,
                action=ROLLBACK,
                version=target,
                manifest_sha256=sealed.sha256,
                previous=newest.version if newest else "",
                who=who,
                why=why,
                at=int(now),
            ),
        )


def current(root: Path) -> HistoryRecord:
    """The newest record: it names the current version.

    Raises:
        NoCurrentVersionError: there is no record. It never means "the newest version".
        DamagedHistoryError: the newest record cannot be read. An older one is not taken in its place: it may name
            the version that was just rolled back from.
        NewerFormatError: a later Shortlist has written it.
    """
    numbers = layout.history_numbers(Path(root))
    if not numbers:
        raise NoCurrentVersionError(f"no version is current in {root}", hint="shortlist cutover VERSION")
    return read_record(Path(root), numbers[-1])


def current_or_none(root: Path) -> HistoryRecord | None:
    """The newest record; None when there is none. Raises like `current` when it cannot be read."""
    try:
        return current(root)
    except NoCurrentVersionError:
        return None


def read_record(root: Path, number: int) -> HistoryRecord:
    """One record. Raises DamagedHistoryError or NewerFormatError."""
    path = layout.history_path(root, number)
    try:
        record = decode_history_record(durable.read_document(path))
    except NewerFormatError:
        raise
    except (FormatError, DiskError, FileNotFoundError) as error:
        raise DamagedHistoryError(
            f"{path}: {error}", hint='shortlist rollback --to VERSION, or shortlist cutover VERSION --force --why "…"'
        ) from error
    if record.number != number:
        raise DamagedHistoryError(f"{path}: it says it is record {record.number}")
    return record


def records(root: Path) -> list[HistoryRecord]:
    """Every record, oldest first. Raises DamagedHistoryError or NewerFormatError."""
    return [read_record(Path(root), number) for number in layout.history_numbers(Path(root))]


def served_before(history: list[HistoryRecord]) -> list[str]:
    """The versions to go back to, nearest first: a stack that a cutover grows and a rollback cuts.

    So two rollbacks in a row go back two versions, and after a rollback the version that was left is not "before".
    """
    stack: list[str] = []
    for record in history:
        if record.action == ROLLBACK:
            if record.version in stack:
                while stack[-1] != record.version:
                    stack.pop()
                continue
            del stack[-1:]  # rolled back to a version from elsewhere: it takes the place of the one that was left
        if not stack or stack[-1] != record.version:
            stack.append(record.version)
    return list(dict.fromkeys(name for name in reversed(stack[:-1]) if name != stack[-1]))


def rollback_target(root: Path) -> str | None:
    """The version that `rollback` would go to: the nearest one served before that is still on disk; None: none."""
    there = set(layout.version_names(root))
    return next((name for name in served_before(records(root)) if name in there), None)


def user_at_host() -> str:
    """Who runs this process, as the history writes it down."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _newest_for_append(root: Path, *, tolerate_damage: bool) -> tuple[int, HistoryRecord | None]:
    """The highest number, and its record: None when there is none, or it is damaged and that is tolerated."""
    numbers = layout.history_numbers(root)
    if not numbers:
        return 0, None
    try:
        return numbers[-1], read_record(root, numbers[-1])
    except DamagedHistoryError:
        if not tolerate_damage:
            raise
        return numbers[-1], None


def _was_served(root: Path, name: str, manifest_sha256: str) -> bool:
    """True when an undamaged record names exactly these bytes."""
    for number in reversed(layout.history_numbers(root)):
        try:
            record = read_record(root, number)
        except (DamagedHistoryError, NewerFormatError):
            continue
        if (record.version, record.manifest_sha256) == (name, manifest_sha256):
            return True
    return False


def _append(root: Path, record: HistoryRecord) -> HistoryRecord:
    """Publish a record durably, if its number is still free. Requires: its version is leased and verified."""
    folder = layout.history_folder(root)
    durable.make_folder(folder)
    # The build has synced this; if that very sync failed, the history must still never name what a crash may take.
    durable.sync_folder(layout.versions_folder(root))
    target = layout.history_path(root, record.number)
    temporary = folder / f"{layout.TEMPORARY}{record.number:08d}-{secrets.token_hex(4)}"
    with durable.create(temporary) as file:
        file.write(encode_history_record(record))
    try:
        if not durable.link_new(temporary, target):
            raise ConcurrentPublishError(
                f"history record {record.number} was made by someone else in the meantime; nothing was changed",
                hint="shortlist versions, then decide again",
            )
        try:
            durable.sync_folder(folder)
        except DiskError as error:
            raise UnknownOutcomeError(
                f"{record.action} to {record.version}: the record is written, but a power cut may still take it"
                f" ({error.message})",
                hint="run the same command again: it is safe",
            ) from error
    finally:
        with contextlib.suppress(DiskError):  # `retire` sweeps it; the outcome is not in doubt for this
            durable.remove_file(temporary)
    return record


def _sync_again(root: Path) -> None:
    """Make sure of what is there: an earlier attempt may have failed at its very last sync."""
    durable.sync_folder(layout.versions_folder(root))
    durable.sync_folder(layout.history_folder(root))
