"""How a decision becomes a record: it stands on the newest one, and only as long as nobody changes what it stands on.

If someone else appends a record in the meantime that changes what is served, pinned or quarantined, the decision is
refused; if it changes nothing of that, it is made again on top of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prediction_store.errors import ConcurrentPublishError
from prediction_store.file_system import refuse_network
from prediction_store.manifest import Sealed, verify
from prediction_store.records import Ground, SharedHistory, append, current, ground, sync_again
from prediction_store.succession import is_same_ground
from schemas.history import HistoryRecord

Decision = Callable[[Ground], HistoryRecord | None]
"""From what is there to the record to append; None: nothing needs to change."""


def look(root: Path, shared: SharedHistory | None, *, tolerate_damage: bool) -> Ground:
    """What there is to decide on, with what other hosts have decided. Raises like `records.ground`.

    Raises:
        NetworkFileSystemError: the store lies where no decision would hold.
    """
    refuse_network(root)
    if shared is not None:
        return shared.ground(root, tolerate_damage=tolerate_damage)
    return ground(root, tolerate_damage=tolerate_damage)


def carry_out(
    root: Path, found: Ground, decide: Decision, *, sealed: Sealed | None = None, expect: int | None = None,
    apply: bool = True, shared: SharedHistory | None = None,
) -> HistoryRecord:  # fmt: skip
    """Append what is decided on what was found; the newest record.

    Args:
        sealed: the version to be named, which is verified first; None: the record leaves current what is current.
        expect: the number that the newest record must have.
        apply: False: append nothing, and return the record that would be appended.

    Raises:
        ConcurrentPublishError: someone else was faster.
        UnknownOutcomeError: the last sync failed.
    """
    is_verified = sealed is None
    while True:
        record = decide(found)
        if record is None:
            sync_again(root)
            return found.newest or current(root)
        if expect is not None and found.number != expect:
            raise ConcurrentPublishError(
                f"the newest history record is {found.number}; {expect} was expected, and nothing was changed",
                hint="shortlist history, then decide again",
            )
        if sealed is not None and not is_verified:
            verify(sealed)
            is_verified = True
        if not apply or append(root, record, shared):
            return record
        before, found = found, look(root, shared, tolerate_damage=False)
        if expect is not None or not is_same_ground(before.newest, found.newest):
            raise ConcurrentPublishError(
                f"history record {record.number} was made by someone else in the meantime; nothing was changed",
                hint="shortlist history, then decide again",
            )
