"""Session state in an LMDB file that the workers of one host share.

Nothing in it has to survive a power cut, and a file that one has torn must not be read: so nothing is synced, and the
file is named after the boot of the machine. Killing a process tears nothing: LMDB never overwrites what is in use.
Copying a file that is written tears it, too: so it is also named after its folder, which a copy has another one of.
"""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import lmdb
import msgspec

from prediction_store import durable, layout
from prediction_store.errors import StoreError
from prediction_store.file_system import refuse_network
from prediction_store.growing import open_growing
from reranker.errors import SessionsError
from reranker.serving_log.records import LoggedEvent
from reranker.sessions.stored import Happened, Limits, Shown, Stored, by_user

FORMAT: Final = 2
FIRST_MAP_BYTES: Final = 16 << 20
MAX_READERS: Final = 1024
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
SWEPT_PER_USER: Final = 4
"""Users looked at, and removed if they have expired, for each that is written: so the file holds few that have."""
SWEPT_AT_ONCE: Final = 1000
LOOK_SECONDS: Final = 1.0
"""A worker that only reads looks this often whether another file lies in the place of its own."""
SPARE_SHARE: Final = 1 / 16
"""Of the file, which writing leaves free: removing who has gone needs room itself, for the pages that change."""
_LATEST: Final = struct.Struct("<d")


class _State(msgspec.Struct, frozen=True, array_like=True):
    happened: list[Happened]
    shown: list[Shown]


Entry = TypeVar("Entry", Happened, Shown)
_NOTHING = _State([], [])
_DECODER = msgspec.msgpack.Decoder(_State)


