"""The history that several hosts share, in object storage: whoever creates record N there has decided it.

A host takes a record into its own history only when it has the version that the record names, for its servers follow
that history. The newest comes first and the gaps below it are filled afterwards, so that the newest record at hand
never names an older decision.
"""

from __future__ import annotations

from pathlib import Path

from prediction_store import contents, durable, layout
from prediction_store.errors import (
    DamagedHistoryError,
    DamagedVersionError,
    DiskError,
    DivergedHistoryError,
    FormatError,
    NewerFormatError,
    RemoteError,
    StoreError,
    UnknownOutcomeError,
)
from prediction_store.manifest import read_identity
from prediction_store.records import OWN_HISTORY, Ground, adopt, current_or_none, how_to_repeat, place, read_record
from prediction_store.transfer.copies import find_copy, require_copy
from prediction_store.transfer.remote import Remote
from schemas.history import HistoryRecord, decode_history_record


class RemoteHistory:
    """The hosts' history under one URL.

    Args:
        waits: this host flips together with others, so that a record which changes what is served is left to `follow`.
    """

    def __init__(self, remote: Remote, *, waits: bool = False) -> None:
        self.remote = remote
        self._waits = waits
        self._known: int | None = None
        """The highest number seen there."""
        self._agreed = 0
        """The record of this host that was found to be the hosts' as well."""

    def newest_number(self) -> int:
        """The highest number that a record has among the hosts; 0: there is none."""
        if self._known is None:
            self._known = max(self._numbers(), default=0)
        while self.remote.read(layout.remote_history(self._known + 1)) is not None:
            self._known += 1
        return self._known

    def newest(self) -> HistoryRecord | None:
        """The hosts' newest record; None: there is none. Raises like `read`."""
        number = self.newest_number()
        return self.read(number)[0] if number else None

    def made_at(self, name: str) -> int | None:
        """The logical time of a version in object storage; None: it is not complete there, or damaged.

        Raises:
            NewerFormatError: a later Shortlist has written it.
        """
        try:
            found = find_copy(self.remote, name)
        except DamagedVersionError:
            return None
        return found.manifest.made_at if found else None

    def read(self, number: int) -> tuple[HistoryRecord, bytes]:
        """A record of the hosts and its bytes. Raises DamagedHistoryError, NewerFormatError, RemoteError."""
        key = layout.remote_history(number)
        data = self.remote.read(key)
        if data is None:
            raise DamagedHistoryError(f"{key} is not in {self.remote.url}", hint=OWN_HISTORY)
        try:
            record = decode_history_record(data)
        except NewerFormatError:
            raise
        except FormatError as error:
            raise DamagedHistoryError(f"{key} in {self.remote.url}: {error.message}", hint=OWN_HISTORY) from error
        if record.number != number:
            raise DamagedHistoryError(f"{key} in {self.remote.url}: it says it is record {record.number}")
        return record, data

    def ground(self, root: Path, *, tolerate_damage: bool) -> Ground:
        """See `records.SharedHistory`.

        Raises:
            DivergedHistoryError: this host has made decisions of its own.
            DamagedHistoryError: the hosts' newest record cannot be read, and that is not tolerated.
            RemoteError: object storage does not answer.
        """
        newest = self.newest_number()
        _make_folders(root)  # a host may decide that has nothing yet
        self.require_agreement(root)
        if newest:
            self.remote.settle([layout.remote_history(newest)])  # whoever made it may have failed at that
        for number in range(newest, 0, -1):
            try:
                record, data = self.read(number)
            except DamagedHistoryError:
                if not tolerate_damage:
                    raise
                continue
            if number == newest and not has_taken(root, number):
                self.take(root, record, data)
            return Ground(newest, record)
        return Ground(newest, None)

    def announce(self, record: HistoryRecord, data: bytes) -> bool:
        """See `records.SharedHistory`.

        Raises:
            MissingVersionError: the version to serve is not complete in object storage.
            UnknownOutcomeError: the answer was lost, and so was that to the question whether the record is there.
        """
        if record.since in (0, record.number):  # it makes a version current; any other one names what is current
            require_copy(self.remote, record.version, record.manifest_sha256)
        key = layout.remote_history(record.number)
        try:
            # A second try, after an answer that was lost, is told that the record is there: it may be ours.
            is_ours = self.remote.create(key, data) or self.remote.read(key) == data
        except RemoteError as error:
            if not self._is_there(key, data):
                raise self._unknown(record, error) from error
            is_ours = True
        try:
            if is_ours:
                self.remote.settle([key])
        except DiskError as error:
            raise self._unknown(record, error) from error
        return is_ours

    def take(self, root: Path, record: HistoryRecord, data: bytes) -> None:
        """See `records.SharedHistory`: taken, if the version is here and no other host has to be waited for."""
        if self._waits and not serves(root, record):
            return
        if is_here(root, record):
            self.bring(root, record.number, data)

    def bring(self, root: Path, number: int, data: bytes) -> None:
        """Take a record, and then those below it that are not here.

        Raises:
            DivergedHistoryError: this host has another record of that number.
        """
        _make_folders(root)
        if _is_damaged(root, number):  # what the hosts share is the same record, undamaged
            durable.replace_document(layout.history_path(root, number), data, for_all=True)
        self.remote.settle([layout.remote_history(number)])  # nothing is taken that a power cut may take there
        adopt(root, number, data)
        here = set(layout.history_numbers(root))
        for missing in sorted(set(range(1, number)) - here, reverse=True):
            older = self.remote.read(layout.remote_history(missing))
            if older is not None and _is_record(older):
                place(root, missing, older)

    def require_agreement(self, root: Path) -> None:
        """Go on only if this host has made no decision of its own.

        Raises:
            DivergedHistoryError: it has a record that the hosts have not, or have another of its number.
        """
        numbers = layout.history_numbers(root)
        if not numbers or numbers[-1] == self._agreed or _is_damaged(root, numbers[-1]):
            return
        number = numbers[-1]
        theirs = self.remote.read(layout.remote_history(number))
        if theirs == contents.read_document(layout.history_path(root, number)):
            self._agreed = number
            return
        newest = self.newest_number()
        if newest == 0:
            raise DivergedHistoryError(
                f"{root} has a history, and {self.remote.url} has none",
                hint="shortlist push, on the host whose history shall be that of all",
            )
        what = "another one" if theirs is not None else f"none: their last one is {newest}"
        raise DivergedHistoryError(
            f"this host has history record {number}, and the hosts have {what}: a decision was made on this host alone",
            hint=OWN_HISTORY,
        )

    def begin(self, root: Path) -> None:
        """Make this host's history the one that the hosts share, if they have none.

        The newest goes first. What an interrupted beginning has left out follows.

        Requires: the versions that are served and gone back to are complete in object storage.
        """
        mine = layout.history_numbers(root)
        theirs = self._numbers()
        if not mine or (theirs and max(theirs) < mine[-1]):
            return
        if theirs:
            self.require_agreement(root)
        else:
            record = read_record(root, mine[-1])
            require_copy(self.remote, record.version, record.manifest_sha256)
        for number in sorted(set(mine) - theirs, reverse=True):
            key, data = layout.remote_history(number), contents.read_document(layout.history_path(root, number))
            if not self.remote.create(key, data) and self.remote.read(key) != data:
                raise DivergedHistoryError(
                    f"{key} in {self.remote.url} was made by another host in the meantime", hint=OWN_HISTORY
                )
            self.remote.settle([key])
        self._known = None

    def _numbers(self) -> set[int]:
        found = map(layout.remote_history_number, self.remote.sizes(layout.REMOTE_HISTORY))
        return {number for number in found if number is not None}

    def _unknown(self, record: HistoryRecord, error: StoreError) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f"whether history record {record.number}, {record.action} of {record.version}, will stay in"
            f" {self.remote.url} is not known ({error.message})",
            hint=how_to_repeat(record),
        )

    def _is_there(self, key: str, data: bytes) -> bool:
        try:
            return self.remote.read(key) == data
        except RemoteError:
            return False


