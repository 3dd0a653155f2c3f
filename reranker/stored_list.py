"""The user's list in the store: found, or why there is none to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prediction_store.errors import ShardNotHeldError
from prediction_store.ttl import freshness_of
from schemas.config import Store
from schemas.errors import DamagedRecordError
from schemas.record import Candidates

if TYPE_CHECKING:
    from prediction_store.reader import Version

UNKNOWN_USER, EXPIRED_RECORD, DAMAGED_RECORD = "unknown_user", "expired_record", "damaged_record"
OTHER_HOST = "other_host"
"""The user's shard is on other hosts only: whoever sent the request here sent it to the wrong one."""


class StoredList(NamedTuple):
    """What the store has for the user, and how old it is."""

    candidates: Candidates | None
    user_row: int | None
    """The user's row in the version; None: not known there."""
    reason: str | None
    """Why there are no candidates."""
    age_seconds: int
    is_stale: bool


def look_up(version: Version, user: str, store: Store, now: float) -> StoredList:
    """The user's stored candidates, or why there are none to use; a damaged or absent record is as good as none."""
    try:
        candidates, reason = version.read(user), UNKNOWN_USER
    except DamagedRecordError:
        candidates, reason = None, DAMAGED_RECORD
    except ShardNotHeldError:
        candidates, reason = None, OTHER_HOST
    manifest = version.manifest
    if candidates is not None:
        fresh = freshness_of(candidates.made_at, manifest.expires_at, now, store)
        if not fresh.is_expired or store.expired == "serve_stale":
            return StoredList(candidates, candidates.user_row, None, fresh.age_seconds, fresh.is_expired)
        reason = EXPIRED_RECORD
    # What is nobody's own has no limit but the version's.
    fresh = freshness_of(manifest.made_at, manifest.expires_at, now, store)
    user_row = None if candidates is None else candidates.user_row
    return StoredList(None, user_row, reason, fresh.age_seconds, now >= manifest.expires_at)