class EmbeddedSessions:
    """One file, one value for each user: the time of the latest event, and the events."""

    def __init__(self, folder: Path, limits: Limits, *, max_bytes: int, first_map_bytes: int = FIRST_MAP_BYTES) -> None:
        """Opens the file, or makes it, and removes those of earlier boots and other folders. Raises SessionsError.

        Requires: the file is not open in this process already.
        """
        self._folder = folder
        self._limits = limits
        self._first_map_bytes = min(first_map_bytes, max_bytes)
        self._max_bytes = max_bytes
        self._writing = threading.Lock()
        self._mapping = threading.Lock()  # held by whoever reads, so that the map is not changed under them
        self._hand = b""  # the sweep goes on after this key
        self._looked_at = 0.0
        self._environment, self._path, self._file = self._open()
        try:
            for entry in layout.entries(folder):
                if entry.startswith("sessions-") and not entry.startswith(file_name(folder)):
                    durable.remove_file(folder / entry)
        except (StoreError, OSError) as error:
            raise SessionsError(f"removing old sessions in {folder}: {error}") from error

    def add(self, events: Sequence[LoggedEvent], now: float) -> None:
        with self._writing:
            try:
                self._follow(now)
                self._grow_and_try(by_user(events, now), now)
            except lmdb.Error as error:
                raise SessionsError(f"writing the session: {error}") from error

    def of(self, user: str, now: float) -> Stored:
        if abs(now - self._looked_at) > LOOK_SECONDS and not self._writing.locked():
            with self._writing, suppress(SessionsError, lmdb.Error):  # what is open is read on
                self._follow(now)
        state = self._read(user)
        return Stored.of(state.happened, state.shown, *self._limits.span(now))

    def close(self) -> None:
        with self._writing, self._mapping:
            self._environment.close()

    def users(self) -> int:
        """How many users have a value, expired ones among them."""
        found: int = self._environment.stat()["entries"]
        return found

    def _open(self) -> tuple[lmdb.Environment, Path, os.stat_result]:
        try:
            refuse_network(self._folder)
            durable.make_last_folder(self._folder)
            path = self._folder / file_name(self._folder)
            environment = open_growing(
                str(path), subdir=False, map_size=self._first_map_bytes, max_readers=MAX_READERS, sync=False,
                metasync=False, readahead=False,
            )  # fmt: skip
            environment.reader_check()  # slots of readers that were killed
            return environment, path, path.stat()
        except (StoreError, lmdb.Error, OSError) as error:
            is_damaged = isinstance(error, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError))
            hint = "remove it: it holds no more than the last minutes, and is begun anew" if is_damaged else ""
            raise SessionsError(f"opening the sessions in {self._folder}: {error}", hint=hint) from error

    def _follow(self, now: float) -> None:
        """Open the file that the other workers use, where the one that is open has lost its name. Raises SessionsError.

        Requires: `_writing` is held.
        """
        self._looked_at = now
        with suppress(OSError):
            if os.path.samestat(self._path.stat(), self._file):
                return
        with suppress(OSError):  # a process cannot open one name twice; where there is none, what is open is read on
            if self._folder / file_name(self._folder) == self._path:
                with self._mapping:
                    self._environment.close()
        opened = self._open()
        with self._mapping:
            self._environment.close()
            self._environment, self._path, self._file = opened

    def _read(self, user: str) -> _State:
        with self._mapping:
            for _ in range(10):
                try:
                    with self._environment.begin() as transaction:
                        return _decode(transaction.get(user.encode()))
                except lmdb.MapResizedError:  # another worker has made it larger
                    self._environment.set_mapsize(0)
                except lmdb.Error as error:
                    raise SessionsError(f"reading a session: {error}") from error
            raise SessionsError("the sessions grow faster than they can be read")

    def _grow_and_try(self, found: dict[str, tuple[set[Happened], set[Shown]]], now: float) -> None:
        """Write, with a larger map if it must be; without the expired users, if it may not."""
        has_swept = False
        while True:
            try:
                return self._write(found, now)
            except lmdb.MapResizedError:
                self._set_map(0)
            except lmdb.MapFullError as error:
                if self._map_bytes() < self._max_bytes:
                    self._set_map(min(self._max_bytes, 2 * self._map_bytes()))
                elif has_swept:
                    raise SessionsError(
                        f"the sessions fill all {self._max_bytes} bytes", hint="raise sessions.max_mb"
                    ) from error
                else:
                    self._sweep_all(now)
                    has_swept = True

    def _write(self, found: dict[str, tuple[set[Happened], set[Shown]]], now: float) -> None:
        span, limits = self._limits.span(now), self._limits
        with self._environment.begin(write=True) as transaction:
            if self._used_bytes() > (1 - SPARE_SHARE) * self._max_bytes:
                raise lmdb.MapFullError("only the spare is left")
            for user, (happened, shown) in found.items():
                key = user.encode()
                known = _decode(transaction.get(key))
                state = _State(
                    _latest(happened.union(known.happened), span, limits.events),
                    _latest(shown.union(known.shown), span, limits.impressions),
                )
                _put(transaction, key, state)
            self._sweep(transaction, span, SWEPT_PER_USER * len(found))

    def _sweep(self, transaction: lmdb.Transaction, span: tuple[float, float], count: int) -> None:
        """Look at the next `count` users in the order of keys, round and round."""
        since, until = span
        with transaction.cursor() as cursor:
            is_there = cursor.set_range(self._hand)
            for _ in range(count):
                if not is_there:
                    is_there = cursor.first()
                    if not is_there:
                        return
                if since < _latest_in(cursor.value()) <= until:
                    is_there = cursor.next()
                else:
                    cursor.delete()
                    is_there = bool(cursor.key())  # the next one
            self._hand = bytes(cursor.key()) if is_there else b""

    def _sweep_all(self, now: float) -> None:
        span, left, at_once = self._limits.span(now), self.users(), SWEPT_AT_ONCE
        while left > 0 and at_once > 0:
            hand = self._hand
            try:
                with self._environment.begin(write=True) as transaction:
                    self._sweep(transaction, span, at_once)
                left -= at_once
            except lmdb.MapFullError:  # not so many pages can change at once
                self._hand, at_once = hand, at_once // 2

    def _used_bytes(self) -> int:
        """Of all users; pages that are free are not counted."""
        facts = self._environment.stat()
        return facts["psize"] * (facts["branch_pages"] + facts["leaf_pages"] + facts["overflow_pages"])

    def _map_bytes(self) -> int:
        found: int = self._environment.info()["map_size"]
        return found

    def _set_map(self, bytes_: int) -> None:
        """Map so much of the file; 0: as much as another worker has made of it."""
        with self._mapping:
            self._environment.set_mapsize(bytes_)


def file_name(folder: Path) -> str:
    """The name of the file in a folder since the machine was started. Raises OSError: there is no such folder."""
    facts = folder.stat()
    try:
        boot = BOOT.read_text(encoding="ascii").strip()
    except OSError:  # no /proc: not the kernel this was written for
        boot = "unknown"
    return f"sessions-{FORMAT}-{boot}-{facts.st_dev:x}-{facts.st_ino:x}.mdb"


def _decode(value: bytes | None) -> _State:
    """What is stored of a user: nothing, too, where it is damaged, for the user's next event writes it anew."""
    try:
        return _NOTHING if value is None else _DECODER.decode(value[_LATEST.size :])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _NOTHING


def _latest_in(value: bytes | memoryview) -> float:
    """The time of the latest event in a value; one that is cut off has long expired."""
    return float(_LATEST.unpack_from(value)[0]) if len(value) >= _LATEST.size else -math.inf


def _put(transaction: lmdb.Transaction, key: bytes, state: _State) -> None:
    times = [entry.time for entries in (state.happened, state.shown) for entry in entries[-1:]]
    if times:
        transaction.put(key, _LATEST.pack(max(times)) + msgspec.msgpack.encode(state))
    else:
        transaction.delete(key)


def _latest(entries: set[Entry], span: tuple[float, float], count: int) -> list[Entry]:
    since, until = span
    first = {entry[1:]: entry for entry in sorted(entries, reverse=True)}
    return sorted(entry for entry in first.values() if since < entry.time <= until)[-count:]
