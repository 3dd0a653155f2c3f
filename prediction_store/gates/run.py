"""Every gate, in the order of the report, and how they are run on a version."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from prediction_store import history
from prediction_store.errors import DamagedVersionError, FormatError, NewerFormatError, StoreError
from prediction_store.gate_report import read_report, write_report
from prediction_store.gates import change, counts, fitness, lists, quality
from prediction_store.gates.finding import Finding, judge
from prediction_store.gates.judged import Judged, Side
from prediction_store.version import Version
from schemas.gate_config import Gates
from schemas.gate_report import FAIL, PASS, WARN, GateReport

GATES: Final[dict[str, Callable[[Judged], Finding]]] = {
    # who and what is in it
    "users": counts.users,
    "items": counts.items,
    "users_ratio": counts.users_ratio,
    "items_ratio": counts.items_ratio,
    "users_kept": counts.users_kept,
    "active_users": counts.active_users,
    # the lists by themselves
    "list_length": lists.list_length,
    "short_lists": lists.short_lists,
    # the lists against those that are served
    "overlap": change.overlap,
    "rank_agreement": change.rank_agreement,
    "score_drift": change.score_drift,
    # how they spread over the catalogue
    "coverage": quality.coverage,
    "coverage_ratio": quality.coverage_ratio,
    "gini": lists.gini,
    "popularity_share": lists.popularity_share,
    # what must not be in them, and what must
    "consumed": lists.consumed,
    "out_of_stock": lists.out_of_stock,
    "ann_recall": fitness.ann_recall,
    # what users did afterwards
    "recall": quality.recall,
    "recall_ratio": quality.recall_ratio,
    "recall_vs_popularity": quality.recall_vs_popularity,
    "ndcg": quality.ndcg,
    "ndcg_ratio": quality.ndcg_ratio,
    # whether it can be served
    "ranker": fitness.ranker,
    "lookup_p99_us": fitness.lookup_p99_us,
}
"""The name of a gate is that of its thresholds in `schemas.gate_config`."""

ITSELF: Final = "this version is the current one: nothing to compare with"


def run_gates(
    root: Path, name: str, gates: Gates, *, candidates: int, known_signals: Collection[str], now: float,
    timer: Callable[[], float] = time.perf_counter,
) -> GateReport:  # fmt: skip
    """Judge a version against the current one and write gates/<name>.json. Changes nothing else, refuses nothing.

    The current version itself can be compared with nothing: the report that let it through stays.

    Cost: both versions are opened, so every byte of them is hashed (about a second per gigabyte; whoever makes the
    version current hashes it once more, for the disk may have changed its mind). The rest is the sample's.

    Args:
        candidates: `retrieve.candidates`: how long a full list is.
        known_signals: the signals that the re-ranker has: `reranker.signals.BY_NAME`.
        timer: a clock that runs in seconds, for the lookups.

    Raises:
        DamagedVersionError, DamagedRecordError, MissingVersionError, ForeignVersionError: there is nothing to judge.
    """
    with Version.open(root, name) as version, _current(root, name) as (current, alone):
        given = Judged(
            Side(root, version), current, alone, gates,
            candidates=candidates, known_signals=known_signals, timer=timer,
        )  # fmt: skip
        found = [judge(gate, measure(given), getattr(gates, gate)) for gate, measure in GATES.items()]
        report = GateReport(
            version=name,
            manifest_sha256=version.manifest_sha256,
            against=current.version.name if current else "",
            at=int(now),
            outcome=max((gate.outcome for gate in found), key=(PASS, WARN, FAIL).index),
            gates=found,
        )
        if alone != ITSELF or not _is_compared(root, report):
            write_report(root, report)
        return report


@contextmanager
def _current(root: Path, name: str) -> Iterator[tuple[Side | None, str]]:
    """The current version to compare with; else None and why. One that is damaged must not keep a good one out."""
    record = history.current_or_none(root)
    if record is None:
        yield None, "no version is current: nothing to compare with"
        return
    if record.version == name:
        yield None, ITSELF
        return
    with ExitStack() as opened:
        side, why = None, ""
        try:
            side = Side(root, opened.enter_context(Version.open(root, record.version)))
        except (StoreError, FormatError) as error:
            why = f"the current version cannot be compared with: {error.message}"
        yield side, why


def _is_compared(root: Path, new: GateReport) -> bool:
    """True when the version's last report is on the same bytes as a new one, and let them through beside another's."""
    try:
        last = read_report(root, new.version)
    except (DamagedVersionError, NewerFormatError):
        return False
    return last is not None and last.manifest_sha256 == new.manifest_sha256 and last.passed and last.against != ""
