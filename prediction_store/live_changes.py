"""The changes of live facts, numbered in their order, and what was set before each.

The number of a change is the microsecond it was made at, or the next one that is free. So a change of another host, or
one that was lost when a copy was restored, is not taken for one of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prediction_store.live_environment import Tables

KEPT_CHANGES: Final = 1_000_000
"""Changes that are remembered one by one; a reader who is further behind reads everything again."""
KEPT_SHARE: Final = 4
"""They take a quarter of the room at most, and leave the rest to the facts."""
CHANGE_BYTES: Final = 48
"""About what one takes beside the id and what was set before."""
Replaced = tuple[bytes, bytes]
"""The id of an item that was changed, and its value before; empty where there was none."""


def remember(tables: Tables, changed: list[Replaced], now: float, kept_bytes: int) -> None:
    """Number the changes, and forget the oldest of all where they are too many, or take more than so many bytes.

    The last one stays in any case: the next is numbered by it.
    """
    transaction, _, changes, before = tables
    number = max(last_number(tables) + 1, round(now * 1e6)) + len(changed) - 1
    kept = _last_that_fit(changed, kept_bytes)
    if len(kept) < len(changed):  # those of earlier are too long ago
        for table in (changes, before):
            transaction.drop(table, delete=False)
    for each, (key, value) in enumerate(kept, number - len(kept) + 1):
        transaction.put(each.to_bytes(8, "big"), key, db=changes, append=True)
        transaction.put(each.to_bytes(8, "big"), value, db=before, append=True)
    with transaction.cursor(db=changes) as oldest:
        while oldest.first() and _are_too_many(tables, kept_bytes):
            transaction.delete(oldest.key(), db=before)
            oldest.delete()


def changed_since(tables: Tables, since: int) -> Iterator[bytes]:
    """The ids of the items that were changed after the change of a number, one for each change."""
    with tables.transaction.cursor(db=tables.changes) as cursor:
        if cursor.set_range((since + 1).to_bytes(8, "big")):
            yield from map(bytes, cursor.iternext(keys=False, values=True))


def read_back(tables: Tables, number: int, to: int) -> dict[bytes, bytes] | None:
    """By id, the values after change `to` of all items that were changed from then until change `number`.

    Empty where there was none. None: `to`, or one since, is not remembered; or an older Shortlist has made it.
    """
    found: dict[bytes, bytes] = {}
    with tables.transaction.cursor(db=tables.changes) as changes:
        if not changes.set_key(to.to_bytes(8, "big")):
            return None
        while changes.next() and int.from_bytes(changes.key(), "big") <= number:
            before = tables.transaction.get(changes.key(), db=tables.before)
            if before is None:
                return None
            found.setdefault(bytes(changes.value()), bytes(before))
    return found


def first_number(tables: Tables) -> int:
    """Of the oldest change that is remembered; 0: none is."""
    with tables.transaction.cursor(db=tables.changes) as cursor:
        return int.from_bytes(cursor.key(), "big") if cursor.first() else 0


def last_number(tables: Tables) -> int:
    """Of the last change; 0: there was none."""
    with tables.transaction.cursor(db=tables.changes) as cursor:
        return int.from_bytes(cursor.key(), "big") if cursor.last() else 0


def _last_that_fit(changed: list[Replaced], kept_bytes: int) -> list[Replaced]:
    left = kept_bytes
    for count, (key, value) in enumerate(reversed(changed)):
        left -= CHANGE_BYTES + len(key) + len(value)
        if count and (left < 0 or count == KEPT_CHANGES):
            return changed[-count:]
    return changed


def _are_too_many(tables: Tables, kept_bytes: int) -> bool:
    transaction, _, changes, before = tables
    of_both = [transaction.stat(table) for table in (changes, before)]
    pages = sum(of[kind] for of in of_both for kind in ("branch_pages", "leaf_pages", "overflow_pages"))
    count = of_both[0]["entries"]
    return count > KEPT_CHANGES or (count > 1 and pages * of_both[0]["psize"] > kept_bytes)
