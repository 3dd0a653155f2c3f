"""Retention: which versions may go, and their going. Never one that a process has open: the lease says so."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from prediction_store import contents, durable, history, layout, locks
from prediction_store.decision import carry_out, look
from prediction_store.errors import ConcurrentPublishError, DiskError, FormatError, NewerFormatError, StoreError
from prediction_store.gate_report import has_passed
from prediction_store.leftovers import sweep_all
from prediction_store.manifest import read_manifest
from prediction_store.records import Ground, SharedHistory
from prediction_store.succession import remark, way_back
from schemas.errors import ShortlistError
from schemas.history import RETIRE, HistoryRecord

DAY_SECONDS: Final = 86_400
TRIES: Final = 5
"""To write down what was removed, while others decide."""
FAILED_HINT: Final = "run it again; of a folder that stays ls -ld tells whose it is: its owner can remove it"


class RetireReport(msgspec.Struct, frozen=True):
    """What `retire` did."""

    removed: list[str]
    kept: dict[str, str]
    """Each version that is left, and why."""
    swept: list[str]
    """Drafts, interrupted pulls and removals, and temporary files of processes that are no more."""
    pruned: list[str] = []
    """Removed from object storage."""
    problem: str = ""
    """Why the removal does not stand in the history, where it does not."""
    failed: dict[str, str] = {}
    """Each version and leftover that was to go and could not be removed, and why; the rest went.

    Under the URL of object storage: why not all could go there.
    """


def retire(
    root: Path, *, keep: int, grace_seconds: float, now: float, who: str = "", why: str = "",
    shared: SharedHistory | None = None, awaited: Collection[str] = (),
) -> RetireReport:  # fmt: skip
    """Remove the versions nothing needs any more, and what killed processes have left behind.

    Kept are the current version, the one `rollback` would go to, and as many of the newest as make `keep` in all: first
    the last of each day, so that a day of many versions leaves room for the days before it, and the validated ones
    before the others; beyond those, what was built less than `grace_seconds` ago, what any process has
    open, and what a later Shortlist has written.

    Args:
        who: user@host, for the history; "": this host's own housekeeping, which is not written down.
        awaited: versions whose pull will be gone on with; what it has brought stays.

    Raises:
        DamagedHistoryError: the newest history record cannot be read, so that what is needed is not known; nothing was
            removed.
        DiskError: a sync failed, and nothing more was removed or written down.
    """
    kept = _needed(root, keep, grace_seconds, now)
    swept, failed = sweep_all(root, awaited=awaited)
    removed = []
    for name in reversed(layout.version_names(root)):
        if name in kept:
            continue
        try:
            aside = _put_aside(root, name)
        except DiskError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # else somebody else has removed it meanwhile
                kept[name] = failed[name] = error.message
            continue
        if isinstance(aside, str):
            kept[name] = aside
            continue
        durable.sync_folder(aside.parent)  # before its files go: a power cut must not bring back half of it
        removed.append(name)
        try:
            durable.remove_folder(aside)
        except DiskError as error:
            failed[aside.name] = error.message
    problem = _write_down(root, removed, who=who, why=why, now=now, shared=shared) if removed and who else ""
    return RetireReport(removed, dict(sorted(kept.items(), reverse=True)), swept, problem=problem, failed=failed)


def last_of_days(names: Iterable[str], needed: Iterable[str], made_at: Callable[[str], int | None]) -> Iterator[str]:
    """Of these names, newest first, the first of each day that none of the needed ones is of.

    Args:
        made_at: the logical time of a version, midnight for a day that was over; None: it cannot be read.
    """
    days = {_day_of(time) for time in map(made_at, needed) if time is not None}
    for name in names:
        time = made_at(name)
        if time is not None and _day_of(time) not in days:
            days.add(_day_of(time))
            yield name


def _day_of(made_at: int) -> int:
    return (made_at - 1) // DAY_SECONDS


def require_all_removed(report: RetireReport) -> None:
    """Raises DiskError when something was to go and could not be removed."""
    if report.failed:
        name, reason = next(iter(report.failed.items()))
        raise DiskError(f"{len(report.failed)} could not be removed, the first is {name}: {reason}", hint=FAILED_HINT)


def _needed(root: Path, keep: int, grace_seconds: float, now: float) -> dict[str, str]:
    """The versions to keep whoever has them open, and why."""
    there = layout.version_names(root)
    needed = {name: reason for name, reason in _protected(root).items() if name in there}
    validated = [name for name in there if _is_validated(root, name)]
    for name in [*last_of_days(validated, needed, lambda name: _made_at(root, name)), *validated, *there]:
        if len(needed) < keep:
            needed.setdefault(name, "among the newest")
    for name in there:
        if now - layout.built_at(name) < grace_seconds:
            needed.setdefault(name, "built a moment ago")
        elif _is_of_the_future(root, name):
            needed.setdefault(name, "written by a later Shortlist")
    return needed


def _protected(root: Path) -> dict[str, str]:
    """The current version and the rollback target."""
    record = history.current_or_none(root)
    if record is None:
        return {}
    protected = {record.version: "current"}
    for name in way_back(record, layout.version_names(root))[:1]:
        protected.setdefault(name, "rollback goes there")
    return protected


def _is_validated(root: Path, name: str) -> bool:
    """True when the version's gates have passed. What cannot be read has not."""
    try:
        return has_passed(root, name)
    except (StoreError, FormatError):
        return False


