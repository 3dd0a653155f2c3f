"""What the gates found about a version: the document gates/NAME.json."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import field

from schemas import documents
from schemas.documents import Count, Digest, VersionName

GATE_FORMAT: Final = 2
"""2: a gate has an outcome of three, and two thresholds."""

PASS: Final = "pass"
WARN: Final = "warn"
FAIL: Final = "fail"


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate found."""

    name: str
    outcome: str
    """pass, warn or fail; another word, of a later Shortlist, is no pass."""
    found: float | None
    """None: there was nothing to measure, or nothing to compare with; the note says which."""
    is_upper: bool = False
    """The thresholds are the most that passes; otherwise they are the least."""
    warn: float | None = None
    """Beyond this threshold the outcome is at best warn; None: never."""
    fail: float | None = None
    """Beyond this threshold the outcome is fail; None: never."""
    note: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    """Further numbers that it found, by name: those of each segment, say."""

    @property
    def passed(self) -> bool:
        """True when it does not forbid the version to go live."""
        return self.outcome in (PASS, WARN)


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates found about one version, judged against the version that was current then."""

    format: int = GATE_FORMAT
    version: VersionName
    manifest_sha256: Digest
    against: str = ""
    """The version it was compared with; empty when none was current."""
    at: Count
    outcome: str
    """The worst of the gates' outcomes."""
    gates: list[Gate]

    @property
    def passed(self) -> bool:
        """True when no gate forbids the version to go live: all have passed, or only warn."""
        return self.outcome in (PASS, WARN)


def encode_gate_report(report: GateReport) -> bytes:
    """The bytes of gates/NAME.json."""
    return documents.encode(report)


def decode_gate_report(data: bytes) -> GateReport:
    """The report in the bytes of gates/NAME.json.

    Raises:
        NewerFormatError: its format is higher than known here.
        FormatError: it is not a gate report, or one of format 1, whose gates knew no warning: run them again.
    """
    return documents.decode(data, GateReport, "gate report", GATE_FORMAT)
