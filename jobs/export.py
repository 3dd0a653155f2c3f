"""Everybody's list in a file, for what is outside the server: mails, campaigns, a warehouse.

The answers are the re-ranker's own, of one version and one moment, without a session. They are not in the serving log.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from jobs import progress
from jobs.export_rows import Row, format_of, new_rows
from jobs.whole_file import refuse_no_place
from reranker.deadline import Haste
from reranker.holdouts import holdout_of
from reranker.recommend import Reranker, open_reranker
from reranker.requests import check_limits, convert_request
from schemas.config import Config
from schemas.errors import UsageError
from schemas.messages import MAX_ID_BYTES, RecommendAnswer, RecommendRequest

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version

GROUP_ROWS = 50_000
"""About so many rows are in memory at once, and in one row group of Parquet."""
MILESTONE_USERS = 100_000


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What an export has written."""

    file: str
    version: str
    shards: str
    """The shards of users on this host, FIRST-LAST/ALL; of others nobody has an own list here."""
    users: int
    rows: int
    rungs: dict[str, int]
    """Users by the rung that their answer begins on; `empty`: there was nothing to show them, and they have no row."""
    reasons: dict[str, int]
    """Users whose own list was not used, by the reason, see `RecommendAnswer`."""
    stale: int
    """Users whose data is older than its time to live."""
    seconds: float


def run(
    config: Config, out: Path, *, k: int, placement: str, now: float, users: Sequence[str] | None = None
) -> Exported:
    """Write the `k` best items of each user as they are at `now`, one row per user and rank, into one file.

    The end of its name says the format, see `export_rows`. What `serve.order.explore_positions` leaves to chance is not
    left to it: nobody could log what was shown.

    Args:
        users: whose, in this order; None: everybody's of the version, in the order of the ids' bytes.

    Raises:
        UsageError: the file cannot stand there, its name says no format, or a server would refuse to answer.
        NotReadyError: there is no version.
        LiveItemsError, NewerFormatError: live facts about items cannot be read: what is hidden might be in the file.
        DiskError: the disk is full, or may not be written; nothing is left then.
    """
    started = time.monotonic()
    format_of(out)
    refuse_no_place(out)
    asked = convert_request({"user": "anybody", "k": k, "placement": placement})
    check_limits(asked, config.serve)
    tally = _Tally()
    with open_reranker(_without_chance(config), follows_events=False) as reranker, reranker.current() as version:
        live = reranker.live_view(version)
        if reranker.views.last_error is not None:
            raise reranker.views.last_error
        # Closed before the version is: it reads in the shards.
        everybody = _everybody(version) if users is None else (user for user in users)
        total = _count(version) if users is None else len(users)
        with closing(everybody) as rest, new_rows(out) as write, progress.bar("export", total) as bar:
            while group := [*islice(rest, max(1, GROUP_ROWS // k))]:
                holdouts = [holdout_of(user, config.serve.holdouts) for user in group]
                answers = _answers(reranker, version, live, asked, group, holdouts, now)
                if rows := _rows(version, group, answers):
                    write(rows)
                tally.add(answers, len(rows))
                bar.advance(len(group))
                if tally.users // MILESTONE_USERS > (tally.users - len(group)) // MILESTONE_USERS:
                    bar.milestone(users=tally.users, of=total)
        return Exported(
            file=str(out),
            version=version.name,
            shards=str(version.held),
            users=tally.users,
            rows=tally.rows,
            rungs=dict(tally.rungs.most_common()),
            reasons=dict(tally.reasons.most_common()),
            stale=tally.stale,
            seconds=round(time.monotonic() - started, 3),
        )


def read_users(data: bytes, where: str) -> list[str]:
    """The ids in a text, one a line, in its order and each once; an empty line says nothing.

    Raises:
        UsageError: it is not UTF-8, an id is longer than a key of the store may be, or there is none.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{where}, line {number}: it is not UTF-8: {error.reason}") from error
    users: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        user = line.removesuffix("\r")
        n_bytes = len(user.encode())
        if n_bytes > MAX_ID_BYTES:
            raise UsageError(f"{where}, line {number}: an id of {n_bytes} bytes; wanted at most {MAX_ID_BYTES}")
        if user:
            users[user] = None
    if not users:  # the query that made the list went wrong, more likely than not: the file of before stays
        raise UsageError(f"{where} names no user", hint="leave --users out for everybody's lists")
    return [*users]


class _Tally:
    """What is told of the answers when all are written."""

    def __init__(self) -> None:
        self.users = self.rows = self.stale = 0
        self.rungs, self.reasons = Counter[str](), Counter[str]()

    def add(self, answers: Sequence[RecommendAnswer], rows: int) -> None:
        self.users += len(answers)
        self.rows += rows
        self.stale += sum(answer.stale for answer in answers)
        self.rungs.update(answer.rung for answer in answers)
        self.reasons.update(answer.reason for answer in answers if answer.reason is not None)


def _without_chance(config: Config) -> Config:
    order = msgspec.structs.replace(config.serve.order, explore_positions=[])
    return msgspec.structs.replace(config, serve=msgspec.structs.replace(config.serve, order=order))


def _everybody(version: Version) -> Generator[str, None, None]:
    """Every user with a record on this host, in the order of the ids' bytes."""
    for key in heapq.merge(*(version.keys(number) for number in version.held.numbers)):
        yield key.decode("utf-8")


def _count(version: Version) -> int:
    """About how many that are: exactly, where the host has all shards."""
    return version.manifest.counts.records * len(version.held.numbers) // version.held.of


def _answers(  # noqa: PLR0917
    reranker: Reranker,
    version: Version,
    live: LiveView,
    asked: RecommendRequest,
    users: Sequence[str],
    holdouts: Sequence[str],
    now: float,
) -> list[RecommendAnswer]:
    """What each of the users gets who asks the same; `holdouts` are theirs."""
    return [
        reranker.answer_on(
            version,
            msgspec.structs.replace(asked, user=user),
            {},
            live,
            now=now,
            request_id="",
            haste=Haste(),
            holdout=holdout,
            trending=None,
            note=None,
        )
        for user, holdout in zip(users, holdouts, strict=True)
    ]


def _rows(version: Version, users: Sequence[str], answers: Sequence[RecommendAnswer]) -> list[Row]:
    ids = [*{item.item for answer in answers for item in answer.items}]
    indexes = np.array(version.indexes_of(ids), np.int64)
    title_of = dict(zip(ids, version.titles(indexes), strict=True))
    return [
        Row(user, item.rank, item.item, title_of[item.item], item.score, item.base_score, item.rung, version.name)
        for user, answer in zip(users, answers, strict=True)
        for item in answer.items
    ]
