"""The LMDB environment of the live facts: the one part of the store that is written in place, by several processes.

Unlike a version's files it is opened with LMDB's locks, which keep a writer from the pages of a reader. LMDB must not
open a file twice in a process nor carry it across a fork, so there is one registry per process, as with versions.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import lmdb

from prediction_store import durable, layout
from prediction_store.errors import DiskError, LiveItemsError
from prediction_store.file_system import refuse_network
from prediction_store.growing import LOCK_FILE, open_growing

MAX_READERS: Final = 1024
"""Processes that read at the same time; LMDB keeps this many places for them."""
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TRIES: Final = 3
"""To read what others write meanwhile."""
SPACE_HINT: Final = "raise store.live_items_mb: to clear items needs room, too"
FOLDER_HINT: Final = "restore live/items from a copy; or remove that folder, and send the changes again"
DISK_HINT: Final = "df and ls -l tell whether it can be written"
FACTS: Final = b"facts"
CHANGES: Final = b"changes"
BEFORE: Final = b"before"
DATABASES: Final = (FACTS, CHANGES, BEFORE)
"""Names of the databases; an older Shortlist made the first two."""

State = tuple[int, int, int, int]
"""Device and inode of the file, how often this process had opened one, for an inode is used again, and LMDB's number of
its last transaction: another one with each change."""
T = TypeVar("T")


class Tables(NamedTuple):
    """A transaction and the databases in it; None: the database has not been made yet."""

    transaction: lmdb.Transaction
    facts: Any
    """Item id to what `encode_facts` makes."""
    changes: Any
    """Number of a change, 8 bytes big-endian, to the id of the item it was about."""
    before: Any
    """The same number to the item's value in `facts` before it, empty where there was none."""


class _Opened(NamedTuple):
    environment: lmdb.Environment
    file: tuple[int, int]
    opening: int
    """How often this process had opened one before."""
    is_writable: bool
    is_locked: bool
    """False where the place is read-only, or too full for a lock file: what is read may be overwritten meanwhile."""


