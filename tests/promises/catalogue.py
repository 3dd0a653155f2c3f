"""The promises, the techniques that try to break each, and how much of each a whole soak is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from promises.outcome import Outcome

Run = Callable[[int, int, Path], Outcome]


class Technique(NamedTuple):
    """One way of trying, in batches; each batch is a process of its own."""

    name: str
    place: str
    """module.function; called with a seed, a number of trials and an empty folder."""
    trials: int | None
    """In a whole soak; None: every one that there is."""
    batch: int
    """Trials in one process: a minute or two."""
    minutes: float
    """No new batch is begun after this long."""
    is_alone: bool = False
    """True when times are measured, so that nothing else may run."""

    @property
    def module(self) -> str:
        return self.place.partition(".")[0]

    def load(self) -> Run:
        found: Run = getattr(importlib.import_module(f"promises.{self.module}"), self.place.partition(".")[2])
        return found


class Promise(NamedTuple):
    """What is promised, and how it is tried."""

    number: int
    words: str
    test: str
    """The test file."""
    techniques: tuple[Technique, ...]


ALL_AT_ONCE: Final = 10_000
"""More than there are of what can be counted."""

PROMISES: Final = (
    Promise(
        1,
        "A crash at any instant of build, gate, cutover, rollback, holds, retire or transfer leaves the old version or"
        " the new one, and the next run needs no repair",
        "tests/promises/test_crashes.py",
        (
            Technique("crash points", "crash_points.run", None, ALL_AT_ONCE, 10),
            Technique("transfer points", "transfer_points.run", None, ALL_AT_ONCE, 20),
            Technique("random kills", "random_kills.run", 10_000, 250, 60),
            Technique("system calls", "system_calls.run", None, ALL_AT_ONCE, 15),
        ),
    ),
    Promise(
        2,
        "What was acknowledged survives a power cut, on a file system that honours fsync; every place that syncs is"
        " needed",
        "tests/promises/test_power_cuts.py",
        (Technique("power cuts", "power_cuts.run", 6_000_000, 200_000, 60),),
    ),
    Promise(
        3,
        "No answer mixes two versions and no request fails through cutover and rollback",
        "tests/promises/test_flips_over_http.py",
        (
            Technique("flips over HTTP", "flips_over_http.run", 10_000, 250, 60, is_alone=True),
            Technique("latency", "flips_over_http.run_steady", 30_000, 5_000, 20, is_alone=True),
        ),
    ),
    Promise(
        4,
        "Corrupt bytes are never served: refused at load; with that check switched off, a record's own checksum gives"
        " the right list or none",
        "tests/promises/test_corruption.py",
        (
            Technique("corruption", "corruption.run", 1_000_000, 50_000, 60),
            Technique("damaged records", "damaged_records.run", 1_000_000, 50_000, 60),
        ),
    ),
    Promise(
        5,
        "A rollback takes less than a second to the last worker and copies nothing; the command less than 0.3 s",
        "tests/promises/test_rollback_time.py",
        (Technique("rollback", "rollback_time.run", 50, 50, 10, is_alone=True),),
    ),
    Promise(
        6,
        "Retention never removes what a live process uses, what is current or what rollback goes to, needs no clock for"
        " that, and never fails a publish",
        "tests/promises/test_schedules.py",
        (Technique("schedules", "schedules.run", 20_000, 500, 90),),
    ),
    Promise(
        7,
        "The same inputs give the same bytes, whatever the partitioning and however often a task is tried",
        "tests/promises/test_same_bytes.py",
        (
            Technique("attempts", "same_bytes.run", 2_000, 500, 10),
            Technique("Spark builds", "same_bytes.run_builds", 8, 8, 10),
        ),
    ),
    Promise(
        8,
        "Time to live is exact, at each reading, under a clock that jumps",
        "tests/promises/test_time_to_live.py",
        (
            Technique("questions", "time_to_live.run", 1_000_000, 250_000, 10),
            Technique("answers", "time_to_live.run_answers", 50_000, 25_000, 10),
        ),
    ),
    Promise(
        9,
        "Nothing leaks, however often a server flips: descriptors, maps and memory stay flat",
        "tests/promises/test_leaks.py",
        (
            Technique("flips in process", "leaks.run", 10_000, 10_000, 20),
            Technique("flips of a worker", "leaks.run_server", 1_000, 1_000, 20),
        ),
    ),
    Promise(
        10,
        "Of publishers at once one wins and the others are told; a dead or stopped one holds nothing up",
        "tests/promises/test_rivals.py",
        (
            Technique("races of eight", "rivals.run", 500, 100, 20),
            Technique("stopped publishers", "rivals.run_stopped", None, ALL_AT_ONCE, 10),
        ),
    ),
    Promise(
        11,
        "Whatever is sent gets an answer that the OpenAPI document knows, never a 5xx; a 4xx names the field, no user"
        " stands in the log, and memory stays flat",
        "tests/promises/test_fuzz.py",
        (
            Technique("fuzzed requests", "fuzz.run", 10_000_000, 50_000, 240),
            Technique("memory under fuzz", "fuzz.run_long", 500_000, 500_000, 30),
        ),
    ),
)


def technique_named(name: str) -> Technique:
    """The technique of that name; raises KeyError."""
    return {technique.name: technique for promise in PROMISES for technique in promise.techniques}[name]
