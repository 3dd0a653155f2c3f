"""What the verbs of a version's life print: a table, a line, or JSON for programs."""

from __future__ import annotations

import shlex
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from prediction_store.gate_report import figure, shortfall, wanted
from schemas.gate_report import FAIL, PASS, WARN, GateReport
from schemas.history import CUTOVER, QUARANTINE, RELEASE, RETIRE, ROLLBACK, HistoryRecord

if TYPE_CHECKING:
    from prediction_store.listing import HistoryRow, VersionRow
    from prediction_store.retention import RetireReport


MARK: Final = {PASS: "passed", WARN: "WARNING", FAIL: "REFUSED"}
"""What stands before a gate, by its outcome."""

_JOINERS: Final = "\u200c\u200d"
"""Between the letters of Persian and Hindi, and the people of an emoji: they show how what is beside them is joined."""


def print_json(value: object) -> None:
    """A report as indented JSON."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_line(text: str) -> None:
    """One line that holds what others wrote: none of it can begin another line, or move the cursor."""
    print(printable(text))


def printable(text: str) -> str:
    """The text with control characters escaped, and what else is not printed; any space is, and so is a joiner."""
    return "".join(char if _is_printed(char) else char.encode("unicode_escape").decode() for char in text)


def _is_printed(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def print_versions(rows: Sequence[VersionRow], newest: HistoryRecord | None, place: str) -> None:
    """The table of versions, and under it what forbids a cutover."""
    if rows:
        print(f"  {'version':<25} {'state':<11} {'age':>7} {'users':>10} {'size':>9} {'gates':<8} made current by")
    else:
        print_line(f"no versions in {place}")
    for row in rows:
        mark = "*" if row.is_current else "<" if row.is_rollback_target else " "
        head = f"{mark} {row.version:<25} {row.state:<11}"
        if row.age_seconds is None or row.bytes is None:
            print_line(f"{head} {row.problem}")
            continue
        by = f"{row.made_current_by}, {minute(row.made_current_at)}" if row.made_current_at is not None else ""
        facts = f"{age(row.age_seconds):>7} {row.users:>10} {size(row.bytes):>9} {row.gates:<8}"
        print_line(f"{head} {facts} {by}".rstrip())
    if newest is None:
        if rows:
            print("no version is current: shortlist cutover VERSION")
        return
    if any(row.is_current for row in rows):
        print(f"* current by history record {newest.number}; < rollback goes there")
    else:
        print(f"version {newest.version} is current by history record {newest.number}, and is not there")
    if newest.pinned:
        print(f"pinned by history record {newest.pinned}: cutovers are refused until shortlist unpin")
    for name, held in sorted(newest.quarantined.items()):
        print(f"quarantined by history record {held.number}: {name}")


def print_history(rows: Sequence[HistoryRow]) -> None:
    """One line per decision, newest first."""
    for row in rows:
        record = row.record
        if record is None:
            print_line(f"{row.number:>6}  {row.problem}")
            continue
        why = f": {record.why}" if record.why else ""
        forced = " by force" if record.forced else ""
        print_line(f"{record.number:>6}  {minute(record.at)}  {said(record)}{forced}  {record.who}{why}")


def print_decision(
    record: HistoryRecord, *, applied: bool, is_new: bool, held: str = "", options: Sequence[str] = ()
) -> None:
    """What a verb has decided, or would decide.

    `held`: the version that it was to quarantine or to release. `options`: those that say where and by whom, as words
    of a command line.
    """
    if not is_new:
        print(f"nothing to do: {_standing_of(record, held)}")
        return
    left = f", instead of {record.previous}" if record.previous not in ("", record.version) else ""
    if applied:
        print_line(f"{record.version} is current{left}: history record {record.number}, {said(record)} by {record.who}")
    else:
        print(f"would append history record {record.number}: {said(record)}{left}; every check has passed")
        to = f" --to {record.version}" if record.action == ROLLBACK else f" {record.version}"
        how = " --force" * record.forced + (f" --why {shlex.quote(record.why)}" if record.why else "")
        where = f" {shlex.join(options)}" if options else ""
        print_line(f"to do it: shortlist {record.action}{to} --expect {record.number - 1}{how}{where}")


def print_gates(report: GateReport) -> None:
    """One line per gate: outcome, name, found, wanted, and what there is to say."""
    print(f"{report.version} against {report.against or 'nothing: no other version is current'}")
    for gate in report.gates:
        found = "-" if gate.found is None else figure(gate.found)
        about = ", ".join(filter(None, [shortfall(gate), gate.note]))
        mark = MARK.get(gate.outcome, gate.outcome)
        print_line(f"  {mark:<8} {gate.name:<20} {found:>9}  {wanted(gate):<22} {about}".rstrip())
    counts = Counter(gate.outcome for gate in report.gates)
    said_of = {PASS: "passed", WARN: "with a warning", FAIL: "refused"}
    print(", ".join(f"{counts[outcome]} {words}" for outcome, words in said_of.items() if counts[outcome]))


def print_retired(report: RetireReport, remote: str) -> None:
    """One line for whatever went, from the store or from object storage, and for whatever stays, with the reason."""
    for name in report.removed:
        print(f"removed {name}")
    for name in report.pruned:
        print(f"removed {name} from {remote}")
    for name in report.swept:
        print_line(f"swept   {name}")
    for name, reason in report.kept.items():
        print_line(f"kept    {name}: {reason}")
    for name, reason in report.failed.items():
        if name not in report.kept:
            print_line(f"failed  {name}: {reason}")
    if report.problem:
        print_line(report.problem)


def said(record: HistoryRecord) -> str:
    """A record's action in a few words."""
    about = ", ".join(record.subjects)
    if record.action == ROLLBACK:
        return f"rollback to {record.version}" + (f", {about} quarantined" if about else "")
    if record.action == CUTOVER:
        return f"cutover to {record.version}"
    if record.action in (QUARANTINE, RELEASE, RETIRE):
        return f"{record.action} of {about}"
    return f"{record.action}, with {record.version} current"


def _standing_of(record: HistoryRecord, held: str) -> str:
    """What a decision that changes nothing has found."""
    if held in record.quarantined:
        return f"{held} is quarantined by history record {record.quarantined[held].number}"
    if held:
        return f"{held} is not quarantined"
    pinned = f"pinned by history record {record.pinned}" if record.pinned else "not pinned"
    return f"{record.version} is current, history record {record.number}, and {pinned}"


def minute(seconds: int) -> str:
    """A time in UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def age(seconds: int) -> str:
    """A length of time in its two largest units."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return f"{days}d {hours % 24}h"
    return f"{hours}h {minutes % 60:02}m" if hours else f"{minutes}m"


def size(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
