"""An answer of the log, made again from its version: the same bit for bit, or what differs.

The log has the request and the session, the settings, and what was trending; the store has the version, and what the
live facts about items were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from prediction_store.errors import MissingVersionError
from prediction_store.live_past import LivePast
from prediction_store.live_view import LiveView
from prediction_store.reader import Store, Version
from reranker.answered import numbers, record_of, request_of
from reranker.arrays import Float32
from reranker.deadline import Haste
from reranker.deciding import settings_digest, with_settings
from reranker.errors import NotInLogError, VersionRetiredError
from reranker.recommend import Reranker
from reranker.serving_log.frames import Tail
from reranker.serving_log.reading import read_segments, segments
from reranker.serving_log.records import AnswerRecord, SettingsRecord, TrendingRecord
from reranker.shown import Shown
from reranker.trending_now import Trending
from schemas.config import Config, events_folder

HEAD_BYTES = 1 << 20
"""The settings, which each segment begins with, are in so many of its first bytes."""
SCALARS = ("rung", "topped_up_from", "reason", "stale", "age_seconds", "ignored_events", "hasty_since")


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded answer, the one that was made now, and how they differ."""

    recorded: AnswerRecord
    replayed: AnswerRecord
    differences: list[str]
    """Sentences; empty: equal bit for bit."""

    @property
    def is_equal(self) -> bool:
        return not self.differences


def replay(config: Config, request_id: str, *, by_settings_of_today: bool = False) -> Replay:
    """Find an answer in the log and make it again from its version, by the settings and live facts of then.

    By `config` itself where the log has lost the settings, or `by_settings_of_today`.

    Raises:
        NotInLogError: the log does not hold it.
        VersionRetiredError: its version is not in the store any more.
        DamagedVersionError, FormatError: the version, or a segment of the log, is not as it was written.
        LiveItemsError, NewerFormatError: the live facts about items, or the log, cannot be read.
    """
    folder = Path(events_folder(config.paths))
    recorded = find(folder, request_id)
    trending = trending_then(folder, {recorded.trending}).get(recorded.trending)
    if not by_settings_of_today:
        config = config_then(config, recorded.settings, settings_then(folder, {recorded.settings})) or config
    root = Path(config.paths.store)
    try:
        version = Version.open(root, recorded.version)
    except MissingVersionError as error:
        raise VersionRetiredError(
            f"version {recorded.version}, which gave that answer, is not in the store any more",
            hint="store.keep_versions says how many are kept",
        ) from error
    with version, contextlib.closing(Store(root)) as store, contextlib.closing(Reranker(store, config)) as reranker:
        live = LivePast(reranker.live, version).after(recorded.live) or reranker.live_view(version)
        replayed = made_again(reranker, version, recorded, live, trending=trending, settings=settings_digest(config))
    found = list(differences(recorded, replayed))
    return Replay(recorded, replayed, [*_causes(recorded, replayed), *found] if found else [])


def made_again(
    reranker: Reranker,
    version: Version,
    recorded: AnswerRecord,
    live: LiveView,
    *,
    trending: TrendingRecord | None,
    settings: str,
) -> AnswerRecord:
    """The answer to the recorded request on its version, as a record.

    Args:
        live: the live facts of then, or what is known of them.
        trending: what was so then, see `trending_then`.
        settings: the digest of the re-ranker's.

    Requires: the version stays open until this returns.
    """
    noted: list[Shown] = []
    request = request_of(recorded)
    wanted = None if trending is None else Trending.of(version, trending)
    haste = Haste.as_before(recorded.hasty_since)
    made = reranker.answer_on(
        version,
        request,
        recorded.ignored,
        live,
        now=recorded.time,
        request_id=recorded.request_id,
        haste=haste,
        holdout=recorded.holdout,
        trending=wanted,
        note=noted.append,
    )
    return record_of(
        request,
        recorded.ignored,
        made,
        noted,
        signals=reranker.ranker_of(version).names,
        k=recorded.k,
        now=recorded.time,
        settings=settings,
        live=live.number,
        hasty_since=haste.since,
        holdout=recorded.holdout,
        trending="" if wanted is None else wanted.number,
    )


