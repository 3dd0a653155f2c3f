"""The last steps of a night: gate, cutover and retire, for the version that `build` made."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.datasets import end_of, open_dataset
from jobs.errors import DatasetBusyError
from jobs.journey import is_simulated
from jobs.old_days import remove_old_days
from jobs.progress import Report
from prediction_store import gates, history, retention
from prediction_store.errors import DamagedVersionError, MissingGateReportError, MissingVersionError
from prediction_store.gate_report import has_passed
from prediction_store.manifest import read_manifest
from prediction_store.transfer.configured import flow_of, prune_remote, remote_of, shared_history
from reranker.signals import BY_NAME
from schemas.config import Config
from schemas.gate_report import WARN, GateReport

if TYPE_CHECKING:
    from prediction_store.transfer.shared import RemoteHistory


def version_of(config: Config, day: str) -> str:
    """The name of the version that `build` made of a day.

    Raises:
        MissingDatasetError: it has not.
    """
    return str(open_dataset(config.paths.workspace, day, "version").extra("version"))


def judge(config: Config, version: str, now: float) -> GateReport:
    """What the gates find about a version, with the signals that this program's re-ranker has."""
    return gates.run_gates(
        Path(config.paths.store),
        version,
        config.gates,
        candidates=config.retrieve.candidates,
        known_signals=BY_NAME,
        now=now,
    )


def gate(config: Config, day: str, now: float) -> Report:
    """Judge the day's version against the current one. What warns is told, and stops nothing.

    Raises:
        GateRefusedError: a gate says no. The version stays on disk and is not current.
    """
    started = time.monotonic()
    name = version_of(config, day)
    report = judge(config, name, now)
    gates.require_passed(report)
    details = {"version": name, "gates": len(report.gates), "against": report.against or "none"}
    details |= {f"warning_{found.name}": gates.describe(found) for found in report.gates if found.outcome == WARN}
    return Report(step="gate", day=day, seconds=time.monotonic() - started, details=details)


def cutover(config: Config, day: str, now: float) -> Report:
    """Make the day's version current, if its gates have passed. Nothing happens when it is current already.

    Nor when the current version knows a later day: a backfill of past days must not take readers back in time. To
    go back on purpose there is `shortlist rollback --to`. A current version that knows what is still to come, made from
    a wrong clock, keeps no real version back.

    Where several hosts share object storage, the version is pushed there first: the decision is made there.

    Raises:
        GateRefusedError: its gates have not passed.
        DatasetBusyError: they have not been run: another run of the day has built it since, and may be about to.
        NewerFormatError: a later Shortlist has made the current version: it might know a later day.
    """
    started = time.monotonic()
    root, name = Path(config.paths.store), version_of(config, day)
    shared = shared_history(config, make=True)
    before = (shared.newest() if shared else None) or history.current_or_none(root)
    told = {}
    if before is not None and before.version != name:
        mine, current = read_manifest(root, name).made_at, _made_at(root, before.version, shared)
        if current is not None and current > _latest(config, now) >= mine:
            told = {"replaces_from_the_future": before.version}
        elif current is not None and current > mine:
            details = {"version": name, "current_is_newer": before.version}
            return Report(step="cutover", day=day, skipped=True, seconds=time.monotonic() - started, details=details)
    sent = _push(config, root, name) if has_passed(root, name) else {}
    try:
        record = history.cutover(root, name, history.user_at_host(), f"run of {day}", now, shared=shared)
    except MissingGateReportError as error:
        raise DatasetBusyError(
            f"{error.message}: another run of {day} has built it since, or none has run its gates",
            hint=f"wait for the other run; or shortlist run --only gate,cutover --day {day}",
        ) from error
    return Report(
        step="cutover",
        day=day,
        skipped=before is not None and before.number == record.number,
        seconds=time.monotonic() - started,
        details={"version": name, "history": record.number, **told, **sent},
    )


def retire(config: Config, day: str, now: float) -> Report:
    """Remove the versions that nothing needs any more, and the days of the workspace that were run long ago."""
    started = time.monotonic()
    report = retention.retire(
        Path(config.paths.store),
        keep=config.store.keep_versions,
        grace_seconds=config.store.grace_hours * 3600,
        now=now,
        who=history.user_at_host(),
        why=f"run of {day}",
        shared=shared_history(config),
    )
    report = prune_remote(config, report, keep=config.store.keep_versions, now=now)
    old_days = remove_old_days(Path(config.paths.workspace), keep_days=config.paths.workspace_days, but=day, now=now)
    retention.require_all_removed(report)
    details = {"removed": len(report.removed), "kept": len(report.kept), "old_days": old_days}
    if config.store.remote:
        details["pruned"] = len(report.pruned)
    return Report(step="retire", day=day, seconds=time.monotonic() - started, details=details)


def _latest(config: Config, now: float) -> float:
    """The latest time that data can know of, in epoch seconds; the embedded shop writes the whole of today."""
    return end_of(datetime.fromtimestamp(now, UTC).date().isoformat()) if is_simulated(config) else now


def _push(config: Config, root: Path, name: str) -> dict[str, int]:
    """Have the version in object storage, if there is any; what travelled."""
    if not config.store.remote:
        return {}
    from prediction_store.transfer.outgoing import send

    flow = flow_of(config.transfer)
    reports = list(send(root, remote_of(config), [name], flow=flow, parallel=config.transfer.parallel))
    return {"sent_files": sum(report.files for report in reports), "sent_bytes": sum(r.bytes for r in reports)}


def _made_at(root: Path, name: str, shared: RemoteHistory | None) -> int | None:
    """The logical time of a version, which may be on other hosts only.

    None when it is gone or damaged, and so no reason to keep a good one back. Whether one of a later Shortlist knows
    more cannot be told: NewerFormatError.
    """
    try:
        return read_manifest(root, name).made_at
    except DamagedVersionError:
        return None
    except MissingVersionError:
        return shared.made_at(name) if shared else None
