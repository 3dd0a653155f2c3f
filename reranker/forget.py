"""Forgetting users: what the log holds of them is taken out; what else knows of them is told.

A segment is written anew without their records, and takes the old one's place in one step. A worker holds a lock on the
segment that it appends to, so that nothing which was acknowledged can be lost: such a segment is left for later.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from prediction_store import durable, layout, locks
from prediction_store.errors import DiskError, MissingVersionError
from prediction_store.reader import Version
from reranker.errors import LogBusyError
from reranker.serving_log.frames import Tail, frame, frames, header
from reranker.serving_log.reading import Watch, segments
from reranker.serving_log.records import AnswerRecord, Record, SettingsRecord, TrendingRecord, decode, encode
from schemas.config import Config, events_folder
from schemas.errors import ShortlistError, UsageError


@dataclass
class Forgotten:
    """What was taken out of the log, and who else knows of the users."""

    answers: int = 0
    events: int = 0
    segments: int = 0
    """Written anew."""
    in_use: list[str] = field(default_factory=list)
    """Segments that hold something of them and are still being written."""
    torn_bytes: int = 0
    """Of torn tails of these segments, which nobody can read: they went, too."""
    versions: list[str] = field(default_factory=list)
    """Versions in the store that have a list of one of them, or cannot be asked."""

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        return dict(vars(self))


def forget(config: Config, users: Collection[str], *, watch: Watch = iter) -> Forgotten:
    """Take the answers and events of these users out of the log.

    A killed run leaves each segment as it was or as it should be; the next one takes away what it had begun.

    Raises:
        UsageError: a user's id is empty, or is no UTF-8.
        LogBusyError: another one is at work.
        FormatError, DiskError: a segment cannot be read or written.
    """
    for user in users:
        if not user or any("\ud800" <= char <= "\udfff" for char in user):
            raise UsageError(f"{user!r} can be no user's id: wanted text that is UTF-8 and not empty")
    root, folder = Path(config.paths.store), Path(events_folder(config.paths))
    found = Forgotten(versions=[name for name in layout.version_names(root) if _has_list(root, name, users)])
    if not layout.entries(folder):
        return found
    alone = locks.lock(folder, exclusive=True)
    if alone is None:
        raise LogBusyError(f"another shortlist forget is at work on {folder}", hint="run it again when that has ended")
    try:
        for entry in layout.entries(folder):
            if entry.startswith(layout.TEMPORARY):  # of a killed run
                durable.remove_file(folder / entry)
        for path in watch(segments(folder)):
            _forget_in(path, users, found)
    finally:
        locks.unlock(alone)
    return found


def _has_list(root: Path, name: str, users: Collection[str]) -> bool:
    try:
        with Version.open(root, name, verify=False) as version:
            return any(version.read(user) is not None for user in users)
    except MissingVersionError:
        return False
    except ShortlistError:  # damaged, say: who is in there cannot be told
        return True


def _forget_in(path: Path, users: Collection[str], found: Forgotten) -> None:
    names = [user.encode() for user in users]
    data = _read(path)
    if not any(name in data for name in names):
        return
    lock = locks.lock(path, exclusive=True)
    if lock is None:
        if path.exists():  # else it was removed for its age
            found.in_use.append(path.name)
        return
    try:
        kept, is_other = [header()], False
        for part in frames(path, _read(path)):
            if isinstance(part, Tail):
                found.torn_bytes += part.bytes
                is_other = True
                continue
            record = decode(part.payload, path, part.begin)
            left = _without(record, users, found)
            is_other |= left is not record
            if left is not None:
                kept.append(frame(part.payload if left is record else encode(left)))
        if is_other:
            durable.replace_document(path, b"".join(kept))
            found.segments += 1
    finally:
        locks.unlock(lock)


def _without(record: Record, users: Collection[str], found: Forgotten) -> Record | None:
    """The record without what these users did, itself where they did nothing; None: nothing is left."""
    if isinstance(record, TrendingRecord | SettingsRecord):
        return record  # of no user
    if isinstance(record, AnswerRecord):
        if record.user not in users:
            return record
        found.answers += 1
        return None
    others = [event for event in record.events if event.user not in users]
    found.events += len(record.events) - len(others)
    if len(others) == len(record.events):
        return record
    return msgspec.structs.replace(record, events=others) if others else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a worker has removed it, for its age
        return b""
    except OSError as error:
        raise DiskError(f"reading {path}: {error.strerror or error}") from error
