"""Gates that read what `evaluate` has measured on held-out interactions."""

from __future__ import annotations

from typing import Final

from prediction_store.gates.finding import Finding, owed, ratio
from prediction_store.gates.judged import Judged

NDCG_AT: Final = "20"
UNMEASURED: Final = "not in the evaluation report"


def coverage(given: Judged) -> Finding:
    """Share of the catalogue that is among the first items of at least one judged list."""
    return _measured(given, "coverage")


def coverage_ratio(given: Judged) -> Finding:
    """Coverage, against the current version."""
    return _against_current(given, "coverage")


def recall(given: Judged) -> Finding:
    """Recall on held-out interactions."""
    return _measured(given, "recall", str(given.settings.recall_at), note=f"at {given.settings.recall_at}")


def recall_ratio(given: Judged) -> Finding:
    """Recall, against the current version."""
    return _with_new_items(given, _against_current(given, "recall", str(given.settings.recall_at)))


def recall_vs_popularity(given: Judged) -> Finding:
    """Recall, against that of the popularity order."""
    at = str(given.settings.recall_at)
    ours, theirs = given.side.measured("recall", at), given.side.measured("popularity", "recall", at)
    return owed(UNMEASURED) if theirs is None else ratio(ours, theirs, missing=UNMEASURED, alone="")


def ndcg(given: Judged) -> Finding:
    """NDCG on held-out interactions."""
    return _measured(given, "ndcg", NDCG_AT, note=f"at {NDCG_AT}")


def ndcg_ratio(given: Judged) -> Finding:
    """NDCG, against the current version."""
    return _with_new_items(given, _against_current(given, "ndcg", NDCG_AT))


def _measured(given: Judged, *keys: str, note: str = "") -> Finding:
    found = given.side.measured(*keys)
    return owed(UNMEASURED) if found is None else Finding(found, note)


def _against_current(given: Judged, *keys: str) -> Finding:
    return ratio(given.side.measured(*keys), given.before(*keys), missing=UNMEASURED, alone=given.alone_or_unmeasured)


def _with_new_items(given: Judged, finding: Finding) -> Finding:
    """Also says how many of the wanted items nobody had met before: a story of today lowers what is good otherwise.

    It is said and not left out: items of a feed that has changed their ids look the same.
    """
    ours, theirs = given.side.measured("cold_items_share"), given.before("cold_items_share")
    if finding.found is None or ours is None or theirs is None:
        return finding
    return finding._replace(note=f"{finding.note}; of the wanted items {ours:.0%} were new, against {theirs:.0%}")
