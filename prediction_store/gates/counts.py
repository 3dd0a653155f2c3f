"""Gates that count: users, items, and who of them is still there."""

from __future__ import annotations

from prediction_store.gates.finding import Finding, incomparable, owed, ratio
from prediction_store.gates.judged import Judged
from prediction_store.sample import read_lists, sample_users


def users(given: Judged) -> Finding:
    """Users with a list."""
    return Finding(given.counts.lists)


def items(given: Judged) -> Finding:
    """Items in the catalogue."""
    return Finding(given.counts.items)


def users_ratio(given: Judged) -> Finding:
    """Users with a list, against the current version."""
    before = given.current.counts.lists if given.current else None
    return ratio(given.counts.lists, before, missing="", alone=given.alone)


def items_ratio(given: Judged) -> Finding:
    """Items, against the current version."""
    before = given.current.counts.items if given.current else None
    return ratio(given.counts.items, before, missing="", alone=given.alone)


def users_kept(given: Judged) -> Finding:
    """Share of the current version's sampled users with a list who have one in this version, too."""
    if given.current is None:
        return incomparable(given.alone)
    current = given.current.version
    sample = read_lists(current, sample_users(current, given.settings.sample_users))
    had = [sampled.user for sampled in sample if len(sampled.candidates.items)]
    if not had:
        return incomparable("nobody has a list in the current version")
    have = sum(len(sampled.candidates.items) > 0 for sampled in read_lists(given.version, had))
    return Finding(have / len(had), f"{have:,} of {len(had):,} sampled users")


def active_users(given: Judged) -> Finding:
    """Share of the users who did something lately who have a list; `evaluate` has counted them."""
    active, covered = (given.side.measured("active", key) for key in ("users", "covered"))
    if active is None or covered is None:
        return owed("not in the evaluation report")
    days = given.side.measured("active", "days") or 0
    if active <= 0:
        return owed(f"nobody was active in the last {days:g} days of the data")
    return Finding(covered / active, f"{covered:,.0f} of {active:,.0f} users of the last {days:g} days")
