"""Promise 4: corrupt bytes are never served.

Every file of a version, its manifest and the newest history record are damaged in turn and put back: loading has to
refuse each damage. Not among them is the loss of the newest history record as a whole, which leaves the store as it was
before that record. What happens when nobody checks the files at load is tried in `damaged_records`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from prediction_store import history, layout
from prediction_store.errors import FormatError, StoreError
from prediction_store.reader import Version
from promises.outcome import Outcome
from promises.tiny_store import HOUR, MADE_AT, publish

SHARDS = 2
LONGEST_RUN = 64
PAGE = 4096
Files = dict[Path, bytes | None]
"""Contents by path; None: there is no such file."""


class Damage(NamedTuple):
    """What is done, and what the files hold afterwards."""

    what: str
    files: Files

    def __str__(self) -> str:
        return f"{self.what} of {' and '.join('/'.join(path.parts[-3:]) for path in self.files)}"


class Shelf:
    """A store with two versions, of which the second is current, and the bytes of all that can be damaged."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "store"
        self.names = [publish(self.root, inputs, MADE_AT + HOUR * at, shards=SHARDS) for at, inputs in enumerate("ab")]
        self.whole: dict[Path, bytes] = {}
        for path in self.root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
            if path.is_file():
                self.whole[path] = path.read_bytes()
        version = layout.version_path(self.root, self.names[1])
        self.record = layout.history_path(self.root, 2)
        self.files = [self.record, *(path for path in sorted(self.whole) if path.is_relative_to(version))]

    @contextmanager
    def damaged(self, damage: Damage) -> Iterator[None]:
        """Have the damage on disk for the length of a block."""
        self._write(damage.files)
        try:
            yield
        finally:
            self._write({path: self.whole[path] for path in damage.files})

    def of_other_version(self, path: Path) -> Path:
        """The same file of the version before, or the record before."""
        if path == self.record:
            return layout.history_path(self.root, 1)
        return Path(str(path).replace(self.names[1], self.names[0]))

    def refusal(self) -> str | None:
        """Load what is current, as a server does: the error that refuses, or None when it was loaded.

        Whatever else is raised has not been thought of, and ends the trials.
        """
        try:
            record = history.current(self.root)
            Version.open(self.root, record.version, manifest_sha256=record.manifest_sha256).close()
        except (StoreError, FormatError) as error:
            return type(error).__name__
        return None

    def _write(self, files: Files) -> None:
        for path, data in files.items():
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data)


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Try that many damages to everything that is read at load."""
    outcome, dice = Outcome(), random.Random(seed)
    shelf = Shelf(folder)
    true_record = history.current(shelf.root)
    for _ in range(trials):
        damage = choose(shelf, dice)
        outcome.tried += 1
        outcome.count(damage.what)
        with shelf.damaged(damage):
            refusal = shelf.refusal()
            if refusal is not None:
                outcome.count(f"refused: {refusal}")
            elif shelf.record in damage.files and history.current(shelf.root) == true_record:
                outcome.count("harmless")  # white space around a record that is as it was
            else:
                outcome.violate(f"seed {seed}: {damage} was not refused at load")
    if shelf.refusal() is not None:
        outcome.violate("the files were not put back")
    return outcome


def choose(shelf: Shelf, dice: random.Random) -> Damage:
    """A damage to one file, or to two that change places."""
    while True:
        path = dice.choice(shelf.files)
        what = dice.choice(list(_DAMAGES))
        files = _DAMAGES[what](shelf, path, dice)
        if files is not None and any(data != shelf.whole[file] for file, data in files.items()):
            return Damage(what, files)


def _flip(shelf: Shelf, path: Path, dice: random.Random) -> Files | None:
    return {path: flipped(shelf.whole[path], dice)} if shelf.whole[path] else None


def _overwrite(shelf: Shelf, path: Path, dice: random.Random) -> Files | None:
    return {path: overwritten(shelf.whole[path], dice)} if shelf.whole[path] else None


def _cut(shelf: Shelf, path: Path, dice: random.Random) -> Files | None:
    whole = shelf.whole[path]
    return {path: whole[: dice.randrange(len(whole))]} if whole else None


def _extend(shelf: Shelf, path: Path, dice: random.Random) -> Files:
    return {path: shelf.whole[path] + dice.choice((dice.randbytes, bytes))(dice.randint(1, PAGE))}


def _remove(shelf: Shelf, path: Path, dice: random.Random) -> Files | None:
    return None if path == shelf.record else {path: None}


def _swap(shelf: Shelf, path: Path, dice: random.Random) -> Files:
    other = dice.choice(shelf.files)
    return {path: shelf.whole[other], other: shelf.whole[path]}


def _swap_versions(shelf: Shelf, path: Path, dice: random.Random) -> Files:
    other = shelf.of_other_version(path)
    return {path: shelf.whole[other], other: shelf.whole[path]}


_DAMAGES: dict[str, Callable[[Shelf, Path, random.Random], Files | None]] = {
    "flip": _flip,
    "overwriting": _overwrite,
    "truncation": _cut,
    "extension": _extend,
    "deletion": _remove,
    "swap": _swap,
    "swap with another version": _swap_versions,
}


def flipped(data: bytes, dice: random.Random) -> bytes:
    """One bit is another."""
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def overwritten(data: bytes, dice: random.Random) -> bytes:
    """Some bytes are others, or zero."""
    place = dice.randrange(len(data))
    length = min(dice.randint(1, LONGEST_RUN), len(data) - place)
    return data[:place] + dice.choice((dice.randbytes, bytes))(length) + data[place + length :]
