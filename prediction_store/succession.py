"""Makes the next history record from the newest one, with all that it carries on. Pure functions; others decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prediction_store import layout
from schemas.history import (
    CUTOVER,
    PIN,
    QUARANTINE,
    RELEASE,
    RETIRE,
    ROLLBACK,
    UNPIN,
    HistoryRecord,
    Quarantine,
)

REMEMBERED: Final = 32
"""Versions served before that a record names; `rollback --to` reaches older ones while they are on disk."""


def opening(
    newest: HistoryRecord | None, number: int, action: str, version: str, manifest_sha256: str, *, who: str, why: str,
    now: float, forced: bool = False, abandoned: Mapping[str, str] | None = None,
) -> HistoryRecord:  # fmt: skip
    """The record that makes a version current: `action` is cutover or rollback.

    Args:
        newest: the record that is followed on; None: there is none.
        abandoned: versions, with their inputs' digests, that are quarantined by the same stroke.
    """
    before = newest.before if newest else []
    if newest is not None and action != ROLLBACK:
        before = [newest.version, *before]
    elif version in before:
        before = before[before.index(version) + 1 :]  # what was served after it is no way back any more
    quarantined = dict(newest.quarantined) if newest else {}
    quarantined |= {name: Quarantine(number, inputs) for name, inputs in (abandoned or {}).items()}
    return HistoryRecord(
        number=number,
        action=action,
        version=version,
        manifest_sha256=manifest_sha256,
        previous=newest.version if newest else "",
        who=who,
        why=why,
        at=int(now),
        forced=forced,
        subjects=list(abandoned or ()),
        since=number,
        before=list(dict.fromkeys(name for name in before if name != version))[:REMEMBERED],
        pinned=newest.pinned if newest else 0,
        quarantined=quarantined,
    )


def remark(
    newest: HistoryRecord, number: int, action: str, *, who: str, why: str, now: float,
    subjects: Mapping[str, str] | None = None,
) -> HistoryRecord:  # fmt: skip
    """The record that leaves current what is current: a pin, a quarantine, a retirement.

    Args:
        subjects: the versions it is about, with their inputs' digests: `action` says whether they are quarantined,
            released or only mentioned.
    """
    subjects = subjects or {}
    quarantined = dict(newest.quarantined)
    if action == QUARANTINE:
        quarantined |= {name: Quarantine(number, inputs) for name, inputs in subjects.items()}
    elif action == RELEASE:
        quarantined = {name: held for name, held in quarantined.items() if name not in subjects}
    return HistoryRecord(
        number=number,
        action=action,
        version=newest.version,
        manifest_sha256=newest.manifest_sha256,
        previous=newest.version,
        who=who,
        why=why,
        at=int(now),
        subjects=list(subjects),
        since=newest.since,
        before=newest.before,
        pinned={PIN: number, UNPIN: 0}.get(action, newest.pinned),
        quarantined=quarantined,
    )


def follows(record: HistoryRecord, before: HistoryRecord) -> bool:
    """True when a record carries on what the one before it carried. Not required of actions of a later Shortlist."""
    number, who, why, now = record.number, record.who, record.why, record.at
    subjects = dict.fromkeys(record.subjects, "")
    if record.action in (CUTOVER, ROLLBACK):
        wanted = opening(
            before, number, record.action, record.version, record.manifest_sha256, who=who, why=why, now=now,
            abandoned=subjects,
        )  # fmt: skip
    elif record.action in (PIN, UNPIN, QUARANTINE, RELEASE, RETIRE):
        wanted = remark(before, number, record.action, who=who, why=why, now=now, subjects=subjects)
    else:
        return True
    return _carried(record) == _carried(wanted)


def held_by(newest: HistoryRecord | None, name: str, inputs_digest: str) -> str | None:
    """The quarantined version that forbids serving this one: itself, or one of the same inputs; None: it is free."""
    if newest is None:
        return None
    if name in newest.quarantined:
        return name
    for held, quarantine in newest.quarantined.items():
        if inputs_digest and quarantine.inputs_digest == inputs_digest:
            return held
    return None


def way_back(newest: HistoryRecord, there: Iterable[str]) -> list[str]:
    """The versions that `rollback` may go to, nearest first: served before, on disk, and not quarantined.

    Their names tell which have the inputs of a quarantined one: elsewhere than on this host no manifest is at hand.
    """
    on_disk = set(there)
    held = [quarantine.inputs_digest for quarantine in newest.quarantined.values() if quarantine.inputs_digest]
    return [
        name
        for name in newest.before
        if name in on_disk
        and name not in newest.quarantined
        and not any(layout.is_of_inputs(name, digest) for digest in held)
    ]


def is_same_ground(one: HistoryRecord | None, other: HistoryRecord | None) -> bool:
    """True when a decision made on one record stands on the other: the same is served, held and pinned."""
    if one is None or other is None:
        return one is other
    return (one.identity, bool(one.pinned), one.quarantined.keys()) == (
        other.identity, bool(other.pinned), other.quarantined.keys(),
    )  # fmt: skip


def _carried(record: HistoryRecord) -> tuple[object, ...]:
    held = {name: quarantine.number for name, quarantine in record.quarantined.items()}
    return record.version, record.previous, record.since, record.before, record.pinned, held