class LiveEnvironment:
    """One environment as this process has it open, shared by all who use it. Any number of threads may use it."""

    def __init__(self, root: Path) -> None:
        self.holders = 0
        """How many have it by `share`. Guarded by the registry's lock."""
        self.map_bytes = 0
        self._root = root
        self._folder, self._file = layout.live_items_folder(root), layout.live_items_file(root)
        self._path = str(self._file)
        self._opened: _Opened | None = None
        self._openings = itertools.count()
        self._lock = threading.RLock()
        """Guards `_opened`; held while reading, and not while waiting for another process or the disk."""
        self._writing = threading.Lock()
        self._is_written = False
        """A thread is inside a writing transaction: the environment must stay open."""

    def state(self) -> State | None:
        """A value that differs after each change; None: nothing has ever been set. Cost: a few µs.

        Raises:
            LiveItemsError: the environment is damaged, or cannot be opened.
        """
        with self._lock:
            try:
                opened = self._look()
                if opened is None:
                    return None
                return (*opened.file, opened.opening, opened.environment.info()["last_txnid"])
            except (lmdb.Error, OSError) as error:
                raise _problem("reading", self._folder, error) from error

    def read(self, look: Callable[[Tables], T]) -> tuple[State, T] | None:
        """What `look` finds in one consistent state; None: nothing has ever been set.

        Raises:
            LiveItemsError: the environment is damaged, or cannot be opened.
        """
        for _ in range(TRIES):
            with self._lock, _translated("reading", self._folder):
                opened = self._look()
                if opened is None:
                    return None
                environment = opened.environment
                self._refuse_truncated(environment)
                number = environment.info()["last_txnid"]
                try:
                    with environment.begin() as transaction:
                        number = transaction.id()
                        found = look(Tables(transaction, *_databases(environment, transaction)))
                except lmdb.MapResizedError:  # another process has made more room than this one has mapped
                    if self._is_written:
                        raise
                    self._close()
                    continue
                except lmdb.Error:
                    if opened.is_locked or environment.info()["last_txnid"] == number:
                        raise
                    continue
                if opened.is_locked or environment.info()["last_txnid"] == number:
                    return (*opened.file, opened.opening, number), found
        raise LiveItemsError(f"reading {self._folder}: it was changed meanwhile, {TRIES} times")

    def write(self, change: Callable[[Tables], T]) -> T:
        """Let `change` write, all or nothing; what it has written is on disk when this returns.

        Waits for the processes and threads that write.

        Raises:
            LiveItemsError: there is no room, the file system refuses, or the environment is damaged; nothing changed.
        """
        refuse_network(self._root)
        with self._writing, _translated("writing", self._folder):
            if not self._root.is_dir():
                raise LiveItemsError(f"there is no store at {self._root}", hint="set paths.store to where it is")
            for _ in range(TRIES - 1):
                with contextlib.suppress(lmdb.MapResizedError):
                    return self._write(change)
            return self._write(change)

    def close(self) -> None:
        """Close the files; whoever uses it again opens them again."""
        with self._writing, self._lock:
            self._close()

    def forget(self) -> None:
        """After a fork, in the child: what the parent has open is not ours, nor are its locks."""
        self._lock, self._writing, self._is_written = threading.RLock(), threading.Lock(), False
        self._close()  # or LMDB would refuse to open it again in this process

    def _write(self, change: Callable[[Tables], T]) -> T:
        with self._lock:
            opened = self._open_for_writing()
            self._is_written = True
        is_done = False
        try:
            environment = opened.environment
            self._refuse_truncated(environment)
            databases = _databases(environment, None)
            environment.reader_check()  # a killed reader would keep the pages it was reading from being used again
            durable.before("write live items", self._file)
            with environment.begin(write=True) as transaction:
                found = change(Tables(transaction, *databases))
            is_done = True
            return found
        finally:
            with self._lock:
                self._is_written = False
                if not is_done:
                    self._close()  # LMDB refuses everything after a commit that failed

    def _look(self) -> _Opened | None:
        """What is open, or opened now for reading; None: the file is not there."""
        try:
            facts = os.stat(self._path)  # noqa: PTH116 at every request
        except FileNotFoundError:
            if not self._is_written:
                self._close()
            return None
        if not stat.S_ISREG(facts.st_mode):  # LMDB would block on a named pipe
            raise LiveItemsError(f"{self._file} is no file", hint=FOLDER_HINT)
        opened = self._opened
        if opened is not None and (opened.file == (facts.st_dev, facts.st_ino) or self._is_written):
            if facts.st_size < 2 * PAGE_BYTES:
                raise LiveItemsError(f"{self._file} has been cut off", hint=FOLDER_HINT)
            return opened
        self._close()  # somebody has put another file there
        if facts.st_size == 0:  # its maker was killed, or is about to write
            return None
        refuse_network(self._root)
        is_locked = _can_lock(self._folder)
        try:
            environment = self._open_for_reading(lock=is_locked)
        except DiskError:  # a full disk, say
            is_locked = False
            environment = self._open_for_reading(lock=False)
        self._opened = _Opened(environment, (facts.st_dev, facts.st_ino), next(self._openings), False, is_locked)
        return self._opened

    def _open_for_reading(self, *, lock: bool) -> lmdb.Environment:
        return open_growing(
            str(self._folder), map_size=self.map_bytes, readonly=True, create=False, lock=lock,
            max_dbs=len(DATABASES), max_readers=MAX_READERS,
        )  # fmt: skip

    def _open_for_writing(self) -> _Opened:
        opened = self._look()
        if opened is not None and opened.is_writable:
            return opened
        self._close()
        for folder in (self._folder.parent, self._folder):
            durable.make_folder(folder, for_all=True)
        durable.make_file(self._file)  # LMDB would heed the umask
        # No writemap: a full disk would be a SIGBUS.
        environment = open_growing(
            str(self._folder), map_size=self.map_bytes, max_dbs=len(DATABASES), max_readers=MAX_READERS
        )
        try:
            self._refuse_truncated(environment)
            for name in DATABASES:
                environment.open_db(name)
            # LMDB syncs neither the first pages of a new file nor any name.
            durable.sync_file(self._file)
            durable.sync_folder(self._folder)
            facts = self._file.stat()
        except BaseException:
            environment.close()
            raise
        self._opened = _Opened(environment, (facts.st_dev, facts.st_ino), next(self._openings), True, True)
        return self._opened

    def _refuse_truncated(self, environment: lmdb.Environment) -> None:
        """A page beyond the end of the file would kill the process that reads it."""
        if self._file.stat().st_size >= _bytes_of(environment):
            return
        from lmdb.verify import VerifyError, verify

        # LMDB never writes a page that was taken and freed within one transaction; the last page may be one.
        try:
            problems = verify(self._path)  # type: ignore[no-untyped-call]
        except VerifyError as error:  # the first pages, of which the length was read, have been overwritten
            raise LiveItemsError(f"{self._file} is damaged: {error}", hint=FOLDER_HINT) from error
        if problems:
            raise LiveItemsError(f"{self._file} has been cut off: {problems[0]}", hint=FOLDER_HINT)

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.environment.close()


