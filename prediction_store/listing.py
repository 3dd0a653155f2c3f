"""What is in the store, one row per version, for people and programs; what cannot be read is a row, too."""

from __future__ import annotations

from pathlib import Path

import msgspec

from prediction_store import history, layout, locks
from prediction_store.errors import DiskError, FormatError, StoreError
from prediction_store.states import BUILDING, Standing, standing_of
from prediction_store.succession import way_back
from schemas.history import HistoryRecord

ABANDONED = {
    layout.BUILDING: "whoever built it is dead: shortlist retire sweeps it",
    layout.PULLING: "whoever pulled it is dead: shortlist pull goes on with it, shortlist retire sweeps it",
}
"""What is said of a draft without a maker, by how the name of its folder begins."""


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of a version without reading its bytes."""

    version: str
    state: str
    """One of `states`."""
    is_current: bool
    is_rollback_target: bool
    """`rollback` would go there."""
    gates: str
    """As `states.Standing` has them: pass, warn, fail, not run, unreadable or unknown."""
    built_at: int
    made_at: int | None = None
    """The time of its data."""
    age_seconds: int | None = None
    """Since the time of its data; never negative."""
    expires_at: int | None = None
    users: int | None = None
    """Users with a list."""
    items: int | None = None
    bytes: int | None = None
    made_current_by: str = ""
    """Who made it current the last time; "": it never was."""
    made_current_at: int | None = None
    made_current_why: str = ""
    problem: str = ""
    """Why the rest is not known."""


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the history, or why it cannot be read."""

    number: int
    record: HistoryRecord | None
    problem: str = ""


def list_versions(root: Path, now: float) -> list[VersionRow]:
    """Every version, drafts included, newest first.

    Raises:
        DamagedHistoryError: the newest history record cannot be read, so that the current version is not known.
    """
    newest = history.current_or_none(root)
    names = layout.version_names(root)
    ways = way_back(newest, names) if newest else []
    opened = _openings(root)
    rows = [
        _row(
            name, standing_of(root, name, newest, now), newest, opened.get(name), now=now, is_target=ways[:1] == [name]
        )
        for name in names
    ]
    return sorted([*rows, *_drafts(root)], key=lambda row: row.version, reverse=True)


def list_history(root: Path) -> list[HistoryRow]:
    """Every record, newest first."""
    rows = []
    for number in reversed(layout.history_numbers(root)):
        try:
            rows.append(HistoryRow(number=number, record=history.read_record(root, number)))
        except (StoreError, FormatError) as error:
            rows.append(HistoryRow(number=number, record=None, problem=error.message))
    return rows


def _row(
    name: str, standing: Standing, newest: HistoryRecord | None, opened: HistoryRecord | None, *, now: float,
    is_target: bool,
) -> VersionRow:  # fmt: skip
    row = VersionRow(
        version=name,
        state=standing.state,
        is_current=newest is not None and newest.version == name,
        is_rollback_target=is_target,
        gates=standing.gates,
        built_at=layout.built_at(name),
        made_current_by=opened.who if opened else "",
        made_current_at=opened.at if opened else None,
        made_current_why=opened.why if opened else "",
        problem=standing.problem,
    )
    manifest = standing.manifest
    if manifest is None:
        return row
    return msgspec.structs.replace(
        row,
        made_at=manifest.made_at,
        age_seconds=max(0, int(now - manifest.made_at)),
        expires_at=manifest.expires_at,
        users=manifest.counts.lists,
        items=manifest.counts.items,
        bytes=standing.bytes,
    )


def _openings(root: Path) -> dict[str, HistoryRecord]:
    """For each version the last record that made it current, as far as the history can be read."""
    opened: dict[str, HistoryRecord] = {}
    for record in history.readable_records(root):
        if record.version != record.previous:
            opened.setdefault(record.version, record)
    return opened


def _drafts(root: Path) -> list[VersionRow]:
    """Versions that are being built or pulled, and those whose maker is dead."""
    rows = []
    for prefix, abandoned in ABANDONED.items():
        for path in layout.leftovers(root, prefix):
            name = path.name.removeprefix(prefix)[: layout.NAME_LENGTH]
            if layout.is_version_name(name):
                row = VersionRow(
                    version=name,
                    state=BUILDING,
                    is_current=False,
                    is_rollback_target=False,
                    gates="not run",
                    built_at=layout.built_at(name),
                    problem=_problem_of_draft(path, abandoned),
                )
                rows.append(row)
    return rows


def _problem_of_draft(path: Path, abandoned: str) -> str:
    try:
        lock = locks.lock(path, exclusive=False)  # its maker's is exclusive; others may look at the same time
    except DiskError as error:
        return error.message
    if lock is None:
        return ""
    locks.unlock(lock)
    return abandoned
