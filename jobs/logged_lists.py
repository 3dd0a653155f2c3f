"""Lists to learn from in the serving log: what was shown, what of it was clicked, and how much a click says.

What stands on top is clicked more because it is seen more. So a click at position k counts 1 / p(k), p(k) = k^-eta
being the share of people who look that far: clicks are weighed as if all had looked at everything. eta is taken from
the places that were left to chance, where what stands there says nothing about its position; with too few clicks there
it is `ranker.position_eta`.

Source: Joachims, Swaminathan, Schnabel 2017, Unbiased learning-to-rank with biased feedback (weights by inverse
propensity, a propensity that falls as a power of the position, experiments that swap items to find it).
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jobs.datasets import DAY_SECONDS
from jobs.logged_events import LoggedEvents
from jobs.ranking_fit import Lists
from reranker.answered import numbers
from reranker.outcomes import is_click
from reranker.serving_log.records import AnswerRecord, EventsRecord, Record
from reranker.signals import SIGNALS, default_weights
from reranker.stability import RUNGS
from schemas.config import Config
from schemas.ranker import LOG

CLICKS_AT_RANDOM = 100
"""On places left to chance, from which on they are asked for eta."""
MAX_ETA = 3.0
HALVINGS = 50
MOST_SHOWN = 128
"""Of one answer, from the top."""


class LoggedLists(NamedTuple):
    """What a log teaches."""

    lists: Lists
    """One for each click, by time; signals in the order of SIGNALS, 0 where the log has none."""
    eta: float
    is_measured: bool
    """eta is from places left to chance, not from the configuration."""

    def fingerprint(self) -> str:
        """Changes with anything that is learned from."""
        found = hashlib.sha256(repr((self.eta, self.lists.signals.shape)).encode())
        for part in self.lists:
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()


class _Click(NamedTuple):
    time: float
    request_id: str
    position: int  # in the answer, from 1
    signals: tuple[str, ...]
    values: np.ndarray  # float32[shown of the rung, signals], the clicked one first


def read(config: Config, end: int) -> LoggedLists:
    """The clicks of the last `ranker.log_days` before `end` on answers of that time.

    At most `ranker.most_lists`, at random where there are more, the same whatever the order of the log. Of answers that
    logged other signals than most did, and where nothing but the untrained weights were served, nothing is learned:
    what has no weight is not in the log.

    Raises:
        SourceError: the log is not there, or cannot be read.
    """
    since = end - int(config.ranker.log_days * DAY_SECONDS)
    log = LoggedEvents.open(config, since, end)
    clicked = _clicked(log, config.data.interactions.event_weights)
    shows, clicks = Counter[int](), Counter[int]()
    kept: dict[tuple[int, str, int], _Click] = {}
    marks: list[tuple[int, str, int]] = []  # a heap: the smallest of negated hashes goes first
    for record in _records(log):
        if not isinstance(record, AnswerRecord) or not since <= record.time < end:
            continue
        wanted = clicked.get(record.request_id, set())
        _count_chance(record, wanted, shows, clicks)
        for click in _clicks(record, wanted):
            mark = (-_hash(f"{click.request_id} {click.position}"), click.request_id, click.position)
            kept[mark] = click
            heapq.heappush(marks, mark)
            if len(marks) > config.ranker.most_lists:
                kept.pop(heapq.heappop(marks), None)
    eta = power_of_position(shows, clicks)
    used = config.ranker.position_eta if eta is None else eta
    return LoggedLists(_lists(_alike([*kept.values()]), used, config), used, eta is not None)


def power_of_position(shows: Mapping[int, int], clicks: Mapping[int, int]) -> float | None:
    """eta by maximum likelihood from how often places left to chance were shown and clicked; None: too few say so.

    With the rate of clicks a * k^-eta the likelihood of eta, a being at its best, is concave; its slope is halved upon.
    """
    places = np.array(sorted(shows), np.float64)
    shown = np.array([shows[int(place)] for place in places], np.float64)
    hit = np.array([clicks.get(int(place), 0) for place in places], np.float64)
    if len(places) < 2 or hit.sum() < CLICKS_AT_RANDOM:
        return None
    logs = np.log(places)

    def slope(eta: float) -> float:
        expected = shown * places**-eta
        return float(hit.sum() * (expected @ logs) / expected.sum() - hit @ logs)

    low, high = 0.0, MAX_ETA
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return round((low + high) / 2, 6)


def _records(log: LoggedEvents) -> Iterator[Record]:
    for segment in log.sizes:
        yield from log.records(segment)


def _clicked(log: LoggedEvents, weights: Mapping[str, float]) -> dict[str, set[str]]:
    """Request id to the items of it that something was done with: a type of event is as good as another, if it has no
    weight of 0."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in _records(log):
        if not isinstance(record, EventsRecord):
            continue
        for event in record.events:
            if event.request_id and is_click(event.event, weights) and log.since <= event.time < log.until:
                found[event.request_id].add(event.item)
    return found


def _count_chance(record: AnswerRecord, wanted: set[str], shows: Counter[int], clicks: Counter[int]) -> None:
    chances = numbers(record.shown.propensities)
    for place in np.flatnonzero((chances > 0) & (chances < 1)).tolist():
        shows[place + 1] += 1
        clicks[place + 1] += record.shown.items[place] in wanted


def _clicks(record: AnswerRecord, wanted: set[str]) -> Iterator[_Click]:
    shown = record.shown
    if not wanted or not shown.signals:
        return
    values = numbers(shown.values).reshape(len(shown.items), len(shown.signals))
    rungs = np.array(shown.rungs)
    for place, item in enumerate(shown.items[:MOST_SHOWN]):
        if item not in wanted or shown.rungs[place] not in RUNGS[LOG]:
            continue
        others = np.flatnonzero(rungs[:MOST_SHOWN] == shown.rungs[place])
        others = others[others != place]
        rows = values[np.append(place, others)]
        if others.size and np.isfinite(rows).all():
            yield _Click(record.time, record.request_id, place + 1, tuple(shown.signals), rows)


def _alike(clicks: list[_Click]) -> list[_Click]:
    """Those of answers that logged the signals that most did, by time."""
    counts = Counter(click.signals for click in clicks)
    untrained = default_weights("")
    plain = {name for name, weight in zip(untrained.signals, untrained.weights, strict=True) if weight}
    known = {signal.name for signal in SIGNALS}
    # Perhaps without some of the plain ones: where the lists said nothing of a signal, it was given no weight.
    enough = [names for names in counts if not {*names} <= plain and {*names} <= known]
    usual = max(enough, key=lambda names: (counts[names], names), default=())
    alike = (click for click in clicks if click.signals == usual)
    return sorted(alike, key=lambda click: (click.time, click.request_id, click.position))


def _lists(clicks: list[_Click], eta: float, config: Config) -> Lists:
    width = max((len(click.values) for click in clicks), default=1)
    signals = np.zeros((len(clicks), width, len(SIGNALS)), np.float32)
    is_there = np.zeros((len(clicks), width), bool)
    column = {signal.name: place for place, signal in enumerate(SIGNALS)}
    for row, click in enumerate(clicks):
        signals[row, : len(click.values), [column[name] for name in click.signals]] = click.values.T
        is_there[row, : len(click.values)] = True
    positions = np.array([click.position for click in clicks], np.float64)
    return Lists(signals, is_there, np.minimum(positions**eta, config.ranker.most_weight).astype(np.float32))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
