"""What a command of the store truly does to the disk, in order: watched, not told.

Before each durable step the whole folder is looked at, and what has changed since the last look is written down: so a
change that nobody announces (LMDB's, say) is not missed. Only that something is being synced has to be believed.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from prediction_store import layout
from prediction_store.gate_report import read_report
from promises.disk_model import BytesChanged, Contents, Disk, Names, NamesChanged, Synced
from promises.steps import announced_to, kill_myself

_VERSION = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_TOKEN = re.compile(r"-[0-9a-f]{8,16}(?=\.|$)")
_NUMBER = re.compile(r"(?<=[-.])[0-9]{4,8}(?=[-.])")


class Acknowledged(NamedTuple):
    """What the store has said is safe, from now on."""

    number: int
    """Of the newest history record; 0: none was made."""
    versions: frozenset[str]
    """Versions that must be there."""
    reports: frozenset[str]
    """Versions whose gate report must be there."""


Event = NamesChanged | BytesChanged | Synced | Acknowledged


class Look(NamedTuple):
    """Everything below a folder."""

    folders: dict[int, Names]
    files: dict[int, bytes]


class Trace(NamedTuple):
    """What has happened below a folder, from a moment on at which everything was safe."""

    root: int
    start: Look
    acknowledged: Acknowledged
    events: list[Event]

    def disk(self, contents: Contents) -> Disk:
        """The disk at the beginning."""
        files = {file: contents.number(data) for file, data in self.start.files.items()}
        return Disk(self.root, self.start.folders, files, contents)

    @property
    def syncs(self) -> list[int]:
        """Places of the syncs among the events."""
        return [place for place, event in enumerate(self.events) if isinstance(event, Synced)]


class Recorder:
    """Writes down what commands do to the store `base/store`."""

    def __init__(self, base: Path, contents: Contents) -> None:
        self.root = base / "store"
        self._base = base
        self._contents = contents
        self._seen = look_at(base)
        self._acknowledged = self._promised()
        self._events: list[Event] = []
        self.trace = Trace(base.stat().st_ino, self._seen, self._acknowledged, self._events)

    def run(
        self,
        command: Callable[[], object],
        *,
        before: Callable[[str, Path], None] | None = None,
        is_about_versions: bool = True,
    ) -> None:
        """Run a command to its end; what the store then shows counts as acknowledged.

        Args:
            is_about_versions: False: the command says nothing about which versions are there.
        """
        begin, promised = len(self._events), self._acknowledged

        def look_first(step: str, path: Path) -> None:
            self._before(step, path)
            if before is not None:
                before(step, path)

        with announced_to(look_first):
            command()
        self._look()
        self._acknowledged = self._promised()
        if not is_about_versions:
            self._acknowledged = self._acknowledged._replace(versions=promised.versions)
        # While something is being removed, it may be there or not.
        meanwhile = promised._replace(versions=promised.versions & self._acknowledged.versions)
        self._events[begin:begin] = [meanwhile]
        self._events.append(self._acknowledged)

    def run_killed(self, command: Callable[[], object], step: str, name: str, notes: Path) -> None:
        """Run a command in a child that dies before the first step of that kind at a path that `name` is part of.

        Nothing of it is acknowledged, and everything that it did goes on to be unsure.
        """

        def die(at: str, path: Path) -> None:
            if at == step and name in path.name:
                self._look()
                notes.write_bytes(pickle.dumps((self._events, self._seen, self._contents)))
                kill_myself()
            self._before(at, path)

        child = os.fork()
        if child == 0:
            try:
                with announced_to(die):
                    command()
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == -9, f"no step {step} of {name} in that command: it ended with {code}"
        events, self._seen, contents = pickle.loads(notes.read_bytes())
        self._events[:] = events
        self._contents.__dict__.update(contents.__dict__)

    def _before(self, step: str, path: Path) -> None:
        self._look()
        if step in ("sync file", "sync folder"):
            self._events.append(Synced(path.stat().st_ino, f"{_caller()}: {step} {_kind(path.name)}"))

    def _look(self) -> None:
        seen, before = look_at(self._base), self._seen
        for file, data in seen.files.items():
            if before.files.get(file) != data:
                self._events.append(BytesChanged(file, self._contents.number(data)))
        for folder, names in seen.folders.items():
            for change in _changes(before.folders.get(folder, {}), names):
                made = tuple(inode for _, inode in change if inode in seen.folders and inode not in before.folders)
                self._events.append(NamesChanged(folder, change, made))
        for folder in before.folders.keys() - seen.folders.keys():
            for name in before.folders[folder]:
                self._events.append(NamesChanged(folder, ((name, None),), ()))
        self._seen = seen

    def _promised(self) -> Acknowledged:
        numbers, names = layout.history_numbers(self.root), layout.version_names(self.root)
        reports = (name for name in names if read_report(self.root, name) is not None)
        return Acknowledged(numbers[-1] if numbers else 0, frozenset(names), frozenset(reports))


def look_at(base: Path) -> Look:
    """Every folder's names and every file's bytes below a folder."""
    found = Look({}, {})
    for folder, subfolders, files in os.walk(base):
        path = Path(folder)
        found.folders[path.stat().st_ino] = {name: (path / name).stat().st_ino for name in [*subfolders, *files]}
        found.files.update({(path / name).stat().st_ino: (path / name).read_bytes() for name in files})
    return found


def _changes(before: Names, after: Names) -> list[tuple[tuple[str, int | None], ...]]:
    """Changes that lead from the one to the other: a name that went and one that came for the same thing are one."""
    gone = {name: inode for name, inode in before.items() if after.get(name) != inode}
    come = {name: inode for name, inode in after.items() if before.get(name) != inode}
    found: list[tuple[tuple[str, int | None], ...]] = []
    for name, inode in come.items():
        old = next((other for other, its in gone.items() if its == inode and other not in after), None)
        if old is None:
            found.append(((name, inode),))
        else:
            del gone[old]
            found.append(((old, None), (name, inode)))
    return [*found, *(((name, None),) for name in gone if name not in after)]


def _caller() -> str:
    """The function outside `durable` that is doing this, as module.function."""
    frame = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(("prediction_store.", "jobs.")) and module != "prediction_store.durable":
            return f"{module.rpartition('.')[2]}.{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


def _kind(name: str) -> str:
    """A name without what differs from run to run."""
    return _NUMBER.sub("NUMBER", _TOKEN.sub("-TOKEN", _VERSION.sub("VERSION", name)))
