"""Skew: whether the signals that were served are those that the same code finds again on the same version.

What is learned is only as good as this: a signal that is computed otherwise in training than in serving has the wrong
weight. A sample of logged answers is made again from their versions, and the signals are compared, item by item.
Beside it stands whether they are still spread as where the weights were learned (`stability`).
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prediction_store.errors import MissingVersionError
from prediction_store.live_past import LivePast
from prediction_store.reader import Store, Version
from reranker.answered import numbers
from reranker.arrays import Float32
from reranker.recommend import Reranker
from reranker.replay import config_then, made_again, settings_then, trending_then
from reranker.serving_log.frames import Tail
from reranker.serving_log.reading import read_log
from reranker.serving_log.records import AnswerRecord, ShownItems
from reranker.stability import Drift, drift
from schemas.config import Config, events_folder

TINY = np.float32(np.finfo(np.float32).tiny)
"""The difference of values whose bits differ though they are equal as numbers: 0 and -0."""
RETIRED, UNKNOWN_SETTINGS, NOTHING_SHOWN = "version retired", "settings unknown", "nothing shown"


class SignalSkew(NamedTuple):
    """How the values of one signal compare."""

    name: str
    values: int
    unequal: int
    """Not the same bit for bit."""
    mean: float
    """Of the absolute differences, equal ones included."""
    most: float

    @property
    def share_unequal(self) -> float:
        return self.unequal / self.values if self.values else 0.0


@dataclass(frozen=True, slots=True)
class Skew:
    """What a sample of the log says."""

    answers: int = 0
    """Made again."""
    signals: list[SignalSkew] = field(default_factory=list)
    """In the order of their names."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """Answers of the sample that were not compared, by reason."""
    missing: int = 0
    """Items that were shown and are not in the answer made again: the live facts of then are not kept any more."""
    torn_bytes: int = 0
    """Of torn tails: answers may be in them."""
    drift: Drift | None = None
    """Of the version that most of the sample is of; None: none of them is there."""

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        signals = {of.name: {**of._asdict(), "share_unequal": of.share_unequal} for of in self.signals}
        return {
            "answers": self.answers,
            "missing_items": self.missing,
            "passed_over": self.passed_over,
            "torn_bytes": self.torn_bytes,
            "signals": signals,
            "drift": None if self.drift is None else self.drift.facts(),
        }


def skew(config: Config, answers: int) -> Skew:
    """Make a sample of so many logged answers again, at random but the same for the same log.

    Raises:
        DamagedVersionError, FormatError, DiskError: a version, or the log, cannot be read.
    """
    tails: list[Tail] = []
    by_version: dict[str, list[AnswerRecord]] = defaultdict(list)
    passed_over: Counter[str] = Counter()
    folder, root = Path(events_folder(config.paths)), Path(config.paths.store)
    drawn = sample(folder, answers, tails.append)
    digests = {record.settings for record in drawn}
    known = settings_then(folder, digests)
    configs = {digest: then for digest in digests if (then := config_then(config, digest, known)) is not None}
    for record in drawn:
        if not record.shown.items:
            passed_over[NOTHING_SHOWN] += 1
        elif record.settings not in configs:
            passed_over[UNKNOWN_SETTINGS] += 1
        else:
            by_version[record.version].append(record)
    trending = trending_then(folder, {record.trending for record in drawn})
    compared = missing = 0
    differences: dict[str, list[Float32]] = defaultdict(list)
    with contextlib.ExitStack() as opened:
        store = opened.enter_context(contextlib.closing(Store(root)))
        rerankers = {
            digest: opened.enter_context(contextlib.closing(Reranker(store, of))) for digest, of in configs.items()
        }
        for name, records in sorted(by_version.items()):
            try:
                version = Version.open(root, name)
            except MissingVersionError:
                passed_over[RETIRED] += len(records)
                continue
            with version:
                past = LivePast(next(iter(rerankers.values())).live, version)
                for record in sorted(records, key=lambda record: record.live, reverse=True):
                    reranker, was = rerankers[record.settings], trending.get(record.trending)
                    live = past.after(record.live) or reranker.live_view(version)
                    made = made_again(reranker, version, record, live, trending=was, settings=record.settings)
                    missing += _compare(record.shown, made.shown, differences)
                    compared += 1
    signals = [_of_signal(name, parts) for name, parts in sorted(differences.items())]
    torn = sum(tail.bytes for tail in tails)
    return Skew(compared, signals, dict(passed_over), missing, torn, _drift(root, drawn))


def sample(folder: Path, count: int, on_tail: Callable[[Tail], None]) -> list[AnswerRecord]:
    """So many answers of a log, whatever their order in it."""
    found: dict[tuple[int, str], AnswerRecord] = {}
    marks: list[tuple[int, str]] = []
    for record in read_log(folder, on_tail):
        if isinstance(record, AnswerRecord):
            drawn = hashlib.blake2b(record.request_id.encode(), digest_size=8).digest()
            mark = (-int.from_bytes(drawn, "big"), record.request_id)
            found[mark] = record
            heapq.heappush(marks, mark)
            if len(marks) > count:
                found.pop(heapq.heappop(marks), None)
    return [found[mark] for mark in sorted(found)]


def _drift(root: Path, drawn: Sequence[AnswerRecord]) -> Drift | None:
    counts = Counter(record.version for record in drawn)
    for name in sorted(counts, key=lambda version: (counts[version], version), reverse=True):
        with contextlib.suppress(MissingVersionError), Version.open(root, name, verify=False) as version:
            return drift(name, version.ranker.learned_from, (record for record in drawn if record.version == name))
    return None


def _compare(then: ShownItems, now: ShownItems, differences: dict[str, list[Float32]]) -> int:
    """Add the differences of each signal that both have; how many items are not among those of now."""
    place_of = {item: place for place, item in enumerate(now.items)}
    # Of one rung: an item that another rung has now stands in another pool.
    pairs = [
        (place, place_of[item])
        for place, item in enumerate(then.items)
        if item in place_of and now.rungs[place_of[item]] == then.rungs[place]
    ]
    before, after = (numbers(part.values).reshape(len(part.items), len(part.signals)) for part in (then, now))
    rows, others = (list(column) for column in zip(*pairs, strict=True)) if pairs else ([], [])
    for name in set(then.signals) & set(now.signals):
        one, other = before[rows, then.signals.index(name)], after[others, now.signals.index(name)]
        # What was not computed, of arrivals or for want of time, is no value.
        is_value = ~(np.isnan(one) & np.isnan(other))
        one, other = one[is_value], other[is_value]
        bits = one.view(np.uint32) != other.view(np.uint32)  # those that differ by no number are not equal
        apart = np.nan_to_num(np.abs(one - other), nan=np.inf)
        differences[name].append(np.where(bits, np.maximum(apart, TINY), 0.0))
    return len(then.items) - len(pairs)


def _of_signal(name: str, parts: Sequence[Float32]) -> SignalSkew:
    apart = np.concatenate(parts).astype(np.float64)
    unequal = int(np.count_nonzero(apart))
    mean, most = (float(apart.mean()), float(apart.max())) if apart.size else (0.0, 0.0)
    return SignalSkew(name, apart.size, unequal, mean, most)
