"""The agent of a serving host: brings what the hosts have decided, gets ready, and flips with the others.

One round looks at the shared history once. What fails is said in the host's status and tried again, ever more rarely;
what was served before is served on. The local servers follow this host's own history, which a round only adds to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from prediction_store import history
from prediction_store.errors import (
    DiskError,
    DivergedHistoryError,
    FormatError,
    RemoteError,
    StoreError,
    TransferStoppedError,
)
from prediction_store.retention import retire
from prediction_store.succession import way_back
from prediction_store.transfer.copies import find_copy
from prediction_store.transfer.hosts import read_statuses, waited_for, write_status
from prediction_store.transfer.readiness import Readiness
from prediction_store.transfer.shared import RemoteHistory, serves
from prediction_store.transfer.stop import Stop
from schemas.config import Follow, Store, Transfer
from schemas.errors import ShortlistError
from schemas.held import parse_shards
from schemas.history import HistoryRecord
from schemas.hosts import DIVERGED, FAILED, IDLE, PULLING, SERVING, STOPPED, WAITING, HostStatus

HEARTBEAT_SECONDS: Final = 30.0
"""A status that says nothing new is written this often."""
HOUSEKEEPING_SECONDS: Final = 600.0


class Clocks(NamedTuple):
    """What the agent knows of time."""

    now: Callable[[], float] = time.time
    """UTC epoch seconds."""
    monotonic: Callable[[], float] = time.monotonic


REAL: Final = Clocks()


class Agent:
    """One host that follows. `round` is called again and again, by one thread.

    Args:
        host: its name among the hosts.
        say: told each event worth a line of the log.
        stopping: set when the agent is to end; a pull that is under way then ends, too.
    """

    def __init__(
        self, root: Path, shared: RemoteHistory, host: str, *, follow: Follow, store: Store, transfer: Transfer,
        say: Callable[[str], None], stopping: Stop, clocks: Clocks = REAL,
    ) -> None:  # fmt: skip
        self._root, self._shared, self._host = root, shared, host
        self._follow, self._store, self._say, self._clocks = follow, store, say, clocks
        self._ready = Readiness(
            root, shared.remote, transfer=transfer, shards=parse_shards(follow.shards), say=say, stopping=stopping,
            before_pull=lambda name: self._report(PULLING, f"version {name}"), is_wanted=self._is_still_newest,
            monotonic=clocks.monotonic,
        )  # fmt: skip
        self._newest: tuple[HistoryRecord, bytes] | None = None
        self._seen: tuple[int, float] = (0, 0.0)
        """The record that made the wanted version current, and when it was first seen."""
        self._asking = threading.Lock()
        self._asked_at = 0.0
        self._brought = 0
        """The newest record that was taken with all below it."""
        self._tidied_at: float | None = None
        self._reported: tuple[HostStatus, float] | None = None
        self._said = ""
        self._unwritten = ""
        """Why the last status could not be written."""

    def round(self) -> ShortlistError | None:
        """Look at the shared history once and do what follows from it; what went wrong, if something did.

        Raises nothing that is worth another try.
        """
        error: ShortlistError | None = None
        try:
            state, problem = self._advance()
        except TransferStoppedError as stopped:
            return stopped
        except ShortlistError as found:
            error = found
            state, problem = DIVERGED if isinstance(found, DivergedHistoryError) else FAILED, found.message
            if isinstance(found, DiskError):
                self._tidy()  # there may be room then, at the next try
        said = f"{state}: {problem}" if problem else state
        if said != self._said:
            self._say(said)
            self._said = said
        self._report(state, problem)
        return error

    def close(self, *, stopped: bool = True) -> None:
        """Let go of everything, and say goodbye if it is one. What is served stays served."""
        if stopped:
            self._report(STOPPED, "")
        self._ready.keep_only(())

    def _advance(self) -> tuple[str, str]:
        """One step towards the newest record; the state this host is in then, and what it waits for or lacks."""
        newest = self._look()
        if newest is None:
            return IDLE, ""
        record, data = newest
        self._ready.prepare(record.version, record.manifest_sha256)
        if not serves(self._root, record):
            missing = self._missing_hosts(record)
            waited = self._clocks.monotonic() - self._seen[1]
            if missing and waited < self._follow.limit_seconds:
                return WAITING, f"waits for {', '.join(missing)}"
            self._flip(record, data, waited, missing)
        elif self._brought != record.number:
            self._shared.bring(self._root, record.number, data)
            self._brought = record.number
        problem = self._prepare_way_back(record)
        self._tidy()
        return SERVING, problem

    def _look(self) -> tuple[HistoryRecord, bytes] | None:
        """The newest record of the hosts. One that is known already is gone on with while object storage is silent."""
        try:
            number = self._shared.newest_number()
            self._shared.require_agreement(self._root)
            if number and (self._newest is None or self._newest[0].number != number):
                self._newest = self._shared.read(number)
        except RemoteError:
            if self._newest is None or serves(self._root, self._newest[0]):
                raise
        if self._newest is not None:
            since = self._newest[0].since or self._newest[0].number
            if since != self._seen[0]:
                self._seen = (since, self._clocks.monotonic())
        return self._newest

    def _is_still_newest(self) -> bool:
        """False when the hosts have decided something else during a pull: a rollback must not wait for its end."""
        if not self._asking.acquire(blocking=False):  # another thread of the pull is asking
            return True
        try:
            at = self._clocks.monotonic()
            if at - self._asked_at < self._follow.poll_seconds or self._newest is None:
                return True
            self._asked_at = at
            return self._shared.newest_number() == self._newest[0].number
        except RemoteError:
            return True
        finally:
            self._asking.release()

    def _missing_hosts(self, record: HistoryRecord) -> list[str]:
        try:
            statuses = read_statuses(self._shared.remote, self._follow.hosts)
        except RemoteError:
            statuses = {}  # then only the limit ends the waiting
        return waited_for(record, self._host, self._follow.hosts, statuses)

    def _flip(self, record: HistoryRecord, data: bytes, waited: float, missing: list[str]) -> None:
        """Take the record: from now on the local servers go to its version."""
        self._shared.bring(self._root, record.number, data)
        self._brought, self._tidied_at = record.number, None
        without = f", without {', '.join(missing)}" if missing else ""
        self._say(f"flipped to {record.version}, history record {record.number}, after {waited:.1f} s{without}")
        self._report(SERVING, "")  # at once: the others may be waiting to see it

    def _prepare_way_back(self, record: HistoryRecord) -> str:
        """Have the version ready that a rollback would go to; why it is not, where it is not."""
        kept, problem = {record.version}, ""
        try:
            for name in way_back(record, record.before):
                if self._ready.has(name) or find_copy(self._shared.remote, name) is not None:
                    kept.add(name)
                    self._ready.prepare(name, self._digest_of(name))
                    break
        except TransferStoppedError:
            raise
        except ShortlistError as error:
            problem = f"no way back yet: {error.message}"
        self._ready.keep_only(kept)
        return problem

    def _digest_of(self, name: str) -> str | None:
        """The digest of a version's manifest as the history at hand names it; None: it does not."""
        records = history.readable_records(self._root)
        return next((record.manifest_sha256 for record in records if record.version == name), None)

    def _tidy(self) -> None:
        """Remove the versions that this host needs no more, now and then."""
        at = self._clocks.monotonic()
        if self._tidied_at is not None and at - self._tidied_at < HOUSEKEEPING_SECONDS:
            return
        self._tidied_at = at
        grace_seconds = self._store.grace_hours * 3600
        try:
            report = retire(
                self._root, keep=self._store.keep_versions, grace_seconds=grace_seconds, now=self._clocks.now(),
                awaited=self._ready.awaited(),
            )  # fmt: skip
        except ShortlistError as error:  # it is only space: what is served is served
            self._say(f"could not remove old versions: {error.message}")
            return
        for name in [*report.removed, *report.swept]:
            self._say(f"removed {name}")
        for name, reason in report.failed.items():
            self._say(f"could not remove {name}: {reason}")

    def _report(self, state: str, problem: str) -> None:
        """Write this host's status, if it says something new or the last one is old."""
        try:
            served = history.current_or_none(self._root)
        except (StoreError, FormatError):
            served = None
        status = HostStatus(
            host=self._host,
            at=0,
            state=state,
            problem=problem,
            number=served.number if served else 0,
            version=served.version if served else "",
            wanted=self._newest[0].number if self._newest else 0,
            ready=self._ready.versions(),
            shards=self._ready.shards() or self._follow.shards,
        )
        at = self._clocks.monotonic()
        if self._reported is not None and self._reported[0] == status and at - self._reported[1] < HEARTBEAT_SECONDS:
            return
        try:
            write_status(self._shared.remote, replace(status, at=int(self._clocks.now())))
        except RemoteError as error:
            self._reported = None
            if state not in (FAILED, DIVERGED) and error.message != self._unwritten:
                self._say(f"the status could not be written: {error.message}")
            self._unwritten = error.message
            return
        self._reported, self._unwritten = (status, at), ""