def _made_at(root: Path, name: str) -> int | None:
    try:
        return read_manifest(root, name).made_at
    except (StoreError, FormatError):
        return None


def _is_of_the_future(root: Path, name: str) -> bool:
    try:
        read_manifest(root, name)
    except NewerFormatError:
        return True
    except (StoreError, FormatError):
        pass
    return False


def discard(root: Path, name: str) -> str | None:
    """Remove a damaged version so that another copy can take its place; None: it is gone, else why it is not.

    Also what is current: it cannot be opened, and whoever has it open keeps it from going.
    """
    aside = _put_aside(root, name, protects=False)
    if isinstance(aside, str):
        return aside
    durable.sync_folder(aside.parent)
    durable.remove_folder(aside)
    return None


def _put_aside(root: Path, name: str, *, protects: bool = True) -> Path | str:
    """Take the name from a version that nobody has open: where its files are now, or why it stays.

    The rename comes first: a version is listed whole or not at all, wherever a removal is interrupted.
    """
    path = layout.version_path(root, name)
    manifest = path / layout.MANIFEST
    lock = locks.lock(manifest, exclusive=True)
    if lock is None and contents.size_of(manifest) is not None:
        return "open in some process"
    try:
        # Rollback holds a lease from before it verifies until its record is there: now its word is final.
        reason = _protected(root).get(name) if protects else None
        if reason is not None:
            return reason
        trash = layout.trash_path(root, name, secrets.token_hex(4))
        durable.rename(path, trash)
        return trash
    finally:
        if lock is not None:
            locks.unlock(lock)


def _write_down(root: Path, removed: list[str], *, who: str, why: str, now: float, shared: SharedHistory | None) -> str:
    """Say in the history what was removed; why that failed, if it did: on a full disk the removal is the way out."""

    def decide(at: Ground) -> HistoryRecord | None:
        if at.newest is None:
            return None
        subjects = dict.fromkeys(removed, "")
        return remark(at.newest, at.number + 1, RETIRE, who=who, why=why, now=now, subjects=subjects)

    problem = ""
    for _ in range(TRIES):
        try:
            found = look(root, shared, tolerate_damage=False)
            if found.newest is not None:
                carry_out(root, found, decide, shared=shared)
            return ""
        except ConcurrentPublishError as error:  # a cutover, say: what was removed is removed all the same
            problem = error.message
        except ShortlistError as error:
            problem = error.message
            break
    return f"removed, and not written into the history: {problem}"
