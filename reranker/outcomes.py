"""Outcomes: what users did with what they were shown, by version, day, holdout and the like.

`evaluate` judges lists by what people did without them; this counts what came of the lists that were served. A click
is what `train-ranker` takes for one, too: an event that names an answer and one of its items, of any type but
`impression` and those of weight 0.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from reranker.serving_log.frames import Tail
from reranker.serving_log.reading import Watch, read_segments, segments
from reranker.serving_log.records import AnswerRecord, EventsRecord, Record
from reranker.sessions.stored import IMPRESSION
from schemas.config import Config, events_folder

NORMAL_95 = 1.96
FEWEST_USERS = 30
"""From which on a share has an interval."""

Clicks = dict[str, dict[str, set[str]]]
"""Request id to item to the types of its events."""


class Outcome(NamedTuple):
    """What came of the answers of one group."""

    group: str
    answers: int
    users: int
    clicked: int
    """Answers with a click on an item of the group."""
    margin: float | None
    """Half of the 95 % interval of `share`, see `margin_of`."""
    events: dict[str, int]
    """Event type to the number of shown items with such an event, each counted once in an answer."""

    @property
    def share(self) -> float:
        """Of the answers, those with a click."""
        return self.clicked / self.answers

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        return {**self._asdict(), "share": self.share}


class Outcomes(NamedTuple):
    """What a log says."""

    by: str
    groups: list[Outcome]
    """In the order of their names."""
    nameless: int
    """Events that would be clicks, had they a request id."""
    astray: int
    """Clicks on answers that are not of that time, or not in the log, or did not show the item."""
    torn_bytes: int
    """Of torn tails: answers and events may be in them."""

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        return {**self._asdict(), "groups": [group.facts() for group in self.groups]}


def outcomes(config: Config, by: str, since: float, until: float, *, watch: Watch = iter) -> Outcomes:
    """What came of the answers from `since` up to `until`, UTC epoch seconds, by one of `BY`.

    Reads the log twice. Memory grows with the clicks, and with the users of each group.

    Raises:
        FormatError, DiskError: the log cannot be read.
    """
    folder, tails = Path(events_folder(config.paths)), list[Tail]()
    clicks, nameless = _clicks(_records(folder, watch, []), config.data.interactions.event_weights, since)
    users: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    events: dict[str, Counter[str]] = defaultdict(Counter)
    astray = sum(len(types) for items in clicks.values() for types in items.values())
    for record in _records(folder, watch, tails):
        if not isinstance(record, AnswerRecord) or not since <= record.time < until:
            continue
        clicked = clicks.get(record.request_id, {}).items()
        astray -= sum(len(types) for item, types in clicked if item in record.shown.items)
        for group, items in BY[by](record).items():
            types = [type for item, of_item in clicked if item in items for type in of_item]
            events[group].update(types)
            counts = users[group][record.user]
            counts[0] += 1
            counts[1] += bool(types)
    groups = [_outcome(group, [*users[group].values()], events[group]) for group in sorted(users, key=_in_order)]
    return Outcomes(by, groups, nameless, astray, sum(tail.bytes for tail in tails))


def is_click(event: str, weights: Mapping[str, float]) -> bool:
    """True when an event of this type says that an item was liked: an unknown type does, one of weight 0 does not."""
    return event != IMPRESSION and weights.get(event, 1.0) > 0


def margin_of(users: Collection[list[int]]) -> float | None:
    """Half of the 95 % interval of the share of answers with a click, from each user's [answers, answers with a click].

    The answers of one user are alike, so that it is users who are drawn at random; None: they are too few, or no answer
    differs from another.
    Source: Deng, Knoblich, Lu 2018, Applying the delta method in metric analytics (the ratio of two means).
    """
    count, answers, clicked = len(users), sum(user[0] for user in users), sum(user[1] for user in users)
    if count < FEWEST_USERS or not 0 < clicked < answers:
        return None
    spread = sum((user[1] - clicked / answers * user[0]) ** 2 for user in users) / (count - 1)
    return NORMAL_95 * math.sqrt(count * spread) / answers


def _records(folder: Path, watch: Watch, tails: list[Tail]) -> Iterator[Record]:
    for path in watch(segments(folder)):
        yield from read_segments([path], tails.append)


def _clicks(records: Iterable[Record], weights: Mapping[str, float], since: float) -> tuple[Clicks, int]:
    """The clicks from `since` on, and how many events would be some, had they a request id."""
    found: Clicks = defaultdict(lambda: defaultdict(set))
    nameless = 0
    for record in records:
        if not isinstance(record, EventsRecord):
            continue
        for event in record.events:
            if event.time < since or not is_click(event.event, weights):
                continue
            if event.request_id:
                found[event.request_id][event.item].add(event.event)
            else:
                nameless += 1
    return found, nameless


def _outcome(group: str, users: list[list[int]], events: Mapping[str, int]) -> Outcome:
    answers, clicked = sum(user[0] for user in users), sum(user[1] for user in users)
    return Outcome(group, answers, len(users), clicked, margin_of(users), dict(sorted(events.items())))


def _in_order(group: str) -> tuple[int, str]:
    return (int(group) if group.isdecimal() else 0, group)


def _by_version(record: AnswerRecord) -> Mapping[str, Set[str]]:
    return {record.version: {*record.shown.items}}


def _by_day(record: AnswerRecord) -> Mapping[str, Set[str]]:
    return {datetime.fromtimestamp(record.time, UTC).date().isoformat(): {*record.shown.items}}


def _by_placement(record: AnswerRecord) -> Mapping[str, Set[str]]:
    return {record.placement: {*record.shown.items}}


def _by_rung(record: AnswerRecord) -> Mapping[str, Set[str]]:
    """An answer that had to be filled up counts for each of its rungs, by the items that came from there."""
    found: dict[str, set[str]] = defaultdict(set)
    for item, rung in zip(record.shown.items, record.shown.rungs, strict=True):
        found[rung].add(item)
    return found or {record.rung: set()}


def _by_holdout(record: AnswerRecord) -> Mapping[str, Set[str]]:
    return {record.holdout or "none": {*record.shown.items}}


def _by_position(record: AnswerRecord) -> Mapping[str, Set[str]]:
    return {str(position): {item} for position, item in enumerate(record.shown.items, 1)}


BY: dict[str, Callable[[AnswerRecord], Mapping[str, Set[str]]]] = {
    "version": _by_version,
    "day": _by_day,
    "placement": _by_placement,
    "holdout": _by_holdout,
    "rung": _by_rung,
    "position": _by_position,
}
"""The groups of an answer, each with the items that it is judged by."""
