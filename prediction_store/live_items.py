"""The live facts about items: what changes within the day, beside the version that does not.

Written in place, by any process, one batch after another. Every change of an item gets a number, so that a reader who
has read everything once needs only the changes since. Facts of items that no version knows are kept: a later one may.
What was set before a change is kept with it, so that an answer can be made again by the facts of then.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from prediction_store.errors import DamagedFactsError, LiveItemsError, NewerFormatError
from prediction_store.live_changes import (
    KEPT_SHARE,
    Replaced,
    changed_since,
    first_number,
    last_number,
    read_back,
    remember,
)
from prediction_store.live_environment import State, Tables, release, share
from prediction_store.live_facts import decode_facts, encode_facts
from schemas.live_items import FACTS, LIVE_ITEMS_FORMAT, ItemChange, ItemFacts, change_facts
from schemas.record import MAX_KEY_BYTES, is_key

MAP_BYTES: Final = 1 << 30
SOME: Final = 1000
"""Items read at a time by a reader who must not keep others waiting."""
FORMAT_KEY: Final = b"format"

Entry = tuple[bytes, ItemFacts | DamagedFactsError | None]
"""An item and its facts; None: nothing is set any more; an error: they are damaged."""


class Reading(NamedTuple):
    """What was read in one consistent state."""

    state: State | None
    """None: nothing has ever been set."""
    number: int
    """Of the last change in it, see `live_changes`; 0: there was none."""
    is_whole: bool
    """True: the entries are all there is. False: they are what has changed since the number asked for."""
    entries: list[Entry]


class LiveItems:
    """The live facts of one store. Any number of threads and processes may read and write.

    Opens nothing before it is used, and makes nothing when it only reads.
    """

    def __init__(self, root: Path, *, map_bytes: int = MAP_BYTES) -> None:
        """`map_bytes` is the room for all facts: address space, not disk."""
        self._environment = share(root, map_bytes)
        self._kept_bytes = map_bytes // KEPT_SHARE
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files. Closing twice is no mistake."""
        if self._is_open:
            self._is_open = False
            release(self._environment)

    def set(self, changes: Sequence[ItemChange], *, now: float) -> list[str]:
        """Apply changes in their order, all or none; the items whose facts are other than before, each once.

        They are durable when this returns, and seen by whoever reads afterwards. To repeat a call is safe.

        Raises:
            LiveItemsError: an id is no key; there is no room; the environment or a value that must be read is damaged.
            NewerFormatError: a later Shortlist has written there.
        """
        keyed = [(_key(change.item), change) for change in changes]
        if not keyed:
            return []
        return self._environment.write(lambda tables: _apply(tables, keyed, now, self._kept_bytes))

    def get(self, item: str) -> ItemFacts | None:
        """The facts that are set for an item; None: there are none.

        Raises:
            LiveItemsError: they are damaged, or the environment is.
        """
        try:
            key = _key(item)
        except LiveItemsError:
            return None
        found = self._environment.read(lambda tables: _get(tables, key))
        return None if found is None else found[1]

    def state(self) -> State | None:
        """What is other after each change; None: nothing has ever been set. Cost: a few µs."""
        return self._environment.state()

    def read(self, since: int | None = None) -> Reading:
        """All facts, or those of the items that have changed since the change of that number, if that is remembered.

        Raises:
            LiveItemsError: the environment is damaged. A damaged value is an entry, and no reason to stop.
            NewerFormatError: a later Shortlist has written there.
        """
        found = self._environment.read(lambda tables: _read(tables, since))
        if found is None:
            return Reading(None, 0, True, [])
        state, (number, is_whole, entries) = found
        return Reading(state, number, is_whole, entries)

    def read_some(self, after: bytes) -> Reading:
        """Facts of the next `SOME` items by id, for who would rather read all in small pieces, then what has changed.

        Raises:
            LiveItemsError, NewerFormatError: as `read`.
        """
        found = self._environment.read(lambda tables: _read_some(tables, after))
        if found is None:
            return Reading(None, 0, True, [])
        state, (number, entries) = found
        return Reading(state, number, len(entries) < SOME, entries)

    def read_back(self, number: int, to: int) -> list[Entry] | None:
        """From the state after one change back to that after an earlier one: what differed then, item by item.

        None: not all changes between the two are remembered.

        Raises:
            LiveItemsError, NewerFormatError: as `read`.
        """
        found = self._environment.read(lambda tables: _read_back(tables, number, to))
        return None if found is None else found[1]