def find(folder: Path, request_id: str) -> AnswerRecord:
    """The answer of a request, the newest segments being read first. Raises NotInLogError."""
    tails: list[Tail] = []
    for path in reversed(segments(folder)):
        for record in read_segments([path], tails.append):
            if isinstance(record, AnswerRecord) and record.request_id == request_id:
                return record
    torn = f"; {sum(tail.bytes for tail in tails)} bytes of torn tails could not be read" if tails else ""
    raise NotInLogError(
        f"the log in {folder} has no answer {request_id[:64]!r}{torn}",
        hint="log.answers must have been on, and log.keep_days not have passed",
    )


def trending_then(folder: Path, numbers: Collection[str]) -> dict[str, TrendingRecord]:
    """What was trending, of these numbers; the log has lost those that are missing. No number stands for nothing."""
    left, found = set(numbers) - {""}, dict[str, TrendingRecord]()
    for path in reversed(segments(folder)) if left else ():
        for record in read_segments([path], lambda _: None):
            if isinstance(record, TrendingRecord) and record.number in left:
                found[record.number] = record
        if len(found) == len(left):
            break
    return found


def settings_then(folder: Path, digests: Collection[str]) -> dict[str, SettingsRecord]:
    """The settings of these digests; the log has lost those that are missing."""
    left, found = set(digests), dict[str, SettingsRecord]()
    for path in reversed(segments(folder)):
        if len(found) == len(left):
            break
        for record in read_segments([path], lambda _: None, HEAD_BYTES):
            if isinstance(record, SettingsRecord) and record.digest in left:
                found[record.digest] = record
            break  # they come first
    return found


def config_then(config: Config, settings: str, known: Mapping[str, SettingsRecord]) -> Config | None:
    """The configuration with the settings of a digest; None: the log has lost them, or another Shortlist wrote them."""
    if settings == settings_digest(config):
        return config
    return with_settings(config, known[settings]) if settings in known else None


def differences(recorded: AnswerRecord, replayed: AnswerRecord) -> Iterator[str]:
    """What differs between two answers to one request, in sentences."""
    for name in SCALARS:
        then, now = getattr(recorded, name), getattr(replayed, name)
        if then != now:
            yield f"{name}: {then!r} then, {now!r} now"
    then, now = recorded.shown, replayed.shown
    for rank, (one, other) in enumerate(zip_longest(then.items, now.items), 1):
        if one != other:
            yield f"rank {rank}: item {one} then, {other} now"
    if then.items == now.items:
        for name in ("rungs", "base_ranks"):
            yield from _of_items(name, then.items, getattr(then, name), getattr(now, name))
        for name in ("scores", "base_scores", "propensities"):
            yield from _of_numbers(name, then.items, numbers(getattr(then, name)), numbers(getattr(now, name)))
        nothing = bytes(4 * len(then.items))
        yield from _of_numbers("added", then.items, *(numbers(part.added or nothing) for part in (then, now)))
        if then.signals == now.signals:
            width = len(then.signals)
            before, after = (numbers(part.values).reshape(len(part.items), width) for part in (then, now))
            for column, name in enumerate(then.signals):
                yield from _of_numbers(f"signal {name}", then.items, before[:, column], after[:, column])
    if then.signals != now.signals:
        yield f"signals: {', '.join(then.signals)} then, {', '.join(now.signals)} now"


def _causes(recorded: AnswerRecord, replayed: AnswerRecord) -> Iterator[str]:
    """The causes: what the two answers were made from and is not the same any more."""
    if recorded.trending != replayed.trending:
        yield f"the log has lost what was trending then, {recorded.trending}"
    if recorded.live != replayed.live:
        yield (
            f"the live facts about items have changed, and those of then are not kept:"
            f" {recorded.live} then, {replayed.live} now"
        )
    if recorded.settings != replayed.settings:
        yield f"the settings of serve or store are others: {recorded.settings} then, {replayed.settings} now"


def _of_numbers(name: str, items: Sequence[str], then: Float32, now: Float32) -> Iterator[str]:
    differ = np.ascontiguousarray(then).view(np.uint32) != np.ascontiguousarray(now).view(np.uint32)
    for place in np.flatnonzero(differ).tolist():
        yield f"rank {place + 1}, item {items[place]}: {name} {float(then[place])!r} then, {float(now[place])!r} now"


def _of_items(name: str, items: Sequence[str], then: Sequence[Any], now: Sequence[Any]) -> Iterator[str]:
    for rank, (item, (one, other)) in enumerate(zip(items, zip_longest(then, now), strict=False), 1):
        if one != other:
            yield f"rank {rank}, item {item}: {name} {one!r} then, {other!r} now"
