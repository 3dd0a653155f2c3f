"""Promise 4 with the load check switched off: a damaged shard gives the right list or none, but never a wrong one.

Nothing is left then but the checksum in each record, which binds it to its user and to the inputs of its version. LMDB
trusts its files: it may overlook a user in a damaged tree, and it may crash; so the reading is done in children that it
may kill, and both are counted.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from prediction_store import layout
from prediction_store.errors import StoreError
from prediction_store.reader import Version
from prediction_store.shards import open_shard
from promises.corruption import flipped, overwritten
from promises.outcome import Outcome
from promises.steps import in_child
from promises.tiny_store import HOUR, MADE_AT, write_version
from schemas.errors import DamagedRecordError

ITEMS: Final = 1000
LONG, SHORT = 24, 150
"""Users with a thousand candidates, a page each, and users with five, of which many share a page."""
PAGE = 4096
TRIALS_OF_A_CHILD = 500
OPENED_ANEW = 20
"""One of so many children opens the version after each damage; the others have it open all the time."""
SECONDS_OF_A_CHILD = 300
READ_ANYWAY = 4
"""Users that are read after each damage, beside those whose record it hit."""
RIGHT, MISSING, REFUSED, WRONG, REFUSED_AT_LOAD = range(5)
VERDICTS = ("right", "missing", "refused", "wrong", "refused at load")
_TALLY = struct.Struct(f"{1 + len(VERDICTS)}q")


class Shelf:
    """A version whose shard is damaged, and another one with other lists of the same users."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "store"
        self.lists, self.other_lists = _lists(1), _lists(2)
        other, self.name = (
            write_version(self.root, inputs, MADE_AT + HOUR * number, lists=lists, n_items=ITEMS)
            for number, (inputs, lists) in enumerate({"other": self.other_lists, "this": self.lists}.items())
        )
        self.path = layout.version_path(self.root, self.name) / layout.shard_file(0)
        self.path.chmod(0o644)
        self.whole = self.path.read_bytes()
        self.other_whole = (layout.version_path(self.root, other) / layout.shard_file(0)).read_bytes()
        self.users = list(self.lists)
        self.places = self._find_records()

    def hit_by(self, first: int, last: int) -> list[str]:
        """The users whose record has a byte in that part of the file."""
        return [user for user, (begin, end) in self.places.items() if begin <= last and first < end]

    def _find_records(self) -> dict[str, tuple[int, int]]:
        """Where each user's record lies in the file."""
        places = {}
        with open_shard(self.path) as shard, shard.begin() as transaction:
            for key, record in transaction.cursor():
                begin = self.whole.index(record)
                places[key.decode()] = (begin, begin + len(record))
        return places


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Try that many damages to a shard, and read lists; the counts say how the lists came out."""
    outcome = Outcome()
    shelf = Shelf(folder)
    memory = mmap.mmap(-1, _TALLY.size)
    child = 0
    while outcome.tried < trials:
        first = outcome.tried
        todo = range(first, min(trials, first + TRIALS_OF_A_CHILD))
        memory[:] = bytes(_TALLY.size)
        is_anew = child % OPENED_ANEW == 0
        code = in_child(lambda: read_damaged(shelf, seed, todo, memory, is_anew=is_anew))  # noqa: B023 it runs here
        done, *found = _TALLY.unpack(memory)
        outcome.tried += done
        outcome.count("opened anew after the damage", done if is_anew else 0)
        for verdict, number in zip(VERDICTS, found, strict=True):
            outcome.count(f"lists {verdict}", number)
        for _ in range(found[WRONG]):
            outcome.violate(f"seed {seed}, trials {first} to {first + done}: a wrong list")
        if code in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGALRM):
            outcome.tried += 1
            outcome.count(f"LMDB ended by {signal.Signals(-code).name}")
            shelf.path.write_bytes(shelf.whole)
        elif code != 0:
            outcome.violate(f"seed {seed}, trial {first + done}: the child ended with {code}")
            return outcome
        child += 1
    return outcome


def read_damaged(shelf: Shelf, seed: int, todo: range, memory: mmap.mmap, *, is_anew: bool) -> None:
    """For a child: one damage after the other, each followed by reading lists."""
    signal.alarm(SECONDS_OF_A_CHILD)  # a damaged tree may have no end
    found = [0] * len(VERDICTS)
    file = os.open(shelf.path, os.O_RDWR)
    opened = None if is_anew else Version.open(shelf.root, shelf.name, verify=False)
    for number, trial in enumerate(todo):
        dice = random.Random(f"{seed} {trial}")
        damaged = dice.choice(_DAMAGES)(shelf, dice)
        users = [*_hit(shelf, damaged), *dice.sample(shelf.users, READ_ANYWAY), "nobody"]
        os.pwrite(file, damaged, 0)
        if opened is not None:
            _read(opened, users, shelf, found)
        else:
            try:
                with Version.open(shelf.root, shelf.name, verify=False) as version:
                    _read(version, users, shelf, found)
            except StoreError:  # a canary could not be read
                found[REFUSED_AT_LOAD] += 1
        os.pwrite(file, shelf.whole, 0)
        memory[:] = _TALLY.pack(number + 1, *found)


def _read(version: Version, users: list[str], shelf: Shelf, found: list[int]) -> None:
    for user in users:
        try:
            read = version.read(user)
        except DamagedRecordError:
            found[REFUSED] += 1
            continue
        wanted = shelf.lists.get(user)
        if read is None:
            found[MISSING if wanted is not None else RIGHT] += 1
        else:
            is_right = wanted is not None and read.items.tolist() == wanted and read.made_at == MADE_AT
            found[RIGHT if is_right else WRONG] += 1


def _hit(shelf: Shelf, damaged: bytes) -> list[str]:
    """Up to eight users whose record the damage has changed."""
    old, new = (np.frombuffer(data, np.uint8) for data in (shelf.whole, damaged))
    changed = np.flatnonzero(old != new)
    return shelf.hit_by(int(changed[0]), int(changed[-1]))[:8] if changed.size else []


def _flip(shelf: Shelf, dice: random.Random) -> bytes:
    return flipped(shelf.whole, dice)


def _overwrite(shelf: Shelf, dice: random.Random) -> bytes:
    return overwritten(shelf.whole, dice)


def _misplace_page(shelf: Shelf, dice: random.Random) -> bytes:
    """A page stands in the place of another, as when a disk writes to the wrong address."""
    source, target = (dice.randrange(len(shelf.whole) // PAGE) * PAGE for _ in range(2))
    return shelf.whole[:target] + shelf.whole[source : source + PAGE] + shelf.whole[target + PAGE :]


def _page_of_other_version(shelf: Shelf, dice: random.Random) -> bytes:
    """A page of another version, as when a disk has kept what was there before."""
    place = dice.randrange(len(shelf.whole) // PAGE) * PAGE
    return shelf.whole[:place] + shelf.other_whole[place : place + PAGE] + shelf.whole[place + PAGE :]


def _lose_page(shelf: Shelf, dice: random.Random) -> bytes:
    place = dice.randrange(len(shelf.whole) // PAGE) * PAGE
    return shelf.whole[:place] + bytes(PAGE) + shelf.whole[place + PAGE :]


_DAMAGES: list[Callable[[Shelf, random.Random], bytes]] = [
    _flip, _flip, _flip, _overwrite, _misplace_page, _page_of_other_version, _lose_page,
]  # fmt: skip


def _lists(seed: int) -> dict[str, list[int]]:
    dice = random.Random(seed)
    lengths = {f"user-{number:03d}": ITEMS if number < LONG else 5 for number in range(LONG + SHORT)}
    return {user: dice.sample(range(ITEMS), length) for user, length in lengths.items()}
