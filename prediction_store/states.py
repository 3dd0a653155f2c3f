"""The state of a version: derived from what is on disk whenever it is asked for, and stored nowhere.

                 gates passed          cutover            cutover to another      rollback, quarantine
 building ─▶ built ─▶ validated ─▶ current ─────────────▶ backup        current ─────────▶ quarantined
                                                                                       release ─▶ validated

A version is in the first of the states that fits, in the order in which they are listed below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from prediction_store import layout
from prediction_store.errors import FormatError, NewerFormatError, StoreError
from prediction_store.gate_report import read_report
from prediction_store.manifest import files_here, read_identity, verify_sizes
from prediction_store.succession import held_by, way_back
from schemas.gate_report import PASS, WARN
from schemas.history import HistoryRecord
from schemas.manifest import Manifest

UNKNOWN: Final = "unknown"
"""Written by a later Shortlist. Inert: neither served nor removed."""
DAMAGED: Final = "damaged"
"""The manifest cannot be read or a file has not its size. (Only `check` reads every byte.)"""
CURRENT: Final = "current"
QUARANTINED: Final = "quarantined"
BACKUP: Final = "backup"
"""Served before, and `rollback` may go to it."""
EXPIRED: Final = "expired"
VALIDATED: Final = "validated"
"""Its gates have passed, on exactly these bytes."""
BUILT: Final = "built"
"""Sealed; its gates have not been run, or have not passed."""
BUILDING: Final = "building"
"""A draft, or a copy that is under way from another host."""


class Standing(NamedTuple):
    """What is known of a sealed version without reading all of its bytes."""

    state: str
    manifest: Manifest | None
    gates: str
    """pass, warn or fail, as the report on exactly these bytes says; or not run, or unreadable; or unknown, where the
    manifest cannot be read or a file has not its size."""
    problem: str
    """Why it is damaged or unknown."""
    bytes: int = 0
    """Of the files that are here."""


def standing_of(root: Path, name: str, newest: HistoryRecord | None, now: float) -> Standing:
    """The state of a sealed version, with `newest` as the history's newest record."""
    try:
        manifest, sha256 = read_identity(root, name)
        path = layout.version_path(root, name)
        verify_sizes(path, manifest)
        n_bytes = sum(facts.bytes for facts in files_here(path, manifest).values())
    except NewerFormatError as error:
        return Standing(UNKNOWN, None, "unknown", error.message)
    except (StoreError, FormatError) as error:
        return Standing(DAMAGED, None, "unknown", error.message)
    gates = _gates(root, name, sha256)
    return Standing(_state(manifest, newest, now, gates), manifest, gates, "", n_bytes)


def _state(manifest: Manifest, newest: HistoryRecord | None, now: float, gates: str) -> str:
    name = manifest.name
    if newest is not None:
        if newest.version == name:
            return CURRENT
        if held_by(newest, name, manifest.inputs_digest) is not None:
            return QUARANTINED
        if name in way_back(newest, [name]):
            return BACKUP
    if now >= manifest.expires_at:
        return EXPIRED
    return VALIDATED if gates in (PASS, WARN) else BUILT


def _gates(root: Path, name: str, manifest_sha256: str) -> str:
    try:
        report = read_report(root, name)
    except (StoreError, FormatError):
        return "unreadable"
    if report is None or report.manifest_sha256 != manifest_sha256:
        return "not run"
    return report.outcome
