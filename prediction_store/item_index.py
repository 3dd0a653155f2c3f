"""The index of a catalogue, an LMDB file: item id → dense index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prediction_store import layout
from prediction_store.errors import BuildError
from prediction_store.shards import INDEX_VALUE, open_shard, write_shard
from schemas.record import MAX_KEY_BYTES, is_key


class ItemIndex:
    """Finds dense indexes. Any number of threads may look at once; none may once it is closed.

    Transactions are kept and lent, as in `lookups`.
    """

    def __init__(self, path: Path) -> None:
        self._environment = open_shard(path)
        self._idle: list[Callable[[bytes], bytes | memoryview | None]] = []

    def find(self, keys: Sequence[bytes]) -> list[int | None]:
        """The dense indexes of the items whose ids, in UTF-8, are the keys; None: not in the catalogue."""
        try:
            get = self._idle.pop()
        except IndexError:
            get = self._environment.begin(buffers=True).get
        unpack = INDEX_VALUE.unpack
        values = [get(key) if key else None for key in keys]  # LMDB refuses an empty key
        found = [None if value is None else unpack(value)[0] for value in values]
        self._idle.append(get)
        return found

    def close(self) -> None:
        """Close the file; that ends the transactions in it. Requires: nobody is looking."""
        self._idle.clear()
        self._environment.close()


def write_item_index(folder: Path, ids: Sequence[str]) -> None:
    """Write the index into the version's folder.

    Args:
        ids: in dense order; 1 to 511 bytes in UTF-8, each once.

    Raises:
        BuildError: one cannot be an id, or is there twice.
    """
    keys = [_item_key(item) for item in ids]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    write_shard(
        folder / layout.ITEM_INDEX,
        ((keys[index], INDEX_VALUE.pack(index)) for index in order),
        expected_bytes=sum(map(len, keys)) + INDEX_VALUE.size * len(keys),
    )


def _item_key(item: str) -> bytes:
    try:
        key = item.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BuildError(f"item id {item!r} is not text: {error.reason}") from error
    if not is_key(key):
        raise BuildError(f"an item id of {len(key)} bytes; wanted 1 to {MAX_KEY_BYTES}")
    return key
