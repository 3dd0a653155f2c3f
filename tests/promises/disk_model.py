"""A disk as a power cut leaves it: what was synced is there, of everything else anything may be.

What is assumed of the file system, and nothing more:

- The bytes of a file are safe once the file has been synced after its last change. Until then it may be empty, cut off,
  full of zeros, of garbage, as it was before, or whole.
- The names in a folder are safe once the folder has been synced after their last change. Until then each change (a file
  or folder made, linked, renamed, removed) may have reached the disk or not, independently of every other change,
  earlier or later, in this folder or another. A file that was synced may have no name, a folder that was made no
  entries, and a removal may have taken some files of a folder and not the others.
- One change is whole: a renamed thing has the old name or the new one.
- A sync that reports success has worked. Modes and times do not matter.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

Names = dict[str, int]
"""The entries of a folder: name to inode."""
Tree = dict[str, int]
"""A disk as a reader sees it: path of each file to the number of its content, and of each empty folder to `EMPTY`."""
EMPTY = -1


class NamesChanged(NamedTuple):
    """Names given and taken in one folder, all of them or none."""

    folder: int
    names: tuple[tuple[str, int | None], ...]
    """Each name, and the inode that has it from now on; None: nothing has."""
    made: tuple[int, ...]
    """Which of those inodes are new folders."""


class BytesChanged(NamedTuple):
    """A file's bytes as a process sees them from now on."""

    file: int
    content: int


class Synced(NamedTuple):
    """A file or a folder that is being synced, and the place in the code that does it."""

    inode: int
    site: str


class _Drawn(NamedTuple):
    """One way in which everything may have come out."""

    folders: dict[int, Names]
    files: dict[int, int]


class Contents:
    """Every content that a file has had or may have, numbered."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._bytes: list[bytes] = []
        self._wrecks: dict[int, list[int]] = {}

    def number(self, data: bytes) -> int:
        """The number of a content; equal bytes have the same one."""
        found = self._numbers.setdefault(data, len(self._bytes))
        if found == len(self._bytes):
            self._bytes.append(data)
        return found

    def bytes_of(self, number: int) -> bytes:
        return self._bytes[number]

    def wrecks_of(self, number: int) -> list[int]:
        """What a file may hold that was to hold this content and was not synced, the content itself among it."""
        if number not in self._wrecks:
            whole = self._bytes[number]
            half = len(whole) // 2
            wrecks = [b"", whole[:half], whole[:half] + bytes(len(whole) - half), bytes(len(whole)),
                      bytes(byte ^ 0xA5 for byte in whole), whole]  # fmt: skip
            self._wrecks[number] = list(dict.fromkeys(map(self.number, wrecks)))
        return self._wrecks[number]


class Disk:
    """What is safe, and what is not yet."""

    def __init__(self, root: int, folders: dict[int, Names], files: dict[int, int], contents: Contents) -> None:
        self._root = root
        self._folders = {folder: dict(names) for folder, names in folders.items()}
        self._files = dict(files)
        self._contents = contents
        self._unsure_names: dict[int, list[NamesChanged]] = {}
        """By folder, in the order in which they were made."""
        self._unsure_bytes: dict[int, list[int]] = {}
        """By file: the numbers of what it may hold."""

    def apply(self, event: NamesChanged | BytesChanged | Synced) -> None:
        """Let something happen."""
        if isinstance(event, NamesChanged):
            for folder in event.made:
                self._folders.setdefault(folder, {})
            self._unsure_names.setdefault(event.folder, []).append(event)
        elif isinstance(event, BytesChanged):
            before = self._unsure_bytes.get(event.file, [self._files[event.file]] if event.file in self._files else [])
            wrecks = self._contents.wrecks_of(event.content)
            self._unsure_bytes[event.file] = list(dict.fromkeys([*before, *wrecks]))
            self._files[event.file] = event.content
        elif event.inode in self._folders:
            for change in self._unsure_names.pop(event.inode, []):
                _rename(self._folders[event.inode], change)
        else:
            self._unsure_bytes.pop(event.inode, None)

    def copy(self) -> Disk:
        """The same disk, to which other things may happen."""
        other = Disk(self._root, self._folders, self._files, self._contents)
        other._unsure_names = {folder: list(changes) for folder, changes in self._unsure_names.items()}
        other._unsure_bytes = dict(self._unsure_bytes)
        return other

    @property
    def freedom(self) -> int:
        """How many ways there are to choose what a power cut leaves; some of them leave the same."""
        changes = sum(map(len, self._unsure_names.values()))
        return (1 << changes) * math.prod(map(len, self._unsure_bytes.values()))

    def states(self, limit: int, dice: random.Random) -> Iterator[Tree]:
        """Disks that a power cut may leave now: every one if there are at most `limit`, else extremes and a sample."""
        changes = [(folder, change) for folder, made in self._unsure_names.items() for change in made]
        files = list(self._unsure_bytes)
        widths = [2] * len(changes) + [len(self._unsure_bytes[file]) for file in files]
        # A folder that is lost takes all that is in it along, and shows nothing: so it is lost less often.
        is_folder = [bool(change.made) for _, change in changes] + [False] * len(files)
        settled: dict[tuple[int, str], Tree] = {}
        for choice in _choices(widths, is_folder, limit, dice):
            folders = dict(self._folders)
            for folder in self._unsure_names:
                folders[folder] = dict(folders[folder])
            for (folder, change), is_kept in zip(changes, choice, strict=False):
                if is_kept:
                    _rename(folders[folder], change)
            held = dict(self._files)
            for file, number in zip(files, choice[len(changes) :], strict=True):
                held[file] = self._unsure_bytes[file][number]
            tree: Tree = {}
            self._walk(self._root, "", _Drawn(folders, held), tree, settled)
            yield tree

    def _walk(self, folder: int, path: str, drawn: _Drawn, tree: Tree, settled: dict[tuple[int, str], Tree]) -> bool:
        """Put all that is below a folder into the tree. True: nothing of it is unsure, and `settled` keeps it."""
        known = settled.get((folder, path))
        if known is not None:
            tree.update(known)
            return True
        is_settled = folder not in self._unsure_names
        own: Tree = {}
        for name, inode in drawn.folders[folder].items():
            if inode in drawn.folders:
                is_settled &= self._walk(inode, f"{path}{name}/", drawn, own, settled)
            else:
                own[path + name] = drawn.files[inode]
                is_settled &= inode not in self._unsure_bytes
        if not own:
            own[path] = EMPTY
        if is_settled:
            settled[folder, path] = own
        tree.update(own)
        return is_settled


def _rename(names: Names, change: NamesChanged) -> None:
    for name, inode in change.names:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _choices(widths: list[int], is_folder: list[bool], limit: int, dice: random.Random) -> Iterator[tuple[int, ...]]:
    """Ways to choose a number below each width: all, or the extremes, all that is next to them, and random ones."""
    if math.prod(widths) <= limit:
        yield from itertools.product(*map(range, widths))
        return
    lost, kept = (0,) * len(widths), tuple(width - 1 for width in widths)
    near = [
        (*extreme[:place], value, *extreme[place + 1 :])
        for extreme in (kept, lost)
        for place, width in enumerate(widths)
        for value in range(width)
        if value != extreme[place]
    ]
    first = [lost, kept, *near][:limit]
    yield from first
    places = list(zip(widths, is_folder, strict=True))
    for _ in range(limit - len(first)):
        share = dice.choice((0.1, 0.3, 0.5, 0.7, 0.9))
        yield tuple(
            width - 1 if dice.random() < (0.95 if folder else share) else dice.randrange(width)
            for width, folder in places
        )