def is_here(root: Path, record: HistoryRecord) -> bool:
    """True when this host has exactly the version that a record names."""
    try:
        return read_identity(root, record.version)[1] == record.manifest_sha256
    except (StoreError, FormatError):
        return False


def has_taken(root: Path, number: int) -> bool:
    """True when this host has the record, and every one below it."""
    return layout.history_numbers(root) == list(range(1, number + 1)) and not _is_damaged(root, number)


def serves(root: Path, record: HistoryRecord) -> bool:
    """True when this host's servers are told to serve just what the record names."""
    try:
        served = current_or_none(root)
    except DamagedHistoryError:
        return False
    return served is not None and served.identity == record.identity


def _make_folders(root: Path) -> None:
    durable.make_folder(layout.history_folder(root), for_all=True)
    durable.make_folder(layout.versions_folder(root), for_all=True)


def _is_damaged(root: Path, number: int) -> bool:
    """True when this host has the record and cannot read it."""
    if contents.size_of(layout.history_path(root, number)) is None:
        return False
    try:
        read_record(root, number)
    except NewerFormatError:
        return False
    except DamagedHistoryError:
        return True
    return False


def _is_record(data: bytes) -> bool:
    try:
        decode_history_record(data)
    except NewerFormatError:
        return True
    except FormatError:
        return False
    return True
