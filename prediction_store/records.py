"""The history on disk: read a record, append the next one. The highest number names the current version.

A number can be had by exactly one of all who try for it. Nothing is ever moved or overwritten, so the log of what
happened cannot disagree with what is served.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from prediction_store import contents, durable, layout
from prediction_store.errors import (
    DamagedHistoryError,
    DiskError,
    DivergedHistoryError,
    FormatError,
    NewerFormatError,
    NoCurrentVersionError,
    UnknownOutcomeError,
)
from schemas.history import ROLLBACK, HistoryRecord, decode_history_record, encode_history_record

NAME_ONE: Final = (
    'shortlist rollback --to VERSION, or shortlist cutover VERSION --force --why "…"; shortlist history lists them'
)
OWN_HISTORY: Final = "docs/several-hosts.md, under 'A host with a history of its own'"


class Ground(NamedTuple):
    """What a decision stands on."""

    number: int
    """The highest number that a record has; 0: there is none."""
    newest: HistoryRecord | None
    """The newest record that can be read; None: there is none."""

    @property
    def served(self) -> HistoryRecord | None:
        """The record that names the current version; None: there is none, or it is damaged."""
        return self.newest if self.newest is not None and self.newest.number == self.number else None


class SharedHistory(Protocol):
    """The history that several hosts share, where a number has to be won before it is taken here."""

    def ground(self, root: Path, *, tolerate_damage: bool) -> Ground:
        """What a decision has to stand on: the hosts' newest record, which this host need not have. Like `ground`.

        What this host may take of the records that others have made, it takes on the way.
        """

    def announce(self, record: HistoryRecord, data: bytes) -> bool:
        """Make the record there, if its number is still free; False: it is not.

        Raises MissingVersionError when the version to serve is not complete there.
        """

    def take(self, root: Path, record: HistoryRecord, data: bytes) -> None:
        """Make an announced record this host's own, or leave that to `follow`, which flips with the other hosts."""


def current(root: Path) -> HistoryRecord:
    """The newest record: it names the current version.

    Raises:
        NoCurrentVersionError: there is no record. It never means "the newest version".
        DamagedHistoryError: the newest record cannot be read. An older one is not taken in its place: it may name
            the version that was just rolled back from.
        NewerFormatError: a later Shortlist has written it.
    """
    newest = layout.newest_history_number(root)
    if not newest:
        raise NoCurrentVersionError(f"no version is current in {root}", hint="shortlist cutover VERSION")
    return read_record(root, newest)


def current_or_none(root: Path) -> HistoryRecord | None:
    """The newest record; None when there is none. Raises like `current` when it cannot be read."""
    try:
        return current(root)
    except NoCurrentVersionError:
        return None


def read_record(root: Path, number: int) -> HistoryRecord:
    """One record. Raises DamagedHistoryError or NewerFormatError."""
    path = layout.history_path(root, number)
    try:
        record = decode_history_record(contents.read_document(path))
    except NewerFormatError:
        raise
    except (FormatError, DiskError, FileNotFoundError) as error:
        raise DamagedHistoryError(f"{path}: {error}", hint=NAME_ONE) from error
    if record.number != number:
        raise DamagedHistoryError(f"{path}: it says it is record {record.number}", hint=NAME_ONE)
    return record


def readable_records(root: Path) -> Iterator[HistoryRecord]:
    """Every record that can be read, newest first."""
    for number in reversed(layout.history_numbers(root)):
        try:
            record = read_record(root, number)
        except (DamagedHistoryError, NewerFormatError):
            continue
        yield record


def ground(root: Path, *, tolerate_damage: bool) -> Ground:
    """What a decision has to stand on.

    Raises:
        DamagedHistoryError: the newest record cannot be read, and that is not tolerated. Where it is, the newest one
            that can be read stands in, so that no quarantine and no pin is forgotten.
        NewerFormatError: a later Shortlist has written it.
    """
    numbers = layout.history_numbers(root)
    for number in reversed(numbers):
        try:
            return Ground(numbers[-1], read_record(root, number))
        except DamagedHistoryError:
            if not tolerate_damage:
                raise
    return Ground(numbers[-1] if numbers else 0, None)


def append(root: Path, record: HistoryRecord, shared: SharedHistory | None = None) -> bool:
    """Publish a record durably, if its number is still free; False: it is not, and nothing was changed.

    Requires: its version is leased and verified.

    Raises:
        UnknownOutcomeError: the last sync failed.
        DivergedHistoryError: the number was won among the hosts, and this host has another record of that number.
        DamagedHistoryError: no number is left, because a file that no command wrote has the highest one.
    """
    if record.number > layout.LAST_RECORD:
        raise DamagedHistoryError(
            f"{layout.history_path(root, layout.LAST_RECORD)} has the last number: nobody could read the next record",
            hint="shortlist history; if no command of Shortlist has written it, move it out of history/",
        )
    durable.make_folder(layout.history_folder(root), for_all=True)
    # The build has synced this; if that very sync failed, the history must still never name what a crash may take.
    durable.sync_folder(layout.versions_folder(root))
    data = encode_history_record(record)
    if shared is None:
        return place(root, record.number, data)
    if not shared.announce(record, data):
        return False
    shared.take(root, record, data)
    return True


def adopt(root: Path, number: int, data: bytes) -> None:
    """Make the bytes of a record that the hosts share this host's own, unless they are already.

    Raises:
        DivergedHistoryError: this host has another record of that number.
        UnknownOutcomeError: the last sync failed.
    """
    if place(root, number, data):
        return
    path = layout.history_path(root, number)
    if contents.read_document(path) != data:
        raise DivergedHistoryError(
            f"{path} is not the record that the hosts share: a decision was made on this host alone",
            hint=OWN_HISTORY,
        )
    sync_again(root)


def place(root: Path, number: int, data: bytes) -> bool:
    """Give the bytes of a record their name, durably, if it is still free; False: it is not. Raises like `append`."""
    folder, target = layout.history_folder(root), layout.history_path(root, number)
    temporary = layout.temporary_path(target, secrets.token_hex(4))
    with durable.create(temporary, for_all=True) as file:
        file.write(data)
    try:
        if not durable.link_new(temporary, target):
            return False
        try:
            durable.sync_folder(folder)
        except DiskError as error:
            record = decode_history_record(data)
            raise UnknownOutcomeError(
                f"history record {number}, {record.action} of {record.version}, is written, but a power cut may still"
                f" take it ({error.message})",
                hint=how_to_repeat(record),
            ) from error
    finally:
        with contextlib.suppress(DiskError):  # `retire` sweeps it; the outcome is not in doubt for this
            durable.remove_file(temporary)
    return True


def sync_again(root: Path) -> None:
    """Make sure of the newest record: an earlier attempt may have failed at its very last sync.

    The version that it names is safe already: `append` makes sure of that before it gives a record its name.
    """
    durable.sync_folder(layout.history_folder(root))


def how_to_repeat(record: HistoryRecord) -> str:
    """How to make sure: rolling back once more without a name would go back once more."""
    if record.action == ROLLBACK:
        return f"shortlist rollback --to {record.version}: it finds this record, and syncs once more"
    return "run the same command again: it is safe"
