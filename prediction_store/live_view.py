"""The live facts as arrays over a version's dense indexes: what a request looks into."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from prediction_store.columns import Column, with_told
from prediction_store.errors import DamagedFactsError
from prediction_store.live_environment import State
from prediction_store.live_items import Entry, LiveItems
from prediction_store.version import Version
from schemas.errors import ShortlistError
from schemas.live_items import NOTHING_SET, TEXTS, ItemFacts

KEPT_VIEWS: Final = 3
"""Of the version that is served, the one before, and the one that is about to be."""
AS_THE_VERSION_SAYS: Final = -1

Test = Callable[[Callable[[str], Column], npt.NDArray[np.uint32]], npt.NDArray[np.bool_]]
"""Of columns by name, and of items, uint32[n]: for which of them it holds, bool[n]."""


class LiveView:
    """The live facts about the items of one version. Changes in place, at the next `LiveViews.view` of that version.

    Arrays have one place for each item of the version, in dense order.
    """

    def __init__(self, version: Version) -> None:
        count = version.n_items
        self.number = 0
        """Of the last change that has been read; 0: none."""
        self.stocked: npt.NDArray[np.bool_] = version.in_stock.copy()
        """bool[n]: in stock, as the live facts say or else the version."""
        self.shown = self.stocked.copy()
        """bool[n]: in stock and not hidden, all things considered but `available_until`."""
        self.in_stock = np.full(count, AS_THE_VERSION_SAYS, np.int8)
        """int8[n]: 1 in stock, 0 out of stock, -1 as the version says."""
        self.hidden = np.zeros(count, np.bool_)
        """bool[n]"""
        self.available_until: npt.NDArray[np.float64] | None = None
        """float64[n], inf where there is no end; None: nowhere."""
        self.arrivals: dict[str, ItemFacts] = {}
        """By id: what is set for items that the version lacks, if they are in stock and not hidden."""
        self.price: npt.NDArray[np.floating] | None = None
        """float[n], as exact as the version's, so that a rule says the same of what has not changed: as the live facts
        say or else the version, NaN where nobody does; None: as the version says."""
        self._told: dict[str, dict[int, str]] = {name: {} for name in TEXTS}
        """By column, then by dense index: what is set for items of which the version does not say it."""
        self._with_told: dict[str, Column] = {}
        """The columns of which something is told."""
        self._tests: dict[str, tuple[Test, npt.NDArray[np.bool_]]] = {}
        """By name, what is known beforehand of all items."""

    def eligible(self, items: npt.NDArray[np.uint32], now: float) -> npt.NDArray[np.bool_]:
        """bool[m]: which of the items may be shown at a time."""
        return self.until(self.shown[items], items, now)

    def until(self, shown: npt.NDArray[np.bool_], items: npt.NDArray[np.uint32], now: float) -> npt.NDArray[np.bool_]:
        """bool[m]: `shown`, written over: which of these shown items are still available."""
        if self.available_until is not None:
            shown &= self.available_until[items] > now
        return shown

    def column(self, version: Version, name: str) -> Column:
        """A column of the version as `Version.column` gives it, with what the live facts say.

        They say what items cost and whether they are in stock now; and what an item is, where the version does not.

        Requires: the version is the view's own.
        """
        if name == "in_stock":
            return self.stocked
        if name == "price" and self.price is not None:
            return self.price
        if name in self._with_told:
            return self._with_told[name]
        found: Column = version.column(name)
        return found

    def keep(self, version: Version, name: str, test: Test) -> None:
        """Try a test on all items, and from now on again on those whose facts change.

        Requires: the version is the view's own, and the test knows nothing but the columns.
        """
        every = np.arange(version.n_items, dtype=np.uint32)
        self._tests[name] = test, test(partial(self.column, version), every)

    def kept(self, name: str) -> npt.NDArray[np.bool_] | None:
        """bool[n]: for which items the test of that name holds; None: it is not kept."""
        found = self._tests.get(name)
        return None if found is None else found[1]

    def with_tests_of(self, other: LiveView, version: Version) -> LiveView:
        """This view, with the tests that another one of the same version keeps."""
        for name, (test, _) in other._tests.items():
            self.keep(version, name, test)
        return self

    @property
    def n_hidden(self) -> int:
        """Items of the version that are hidden."""
        return int(np.count_nonzero(self.hidden))

    @property
    def n_out_of_stock(self) -> int:
        """Items of the version that are out of stock since it was built."""
        return int(np.count_nonzero(self.in_stock == 0))

    def put(self, version: Version, entries: Iterable[Entry]) -> DamagedFactsError | None:
        """Take over the facts of some items.

        Returns: the error of an item whose facts are damaged, if there is one; what was known of it stays.
        """
        problem, known = None, dict[int, ItemFacts | None]()
        entries = list(entries)
        for index, (key, facts) in zip(version.indexes_of_keys([key for key, _ in entries]), entries, strict=True):
            if isinstance(facts, DamagedFactsError):
                problem = facts
            elif index is not None:
                self._put(version, index, facts)
                known[index] = facts
            else:
                self._put_arrival(key.decode("utf-8", "replace"), facts)
        self._tell(version, known)
        changed = np.array([*known], np.uint32)
        for test, holds in self._tests.values():
            holds[changed] = test(partial(self.column, version), changed)
        return problem

    def _put_arrival(self, item: str, facts: ItemFacts | None) -> None:
        if facts is not None and facts.in_stock is True and facts.hidden is not True:
            self.arrivals[item] = facts
        else:
            self.arrivals.pop(item, None)

    def _put(self, version: Version, index: int, facts: ItemFacts | None) -> None:
        found = NOTHING_SET if facts is None else facts
        in_stock = bool(version.in_stock[index]) if found.in_stock is UNSET else found.in_stock
        self.stocked[index] = in_stock
        self.in_stock[index] = AS_THE_VERSION_SAYS if found.in_stock is UNSET else found.in_stock
        self.hidden[index] = found.hidden is True
        self.shown[index] = in_stock and found.hidden is not True
        # Not before there is one: eight bytes for each item of a large catalogue, twice.
        if self.available_until is None and found.available_until is not UNSET:
            self.available_until = np.full(len(self.shown), np.inf)
        if self.available_until is not None:
            self.available_until[index] = np.inf if found.available_until is UNSET else found.available_until
        prices = version.numbers("price")
        if self.price is None and found.price is not UNSET and prices is not None:
            self.price = np.array(prices)
        if self.price is not None and prices is not None:
            self.price[index] = prices[index] if found.price is UNSET else found.price

    def _tell(self, version: Version, known: Mapping[int, ItemFacts | None]) -> None:
        """Take over what some items are, where the version does not say it."""
        for name, told in self._told.items():
            texts = ((index, UNSET if facts is None else getattr(facts, name)) for index, facts in known.items())
            said = {index: text for index, text in texts if text is not UNSET}
            column = version.texts(name)
            if column is None:
                continue
            of_version = column.texts([*said]) if said else []
            after = {index: said[index] for index, text in zip(said, of_version, strict=True) if not text}
            before = {index: told.pop(index) for index in told.keys() & known.keys()}
            told.update(after)
            if after != before:
                self._with_told[name] = with_told(column, {**told})


class _Kept:
    """A view, and up to where it has been read."""

    __slots__ = ("problem", "state", "view")

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self.state: State | None = None
        """None: nothing has been read yet, or nothing has ever been set."""
        self.problem: DamagedFactsError | None = None


class LiveViews:
    """The live facts as arrays, kept up to date. Any number of threads may ask.

    Never fails for facts that are damaged or cannot be read: what was known last goes on serving, or the version alone,
    and `last_error` says why.
    """

    def __init__(self, live: LiveItems) -> None:
        self.live = live
        self.failures = 0
        """How often reading has failed so far."""
        self.last_error: ShortlistError | None = None
        """What was wrong when facts were last read; None: nothing."""
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def view(self, version: Version) -> LiveView:
        """The facts as they are now. Cost: a few µs when nothing has changed, else some for each item that has.

        Requires: the version stays open until this returns.
        """
        with self._lock:
            kept = self._kept.get(version.name)
            if kept is None:
                kept = self._keep(version, _Kept(LiveView(version)))
            try:
                if self.live.state() != kept.state:
                    self._read(kept, version)
                self.last_error = kept.problem
            except ShortlistError as error:
                self.failures += 1
                self.last_error = error
            return kept.view

    def prepare(self, version: Version) -> None:
        """Read the facts for a version that is about to be served, in a thread, while requests go on with another.

        Requires: the version stays open until this returns.
        """
        with self._lock:
            if version.name in self._kept:
                return
        kept = _Kept(LiveView(version))
        after, is_over = b"", False
        while not is_over:
            try:
                reading = self.live.read_some(after)
            except ShortlistError:
                return  # `view` will meet it, too, and report it
            if not after:  # what changes from here on is for `view` to read
                kept.state, kept.view.number = reading.state, reading.number
            kept.problem = kept.view.put(version, reading.entries) or kept.problem
            is_over = reading.is_whole
            after = reading.entries[-1][0] if reading.entries else after
        with self._lock:
            self.failures += kept.problem is not None
            self._keep(version, kept)

    def _keep(self, version: Version, kept: _Kept) -> _Kept:
        self._kept.pop(version.name, None)
        self._kept[version.name] = kept  # the last one in
        while len(self._kept) > KEPT_VIEWS:
            self._kept.pop(next(iter(self._kept)))
        return kept

    def _read(self, kept: _Kept, version: Version) -> None:
        reading = self.live.read(since=None if kept.state is None else kept.view.number)
        # Another file may have been put in the place of the one that was read: its numbers say nothing.
        if not reading.is_whole and reading.state[:2] != kept.state[:2]:  # type: ignore[index] # neither is None then
            reading = self.live.read()
        is_empty = kept.state is None and not kept.view.number
        view = kept.view if is_empty or not reading.is_whole else LiveView(version).with_tests_of(kept.view, version)
        kept.problem = view.put(version, reading.entries)
        kept.view, kept.state, view.number = view, reading.state, reading.number
        if kept.problem is not None:
            self.failures += 1
