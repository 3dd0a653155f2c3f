"""Time to live: whether what was read is still fresh. Decided at each reading, never by a sweep."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from schemas.config import Store

SECONDS_PER_HOUR = 3600


class Freshness(NamedTuple):
    """How old a record is, and what that means."""

    age_seconds: int
    """Never negative: what comes from the future counts as new."""
    is_expired: bool
    """Past the record's own limit or the version's; `store.expired` says what then happens."""
    from_future: bool
    """Made after `now`: one of the clocks is wrong. Worth an alarm."""


def freshness_of(made_at: int, expires_at: int, now: float, store: Store) -> Freshness:
    """How fresh a record made at `made_at`, in a version that expires at `expires_at`, is at `now`.

    A limit counts from its very second: a record that may live an hour is expired when it is 3,600 seconds old.
    """
    is_expired = now - made_at >= _seconds(store.record_ttl_hours) or now >= expires_at
    return Freshness(max(0, int(now - made_at)), is_expired, made_at > now)


def expires_at(made_at: int, store: Store) -> int:
    """When a version made at `made_at` expires as a whole: what `build` writes into the manifest."""
    return made_at + round(_seconds(store.version_ttl_hours))


@cache
def _seconds(hours: float) -> float:
    """The seconds that are meant: 18.1 * 3600 is a hair more than 65160, and would be reached a moment too late."""
    return round(hours * SECONDS_PER_HOUR, 6)
