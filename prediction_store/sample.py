"""Users whose lists are looked at one by one: few, spread evenly, and the same ones in every version."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

from prediction_store.shards import shard_of
from prediction_store.version import Version
from schemas.record import Candidates


class Sampled(NamedTuple):
    """A user of the sample, and the list."""

    user: str
    candidates: Candidates


def sample_users(version: Version, n: int) -> list[str]:
    """At most `n` users of a version: those with the lowest CRC-32 of the id, of the first shards.

    A shard holds the users of one remainder of that number, so that it is as good a sample as the whole. Only as many
    shards are looked through as it takes, and of those only the keys. Two versions with as many shards give the same
    users, but for those who have come or gone.
    """
    found: list[bytes] = []
    for shard in version.held.numbers:
        found += heapq.nsmallest(n, version.keys(shard), _order)
        if len(found) >= n:
            break
    return [key.decode("utf-8") for key in heapq.nsmallest(n, found, _order)]


def sample_users_of_both(first: Version, second: Version, n: int) -> list[str]:
    """At most `n` users of two versions: those with the lowest CRC-32 who are in either, or in both.

    Of versions that are here in part only users whose shards both have: of the others nobody here knows.
    """
    keys = {user.encode("utf-8") for user in [*sample_users(first, n), *sample_users(second, n)]}
    here = (key for key in keys if all(_is_here(version, key) for version in (first, second)))
    return [key.decode("utf-8") for key in heapq.nsmallest(n, here, _order)]


def read_lists(version: Version, users: Iterable[str]) -> list[Sampled]:
    """The lists of those of the users who have a record.

    Raises:
        DamagedRecordError: a record is not as it was written.
    """
    lists = ((user, version.read(user)) for user in users)
    return [Sampled(user, candidates) for user, candidates in lists if candidates is not None]


def _is_here(version: Version, key: bytes) -> bool:
    return shard_of(key, version.held.of) in version.held.numbers


def _order(key: bytes) -> tuple[int, bytes]:
    return crc32(key), key
