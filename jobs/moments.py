"""Sessions replayed through a version: what the re-ranker would have had to put in order, and what came next.

A session that began after the version was made is cut after each of its events: what lies before is the session of a
request, and the first item after it that is new to the session is what should have stood on top. Everything is computed
by the re-ranker's own code, so what is learned from it is what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from prediction_store.live_view import LiveView
from prediction_store.reader import Version
from reranker import sources
from reranker.arrays import Float32, Mask, Positions
from reranker.eligibility import eligible, hidden_items
from reranker.familiar import familiar_items
from reranker.fresh import Fresh
from reranker.pool import Pool
from reranker.ranking import Ranker, Scoring
from reranker.session import read_session
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import SIGNALS
from reranker.user_tower import UserNow, UserTower
from schemas.messages import Context, RecommendRequest, SessionEvent
from schemas.serving_config import Serve

HASH = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: items of one time, the lines of an invoice say, come in an order that says nothing."""


class Visit(NamedTuple):
    """One interaction of a session."""

    user: str
    event: SessionEvent
    device: str = ""


class Moment(NamedTuple):
    """A request as it might have been made, and the item that came next."""

    request: RecommendRequest
    """Its context has the time."""
    wanted: str


class Stage(NamedTuple):
    """What moments are replayed on."""

    version: Version
    ranker: Ranker
    """Of every signal, in the order of SIGNALS; what each weighs does not matter."""
    live: LiveView
    """What is in stock is taken from the version: what was on the shelf at the moment is not known."""
    fresh: Fresh | None

    @classmethod
    def of(cls, version: Version) -> Stage:
        tower = UserTower.of(version)
        ranker = Ranker(tuple((signal, 1.0) for signal in SIGNALS), tower=tower)
        return cls(version, ranker, LiveView(version), Fresh.of(version) if tower else None)


class Replayed(NamedTuple):
    """The candidates of a moment."""

    pool: Pool
    is_eligible: Mask
    signals: Callable[[Positions], Float32]
    """float32[m, signals], in the order of SIGNALS: of some positions in the pool, as long as the version is open."""
    wanted: int
    """Position in the pool, -1: not in it."""


def sessions(prepared: Path, *, since: int, until: int, gap_minutes: float) -> Iterator[list[Visit]]:
    """The sessions from `since` on and before `until`, by time of their beginning; each oldest first, of one user.

    A session is a `session_id`; where interactions have none, those of a user with no gap of `gap_minutes` or more.

    Args:
        prepared: the dataset of this name.
    """
    table = _interactions(prepared, since, until)
    user, time, session = (table[name].to_numpy(zero_copy_only=False) for name in ("user_index", "time", "session"))
    is_first = np.ones(len(table), dtype=bool)
    if len(table):
        is_same = (user[1:] == user[:-1]) & (session[1:] == session[:-1])
        is_close = (session[1:] != "") | (time[1:] - time[:-1] < gap_minutes * 60)
        is_first[1:] = ~(is_same & is_close)
    starts = np.flatnonzero(is_first)
    ends = np.append(starts[1:], len(table))
    names = ("user_id", "item_id", "event", "device")
    users, items, events, devices = (table[name].to_pylist() for name in names)
    for number in np.argsort(time[starts], kind="stable"):
        yield [
            Visit(users[n], SessionEvent(item=items[n], event=events[n], time=float(time[n])), devices[n] or "")
            for n in range(starts[number], ends[number])
        ]


def moments(session: Sequence[Visit], *, most_events: int) -> Iterator[Moment]:
    """The moments of one session: after each event that an item new to the session comes after."""
    known: set[str] = set()
    for place, visit in enumerate(session):
        if place and visit.event.item not in known:
            before = [earlier.event for earlier in session[max(0, place - most_events) : place]]
            context = Context(time=visit.event.time, device=visit.device or None)
            yield Moment(RecommendRequest(user=visit.user, session=before, context=context), visit.event.item)
        known.add(visit.event.item)


def replay(stage: Stage, moment: Moment, serve: Serve) -> Replayed | None:
    """What the re-ranker would rank for the stored list of the user; None: the version has no such list."""
    request, version, tower = moment.request, stage.version, stage.ranker.tower
    candidates = version.read(request.user)
    if candidates is None:
        return None
    now = request.context.time
    assert now is not None
    session = read_session(request.session, version, serve, now)
    row = candidates.user_row
    user = UserNow(tower, row, session)
    pool = sources.personal(version, candidates, session, serve, stage.fresh, user=user)
    familiar = familiar_items(request.session, session, version, serve, user_row=row, tower=tower, now=now)
    hidden = hidden_items(request, version, familiar)
    at = Circumstances(now, request.context.device or "", user=user)
    scoring = Scoring(stage.ranker, SignalInputs(version, pool, session, at))
    wanted = version.item_index(moment.wanted)
    places = np.flatnonzero(pool.items == wanted) if wanted is not None else []
    place = int(places[0]) if len(places) else -1
    return Replayed(pool, eligible(pool.items, hidden, stage.live, now), scoring.values, place)


def _interactions(prepared: Path, since: int, until: int) -> pa.Table:
    """(user_index, user_id, item_id, event, device, time, session), by user, session and time."""
    time = pa.dataset.field("time")
    columns = ["user_index", "item_index", "event", "device", "time", "session_id"]
    found = pa.dataset.dataset(prepared / "interactions", format="parquet").to_table(
        columns=columns, filter=(time >= since) & (time < until)
    )
    for noun in ("user", "item"):
        ids = pa.dataset.dataset(prepared / f"{noun}s", format="parquet").to_table(
            columns=[f"{noun}_index", f"{noun}_id"]
        )
        ids = ids.sort_by(f"{noun}_index")[f"{noun}_id"]
        found = found.append_column(f"{noun}_id", ids.take(found[f"{noun}_index"]))
    found = found.append_column("session", pa.compute.fill_null(found["session_id"], ""))
    hashes = found["item_index"].to_numpy().astype(np.uint64) * HASH
    found = found.append_column("hash", pa.array(hashes))
    return found.sort_by([(name, "ascending") for name in ("user_index", "session", "time", "hash")])
