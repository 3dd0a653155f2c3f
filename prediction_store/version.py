"""One version, open for reading."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from prediction_store.columns import CategoryColumn, Column, TextColumn
from prediction_store.errors import ClosedVersionError, StoreError
from prediction_store.lists import NO_ITEMS
from prediction_store.near_items import NearItems
from prediction_store.opened import OpenedVersion, open_version, release
from prediction_store.user_tower import StoredTower
from schemas.held import ShardRange
from schemas.manifest import Manifest
from schemas.ranker import RankerWeights
from schemas.record import Candidates, RankedItems


class Version:
    """One sealed version, open for reading. Any number of threads may read; none may once it is closed.

    Arrays and lists that it has given out stay valid after `close`. Open it after forking, never before.
    """

    def __init__(self, opened: OpenedVersion) -> None:
        self._shared: OpenedVersion | None = opened
        self.name: str = opened.manifest.name
        self.manifest: Manifest = opened.manifest
        self.manifest_sha256: str = opened.sealed.sha256
        self.kept: dict[Hashable, Any] = {}
        """What readers have derived from the version, by a key of theirs; arrays of it stay valid after `close`."""
        self._closing = threading.Lock()

    @classmethod
    def open(cls, root: Path, name: str, *, verify: bool = True, manifest_sha256: str | None = None) -> Version:
        """Open a version and take a lease on it: while it is open, `retire` leaves it alone.

        Args:
            verify: hash every file, unless this process has done so already. False: for a process whose parent has.
                Everything else is checked always.
            manifest_sha256: the digest that the history names, if it is known.

        Raises:
            MissingVersionError: it is not there, or is being removed.
            DamagedVersionError: bytes are not the ones that were sealed.
            ForeignVersionError: built for another kind of machine, or of mixed embedding spaces.
            NewerFormatError: written by a later Shortlist.
            DiskError: it may not be read, or too many files are open.
        """
        return cls(open_version(root, name, verify_hashes=verify, manifest_sha256=manifest_sha256))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the files and the lease. Closing twice is no mistake; reading afterwards is."""
        with self._closing:
            opened, self._shared = self._shared, None
        if opened is not None:
            release(opened)

    @property
    def _opened(self) -> OpenedVersion:
        opened = self._shared
        if opened is None:
            raise ClosedVersionError(f"version {self.name} was used after it was closed")
        if opened.is_inherited:
            raise ClosedVersionError(f"version {self.name} was opened before a fork and used after it")
        return opened

    @property
    def held(self) -> ShardRange:
        """The shards of users that this host has: all, or some of them."""
        return self._opened.held

    @property
    def n_items(self) -> int:
        return self.manifest.counts.items

    @property
    def n_users(self) -> int:
        """Rows of the user vectors. Not every user need have a record."""
        return self.manifest.counts.users

    @property
    def dimensions(self) -> int:
        return self.manifest.dimensions

    def read(self, user_id: str) -> Candidates | None:
        """The user's candidates, best first; None: there is no such user. The arrays are copies, valid for ever.

        Raises:
            DamagedRecordError: the record is not as it was written. A wrong list is never returned.
            ShardNotHeldError: the user's shard is on other hosts only.
        """
        opened = self._shared
        if opened is None or opened.is_inherited:  # to ask the property every time would be felt
            opened = self._opened
        try:
            return opened.lookups.read(user_id.encode("utf-8"))
        except UnicodeEncodeError:
            return None

    def keys(self, shard: int) -> Iterator[bytes]:
        """The ids of the users in one shard, as bytes and in their order; the lists are not read.

        Raises:
            ShardNotHeldError: the shard is on other hosts only.
        """
        with self._opened.shard(shard).begin() as transaction:
            yield from transaction.cursor().iternext(keys=True, values=False)

    @property
    def item_vectors(self) -> npt.NDArray[np.float32]:
        """float32[n_items, d], mapped, read-only."""
        return self._opened.item_vectors

    def user_vector(self, row: int) -> npt.NDArray[np.float32]:
        """float32[d] of a user, by the record's `user_row`; mapped, read-only."""
        vector: npt.NDArray[np.float32] = self._opened.user_vectors[row]
        return vector

    def consumed(self, row: int) -> npt.NDArray[np.uint32]:
        """uint32[n]: the items a user must not be shown again, ascending, by the record's `user_row`; mapped."""
        return self._opened.user_facts.consumed(row)

    def segment_of(self, row: int) -> str:
        """The segment of a user, by the record's `user_row`; "" when it has no lists of its own."""
        return self._opened.user_facts.segment(row)

    @property
    def user_tower(self) -> StoredTower | None:
        """What user vectors can be recomputed from, by `user_row`; mapped, read-only. None: the version has none."""
        return self._opened.user_tower

    def item_index(self, item_id: str) -> int | None:
        """The dense index of an item; None: not in the catalogue."""
        return self.indexes_of([item_id])[0]

    def indexes_of(self, item_ids: Sequence[str]) -> list[int | None]:
        """As `item_index`, of many items in one look."""
        # A lone surrogate is no text: with it in it an id becomes a key that nothing has.
        return self._opened.item_indexes([item.encode("utf-8", "surrogatepass") for item in item_ids])

    def indexes_of_keys(self, keys: Sequence[bytes]) -> list[int | None]:
        """The dense indexes of items whose ids, in UTF-8, are the keys; None: not in the catalogue."""
        return self._opened.item_indexes(keys)

    def item_ids(self, indexes: npt.ArrayLike) -> list[str]:
        """The ids of some items, in the order of the indexes. Raises IndexError beyond the catalogue."""
        return self._opened.item_ids.texts(indexes)

    def column(self, name: str) -> Any:
        """An item column: a TextColumn, a CategoryColumn, or an array of numbers (NaN where missing), in dense order.

        Raises:
            StoreError: the version has no such column.
        """
        found: Column | None = self._opened.columns.get(name)
        if found is None:
            raise StoreError(
                f"version {self.name} has no column {name!r}; it has {', '.join(sorted(self._opened.columns))}"
            )
        return found

    def numbers(self, name: str) -> npt.NDArray[Any] | None:
        """A column with a number for each item, NaN where missing; None: the version has no such column of numbers."""
        found = self._opened.columns.get(name)
        return found if isinstance(found, np.ndarray) else None

    def categories(self, name: str) -> CategoryColumn | None:
        """A column of categories; None: the version has no such one."""
        found = self._opened.columns.get(name)
        return found if isinstance(found, CategoryColumn) else None

    def texts(self, name: str) -> TextColumn | CategoryColumn | None:
        """A column of texts or categories; None: the version has no such one."""
        found = self._opened.columns.get(name)
        return found if isinstance(found, (TextColumn, CategoryColumn)) else None

    def titles(self, indexes: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """The titles of some items, in the order of the indexes; "" where nothing says."""
        found = self._opened.columns.get("title")
        return found.texts(indexes) if isinstance(found, TextColumn) else [""] * len(indexes)

    @property
    def in_stock(self) -> npt.NDArray[np.bool_]:
        """bool[n_items], not to be written to: what was in stock when the version was made; all, where nothing says."""
        found = self.numbers("in_stock")
        return np.broadcast_to(np.True_, self.n_items) if found is None else found.astype(np.bool_, copy=False)

    def has_segment(self, segment: str) -> bool:
        """True when the segment has a popular list of its own."""
        return self._opened.lists.has_segment(segment)

    def popular(self, segment: str = "") -> RankedItems:
        """The segment's popular items, best first; everybody's when it has no list of its own."""
        return self._opened.lists.ranked("popular", segment)

    def trending(self, segment: str = "") -> RankedItems:
        """The segment's trending items, best first; everybody's when it has no list of its own."""
        return self._opened.lists.ranked("trending", segment)

    def neighbours(self, index: int) -> RankedItems:
        """The items nearest to an item, nearest first; fewer than the version's usual number in a small catalogue."""
        return self._opened.neighbours.of(index)

    @property
    def every_neighbours(self) -> NearItems:
        """The neighbours of every item, as `neighbours` gives those of one."""
        return self._opened.neighbours

    @property
    def every_together(self) -> NearItems | None:
        """What `together` gives, of every item; None: nothing of any."""
        return self._opened.together

    def together(self, index: int) -> RankedItems:
        """The items most often met in one session with an item, best first; none in a version of an older Shortlist.

        Scores are from 0 to 1: how much of the sessions of the two items are sessions of both.
        """
        together = self._opened.together
        return NO_ITEMS if together is None else together.of(index)

    def context(self, kind: str, value: str) -> npt.NDArray[np.float32] | None:
        """float32[n_items]: how much more often than usual each item is met in a context; mapped, read-only.

        From -1 (half as often, or less) over 0 (as usual, or nothing is known) to 1 (twice as often, or more).

        Args:
            kind: hour, weekday or device.
            value: "0" to "23", UTC; "0" to "6", Monday first; the device as the interactions name it.

        Returns None where the version knows nothing of the context, as those of older Shortlists do of any.
        """
        contexts = self._opened.contexts
        return None if contexts is None else contexts.of(kind, value)

    @property
    def ranker(self) -> RankerWeights:
        return self._opened.ranker
