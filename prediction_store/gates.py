"""The gates: what a version must show, by itself and against the current one, before it may become current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from prediction_store import durable, history, layout
from prediction_store.errors import DamagedVersionError, StoreError
from prediction_store.gate_report import describe, read_report, require_passed, write_report
from prediction_store.manifest import Sealed, leased, verify
from schemas.config import Gates
from schemas.errors import FormatError
from schemas.gate_report import FAIL, PASS, Gate, GateReport
from schemas.manifest import Manifest

__all__ = [
    "describe",
    "read_report",
    "require_passed",
    "run_gates",
]


class Judged(msgspec.Struct, frozen=True):
    """What the gates look at: a version's manifest and its evaluation."""

    manifest: Manifest
    evaluation: dict[str, Any]

    @property
    def mean_list_length(self) -> float:
        """Candidates per user that has any."""
        return self.manifest.counts.list_items / max(1, self.manifest.counts.lists)

    def measured(self, *keys: str) -> float | None:
        """A number of the evaluation, by its place; None: it is not there, or not a number."""
        value: Any = self.evaluation
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number else None


def run_gates(root: Path, name: str, gates: Gates, *, candidates: int, now: float) -> GateReport:
    """Judge a version against the current one and write gates/<name>.json. Changes nothing else, refuses nothing.

    Args:
        candidates: `retrieve.candidates`: how long a full list is.

    Raises:
        DamagedVersionError, MissingVersionError, ForeignVersionError: there is nothing to judge.
    """
    root = Path(root)
    with leased(root, name) as sealed:
        # Sizes only: cutover hashes every byte, and what is judged here is hashed right below.
        verify(sealed, hashes=False)
        version = Judged(sealed.manifest, _evaluation(sealed))
        current, note = _current(root, name)
        found = [
            *_counts(version, current, gates, note),
            _list_length(version, gates, candidates),
            *_quality(version, current, gates, note),
        ]
        report = GateReport(
            version=name,
            manifest_sha256=sealed.sha256,
            against=current.manifest.name if current else "",
            at=int(now),
            outcome=FAIL if any(gate.outcome == FAIL for gate in found) else PASS,
            gates=found,
        )
        write_report(root, report)
        return report


def _counts(version: Judged, current: Judged | None, gates: Gates, note: str) -> list[Gate]:
    counts, before = version.manifest.counts, current.manifest.counts if current else None
    return [
        _at_least("users", counts.lists, gates.min_users),
        _at_least("items", counts.items, gates.min_items),
        _relative("users_ratio", counts.lists, before.lists if before else None, gates.min_users_ratio, note),
        _relative("items_ratio", counts.items, before.items if before else None, gates.min_items_ratio, note),
    ]


def _list_length(version: Judged, gates: Gates, candidates: int) -> Gate:
    full = min(candidates, version.manifest.counts.items)
    return _at_least(
        "mean_list_share",
        version.mean_list_length / max(1, full),
        gates.min_mean_list_share,
        f"lists have {version.mean_list_length:.1f} of {full} items on average",
    )


def _quality(version: Judged, current: Judged | None, gates: Gates, note: str) -> list[Gate]:
    at = str(gates.recall_at)
    coverage, recall = version.measured("coverage"), version.measured("recall", at)
    found = [_measured("coverage", coverage, gates.min_coverage)]
    if coverage is not None:
        before = current.measured("coverage") if current else None
        found.append(_relative("coverage_ratio", coverage, before, gates.min_coverage_ratio, note))
    if recall is None:
        return [*found, _measured(f"recall@{at}", None, gates.min_recall_ratio)]
    before = current.measured("recall", at) if current else None
    found.append(_relative(f"recall@{at}_ratio", recall, before, gates.min_recall_ratio, note))
    if gates.min_recall_vs_popularity > 0:
        popularity = version.measured("popularity", "recall", at)
        wanted = gates.min_recall_vs_popularity
        name = f"recall@{at}_vs_popularity"
        missing = popularity is None
        found.append(_measured(name, None, wanted) if missing else _relative(name, recall, popularity, wanted, ""))
    return found


def _at_least(name: str, found: float, wanted: float, note: str = "") -> Gate:
    return Gate(name=name, outcome=PASS if found >= wanted else FAIL, found=found, fail=wanted, note=note)


def _measured(name: str, found: float | None, wanted: float) -> Gate:
    """A number that the evaluation must have: what was not measured has not passed."""
    if found is None:
        return Gate(name=name, outcome=FAIL, found=None, fail=wanted, note="not in the evaluation report")
    return _at_least(name, found, wanted)


def _relative(name: str, found: float, before: float | None, wanted: float, note: str) -> Gate:
    """A number as a ratio to another one; passes where there is none to compare with."""
    if before is None or before <= 0:
        why = (
            note
            if before is None and note
            else f"nothing to compare {found:g} with: the other number is zero or missing"
        )
        return Gate(name=name, outcome=PASS, found=None, fail=wanted, note=why)
    return _at_least(name, found / before, wanted, f"{found:g} against {before:g}")


def _current(root: Path, name: str) -> tuple[Judged | None, str]:
    """The current version to compare with; else None and why."""
    record = history.current_or_none(root)
    if record is None:
        return None, "no version is current: nothing to compare with"
    if record.version == name:
        return None, "this version is the current one: nothing to compare with"
    try:
        with leased(root, record.version) as sealed:
            return Judged(sealed.manifest, _evaluation(sealed)), ""
    except (StoreError, FormatError) as error:
        # A damaged current version must not keep a good one from taking its place.
        return None, f"the current version cannot be compared with: {error.message}"


def _evaluation(sealed: Sealed) -> dict[str, Any]:
    path = sealed.path / layout.REPORT
    facts = sealed.manifest.files.get(layout.REPORT)
    if facts is None or durable.sha256_of(path) != facts.sha256:
        raise DamagedVersionError(f"version {sealed.manifest.name}: {layout.REPORT} is not the one that was sealed")
    try:
        return msgspec.json.decode(durable.read_document(path), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise DamagedVersionError(f"version {sealed.manifest.name}: {layout.REPORT}: {error}") from error
