"""Numbers that a worker counts up in a file of its own, mapped into memory, and that every worker can add up.

One counted step is one addition in memory. A file is slots of 256 bytes: the number (float64), the length of the key
(uint16), the key. The key is written before its length, so that whoever reads sees a slot whole or not at all.

The files are in memory and have no name: whoever replaces a worker that has died counts on in its file, and the last
process to end takes them with it, however it ends.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

SLOT_BYTES, SLOTS = 256, 4096
_LENGTH = struct.Struct("<H")
_NUMBER_BYTES = 8
_STRIDE = SLOT_BYTES // _NUMBER_BYTES
SUM = "sum"
OPEN = ("open",)
"""The key of what is no count: how many connections the process has now."""

Key = tuple[str, ...]
"""The name, then the values of its labels."""


def new_file() -> int:
    """The descriptor of an empty file for one worker. Raises OSError."""
    file = os.memfd_create("shortlist-counts")
    os.truncate(file, SLOT_BYTES * SLOTS)
    return file


class Counts:
    """The numbers of this process; with files, those of all processes that were given the same ones."""

    def __init__(self, files: Sequence[int] = (), own: int = 0) -> None:
        """`files` are descriptors, see `new_file`; `own` is the place of the one in which only this process counts."""
        self._maps = [mmap.mmap(file, SLOT_BYTES * SLOTS) for file in files or (-1,)]
        self._map = self._maps[own]
        self._lock = threading.Lock()
        self._slots = {key: slot for slot, (key, _) in enumerate(_counted(self._map))}
        self.numbers = memoryview(self._map).cast("d")[::_STRIDE]
        """By slot. For the one thread that counts a number; where there are several: `add`."""
        self._open = self.slot(OPEN)  # the first of every file, so that all know where it is
        self.tell_open(0)  # of whoever counted here before
        self._others = [memoryview(each).cast("d") for each in self._maps if each is not self._map]

    def slot(self, key: Key) -> int:
        """Where the number with this key is."""
        with self._lock:
            found = self._slots.get(key)
            if found is None:
                found = len(self._slots)
                text = msgspec.json.encode(key)
                at = found * SLOT_BYTES + _NUMBER_BYTES
                assert found < SLOTS and len(text) <= SLOT_BYTES - _NUMBER_BYTES - _LENGTH.size, key
                self._map[at + _LENGTH.size : at + _LENGTH.size + len(text)] = text
                _LENGTH.pack_into(self._map, at, len(text))
                self._slots[key] = found
            return found

    def add(self, slot: int, amount: float) -> None:
        """Count a number up. Several threads may."""
        with self._lock:
            self.numbers[slot] += amount

    def tell_open(self, connections: int) -> None:
        """Let the other processes know how many connections this one has."""
        self.numbers[self._open] = connections

    def open_connections(self) -> int:
        """How many connections all processes have; of one that has died, until another counts on in its file."""
        return int(self.numbers[self._open] + sum(other[self._open * _STRIDE] for other in self._others))

    def is_ahead(self, uncounted: int) -> bool:
        """Another process has fewer connections, by more than it matters, than this one with some not counted yet."""
        least = min((other[self._open * _STRIDE] for other in self._others), default=math.inf)
        return self.numbers[self._open] + uncounted > least + 1 + least / 8

    def totals(self) -> dict[Key, float]:
        """Every number by its key, over all processes."""
        found: dict[Key, float] = defaultdict(float)
        for counted in self._maps:
            for key, number in _counted(counted):
                if key != OPEN:
                    found[key] += number
        return found


def _counted(file: mmap.mmap) -> Iterator[tuple[Key, float]]:
    """Every key of a file and its number, in the order of slots."""
    for at in range(0, len(file), SLOT_BYTES):
        begin = at + _NUMBER_BYTES + _LENGTH.size
        (length,) = _LENGTH.unpack_from(file, begin - _LENGTH.size)
        if length == 0:
            return
        key = msgspec.json.decode(file[begin : begin + length], type=Key)
        yield key, struct.unpack_from("d", file, at)[0]


class Counter:
    """A number, or one for each combination of labels, that only grows."""

    def __init__(self, counts: Counts, name: str, words: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._counts, self._words, self._labels = counts, words, tuple(labels)
        self._slots: dict[Key, int] = {}
        if not labels:
            self.inc(0)  # a number that is always there, also before anything has happened

    def inc(self, amount: float = 1.0, *values: str) -> None:
        """Count up by an amount; `values` are those of the labels."""
        self._counts.add(self.slot(*values), amount)

    def slot(self, *values: str) -> int:
        """Where the number for these values of the labels is."""
        slot = self._slots.get(values)
        if slot is None:
            slot = self._slots[values] = self._counts.slot((self.name, *values))
        return slot

    def family(self, totals: dict[Key, float]) -> CounterMetricFamily:
        """In the form that is exposed."""
        found = CounterMetricFamily(self.name, self._words, labels=self._labels)
        for key, number in totals.items():
            if key[0] == self.name:
                found.add_metric(key[1:], number)
        return found


class Histogram:
    """How often something took how long, by a label."""

    def __init__(self, counts: Counts, name: str, words: str, label: str, bounds: Sequence[float]) -> None:
        """`bounds`: upper ends of the buckets, in seconds, rising; there is one more for all that took longer."""
        self.name = name
        self._counts, self._words, self._label, self._bounds = counts, words, label, tuple(bounds)
        self._slots: dict[str, list[int]] = {}

    def observe(self, seconds: float, value: str) -> None:
        """Count one duration; `value` is that of the label. Only for one thread."""
        slots = self._slots.get(value)
        if slots is None:
            parts = (SUM, *map(str, range(len(self._bounds) + 1)))
            slots = self._slots[value] = [self._counts.slot((self.name, value, part)) for part in parts]
        numbers = self._counts.numbers
        numbers[slots[0]] += seconds
        numbers[slots[1 + bisect_left(self._bounds, seconds)]] += 1.0

    def family(self, totals: dict[Key, float]) -> HistogramMetricFamily:
        """In the form that is exposed: each bucket has all that took no longer."""
        found = HistogramMetricFamily(self.name, self._words, labels=[self._label])
        names = [*map(repr, self._bounds), "+Inf"]
        for value in dict.fromkeys(key[1] for key in totals if key[0] == self.name):
            buckets, so_far = [], 0.0
            for number, bound in enumerate(names):
                so_far += totals.get((self.name, value, str(number)), 0.0)
                buckets.append((bound, so_far))
            found.add_metric([value], buckets, totals.get((self.name, value, SUM), 0.0))
        return found