def _apply(tables: Tables, keyed: list[tuple[bytes, ItemChange]], now: float, kept_bytes: int) -> list[str]:
    transaction, facts = tables.transaction, tables.facts
    if _check_format(tables) is None:
        transaction.put(FORMAT_KEY, b"%d" % LIVE_ITEMS_FORMAT)
    before: dict[bytes, ItemFacts | None] = {}
    after: dict[bytes, ItemFacts | None] = {}
    for key, change in keyed:
        if key not in before:
            before[key] = after[key] = None if _clears_all(change) else _get(tables, key)
        after[key] = change_facts(after[key], change, now)
    changed: list[Replaced] = []
    for key in sorted(after):
        found = after[key]
        if found is None:
            value = transaction.pop(key, db=facts)
            if value is not None:
                changed.append((key, bytes(value)))
        elif found is not before[key]:
            value = transaction.replace(key, encode_facts(key, found), db=facts)
            changed.append((key, bytes(value or b"")))
    if changed:
        remember(tables, changed, now, kept_bytes)
    return [key.decode("utf-8") for key, _ in changed]


def _clears_all(change: ItemChange) -> bool:
    """True when the change clears every fact: what is stored, and whether it is damaged, then does not matter."""
    return all(getattr(change, fact) is None for fact in FACTS)


def _read(tables: Tables, since: int | None) -> tuple[int, bool, list[Entry]]:
    if tables.facts is None:
        return 0, True, []
    _check_format(tables)
    number = last_number(tables)
    if since and first_number(tables) <= since <= number:
        keys = dict.fromkeys(changed_since(tables, since))
        return number, False, [_entry(key, tables.transaction.get(key, db=tables.facts)) for key in keys]
    with tables.transaction.cursor(db=tables.facts) as cursor:
        return number, True, [_entry(bytes(key), value) for key, value in cursor]


def _read_some(tables: Tables, after: bytes) -> tuple[int, list[Entry]]:
    if tables.facts is None:
        return 0, []
    _check_format(tables)
    with tables.transaction.cursor(db=tables.facts) as cursor:
        if not cursor.set_range(after + b"\0" if after else b"\0"):
            return last_number(tables), []
        return last_number(tables), [_entry(bytes(key), value) for key, value in islice(cursor, SOME)]


def _read_back(tables: Tables, number: int, to: int) -> list[Entry] | None:
    if tables.before is None:
        return None
    _check_format(tables)
    before = read_back(tables, number, to)
    return None if before is None else [_entry(key, value or None) for key, value in before.items()]


def _get(tables: Tables, key: bytes) -> ItemFacts | None:
    if tables.facts is None:
        return None
    _check_format(tables)
    value = tables.transaction.get(key, db=tables.facts)
    return None if value is None else decode_facts(key, value)


def _entry(key: bytes, value: bytes | memoryview | None) -> Entry:
    try:
        return key, None if value is None else decode_facts(key, value)
    except DamagedFactsError as error:
        return key, error


def _check_format(tables: Tables) -> int | None:
    """The format of what is there; None: nothing is. Raises NewerFormatError when it is not known here."""
    found = tables.transaction.get(FORMAT_KEY)
    if found is None:
        return None
    text = bytes(found).decode("ascii", "replace")
    if not text.isdigit() or int(text) > LIVE_ITEMS_FORMAT:
        message = f"the live facts have format {text[:20]!r}; this Shortlist reads up to {LIVE_ITEMS_FORMAT}"
        raise NewerFormatError(message, hint="upgrade this host")
    return int(text)


def _key(item: str) -> bytes:
    try:
        key = item.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LiveItemsError(f"{item[:64]!r} is not text that can name an item") from error
    if not is_key(key):
        raise LiveItemsError(f"item {item[:64]!r} has {len(key)} bytes in UTF-8; wanted 1 to {MAX_KEY_BYTES}")
    return key
