"""What the gates found about a version: the document in gates/, and the word it has at cutover."""

from __future__ import annotations

from pathlib import Path

from prediction_store import contents, durable, layout
from prediction_store.errors import (
    DamagedVersionError,
    FormatError,
    GateRefusedError,
    MissingGateReportError,
    NewerFormatError,
)
from prediction_store.manifest import read_identity
from schemas.gate_report import PASS, WARN, Gate, GateReport, decode_gate_report, encode_gate_report


def write_report(root: Path, report: GateReport) -> None:
    """Put a report in the place of the version's last one, durably."""
    path = layout.gate_path(root, report.version)
    durable.replace_document(path, encode_gate_report(report), for_all=True)


def read_report(root: Path, name: str) -> GateReport | None:
    """The last report on a version; None: its gates were never run.

    Raises:
        DamagedVersionError: there is one and it cannot be read.
        NewerFormatError: a later Shortlist has written it.
    """
    path = layout.gate_path(root, name)
    try:
        report = decode_gate_report(contents.read_document(path))
    except FileNotFoundError:
        return None
    except NewerFormatError:
        raise
    except FormatError as error:
        raise DamagedVersionError(f"{path}: {error.message}", hint=f"shortlist gate {name}") from error
    if report.version != name:
        raise DamagedVersionError(f"{path}: it is about version {report.version}", hint=f"shortlist gate {name}")
    return report


def has_passed(root: Path, name: str) -> bool:
    """True when the gates have been run on exactly the bytes that are there, and have passed.

    Raises:
        DamagedVersionError, MissingVersionError, NewerFormatError: the manifest or the report cannot be read.
    """
    report = read_report(root, name)
    return report is not None and report.passed and report.manifest_sha256 == read_identity(root, name)[1]


def require_passed(report: GateReport) -> None:
    """Go on only if every gate has passed.

    Raises:
        GateRefusedError: the message says which gate has not, what it found, what it wanted and by how much.
    """
    refused = [gate for gate in report.gates if not gate.passed]
    if refused or not report.passed:
        which = "; ".join(describe(gate) for gate in refused) or "its report says that it has not passed"
        raise GateRefusedError(
            f"version {report.version} is refused: {which}",
            hint=f'look into it, or shortlist cutover {report.version} --force --why "…"',
        )


def require_passed_report(root: Path, name: str, manifest_sha256: str) -> None:
    """Go on only if the gates have been run on exactly this version, and have passed.

    Raises:
        MissingGateReportError: they have not been run, or on other bytes of that name.
        GateRefusedError: one has not passed.
    """
    report = read_report(root, name)
    if report is None or report.manifest_sha256 != manifest_sha256:
        what = "no gate report" if report is None else "a gate report about other bytes"
        raise MissingGateReportError(f"version {name} has {what}", hint=f"shortlist gate {name}")
    require_passed(report)


def describe(gate: Gate) -> str:
    """One gate in one line: name, found, wanted, and by how much it misses."""
    note = f" ({gate.note})" if gate.note else ""
    if gate.found is None:
        return f"gate {gate.name}: {gate.note}" + (f", {wanted(gate)}" if gate.outcome != PASS else "")
    line = ", ".join(filter(None, [f"gate {gate.name}: found {figure(gate.found)}", wanted(gate), shortfall(gate)]))
    return line + note


def wanted(gate: Gate) -> str:
    """The threshold that the gate is beyond, or else the first one that it could be beyond; "": it has none."""
    threshold = _threshold(gate)
    return "" if threshold is None else f"wanted at {'most' if gate.is_upper else 'least'} {figure(threshold)}"


def shortfall(gate: Gate) -> str:
    """By how much a gate has missed; "": it has not, or nobody knows."""
    threshold = _threshold(gate)
    if gate.outcome == PASS or threshold is None or gate.found is None:
        return ""
    miss = abs(threshold - gate.found)
    share = f", {miss / threshold:.1%} {'over' if gate.is_upper else 'short'}" if threshold > 0 else ""
    return f"{figure(miss)} too {'much' if gate.is_upper else 'little'}{share}"


def figure(number: float) -> str:
    """A number for people: all digits of a count, four of a share."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _threshold(gate: Gate) -> float | None:
    if gate.outcome == PASS:
        return gate.fail if gate.warn is None else gate.warn
    return gate.warn if gate.outcome == WARN else gate.fail