def _databases(environment: lmdb.Environment, transaction: lmdb.Transaction | None) -> tuple[Any, Any, Any]:
    found: list[Any] = [None, None, None]
    with contextlib.suppress(lmdb.NotFoundError):
        for place, name in enumerate(DATABASES):
            found[place] = environment.open_db(name, transaction, create=False)
    return found[0], found[1], found[2]


def _bytes_of(environment: lmdb.Environment) -> int:
    """The length that the file must have for all of its pages to be in it."""
    pages: int = environment.info()["last_pgno"] + 1
    size: int = environment.stat()["psize"]
    return pages * size


def _can_lock(folder: Path) -> bool:
    lock = folder / LOCK_FILE
    return os.access(lock if lock.exists() else folder, os.W_OK)


@contextlib.contextmanager
def _translated(doing: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except DiskError as error:  # the folder cannot be made or synced
        raise LiveItemsError(error.message, hint=error.hint or DISK_HINT) from error
    except (lmdb.Error, OSError) as error:
        raise _problem(doing, folder, error) from error


def _problem(doing: str, folder: Path, error: Exception) -> LiveItemsError:
    if isinstance(error, lmdb.MapFullError):
        return LiveItemsError(f"{doing} {folder}: there is no room for more", hint=SPACE_HINT)
    is_damage = isinstance(error, (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError))
    return LiveItemsError(f"{doing} {folder}: {error}", hint=FOLDER_HINT if is_damage else DISK_HINT)


_registry: dict[str, LiveEnvironment] = {}
_registry_lock = threading.Lock()


def share(root: Path, map_bytes: int) -> LiveEnvironment:
    """The environment of a store, one per process; give it back with `release`. Opens nothing yet."""
    with _registry_lock:
        shared = _registry.setdefault(os.path.realpath(root), LiveEnvironment(root))
        shared.holders += 1
        shared.map_bytes = max(shared.map_bytes, map_bytes)
        return shared


def release(environment: LiveEnvironment) -> None:
    """Give back one `share`; the last one closes the files."""
    with _registry_lock:
        environment.holders -= 1
        if environment.holders:
            return
        for key, other in list(_registry.items()):
            if other is environment:
                del _registry[key]
        environment.close()


def _start_afresh_in_child() -> None:
    global _registry_lock  # noqa: PLW0603 another thread of the parent may have held it
    _registry_lock = threading.Lock()
    for environment in _registry.values():
        environment.forget()


os.register_at_fork(after_in_child=_start_afresh_in_child)
