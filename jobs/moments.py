"""Sessions replayed through a version: the candidates that the re-ranker would have ranked, and what came next.

A session that began after the version was made is cut after each of its events: what lies before is the session of a
request, and the first item after it that is new to the session is what should have stood on top. Everything is computed
by the re-ranker's own code, so what is learned from it is what is served.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from jobs.sessions import NO_SESSION, begins
from prediction_store.live_view import LiveView
from prediction_store.reader import Version
from reranker import sources
from reranker.arrays import NO_PLACES, Float32, Mask, Positions
from reranker.eligibility import eligible, hidden_items
from reranker.familiar import familiar_items
from reranker.fresh import Fresh
from reranker.pool import Pool
from reranker.ranking import Ranker, Scoring
from reranker.session import read_session
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import SIGNALS
from reranker.user_tower import UserNow, UserTower
from schemas.live_items import ItemFacts
from schemas.messages import Context, RecommendRequest, SessionEvent
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from jobs.trending_then import TrendingThen

HASH = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: shuffles items of one time (the lines of an invoice), whose order means nothing."""


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
    """What is in stock is taken from the version: what was on the shelf at the moment is not known. What the version
    lacks counts as announced."""
    fresh: Fresh | None
    trending: TrendingThen | None

    @classmethod
    def of(cls, version: Version, trending: TrendingThen | None = None) -> Stage:
        tower = UserTower.of(version)
        ranker = Ranker(tuple((signal, 1.0) for signal in SIGNALS), tower=tower)
        live = LiveView(version)
        if trending is not None:
            live.arrivals.update(dict.fromkeys(trending.others, ItemFacts(changed_at=0.0, in_stock=True)))
        return cls(version, ranker, live, Fresh.of(version) if tower else None, trending)


class Replayed(NamedTuple):
    """The candidates of a moment."""

    pool: Pool
    is_eligible: Mask
    signals: Callable[[Positions], Float32]
    """float32[m, signals], in the order of SIGNALS: of some positions in the pool, as long as the version is open."""
    wanted: int
    """Position in the pool, -1: not in it."""


class Moments(Sequence[Moment]):
    """The moments of sessions, in their order: after each event that an item new to the session comes after.

    Each is made when it is asked for; eight bytes are kept of it.
    """

    def __init__(self, sessions: Sequence[Sequence[Visit]], *, most_events: int) -> None:
        self._sessions, self._most_events = sessions, most_events
        self._numbers, self._places = array("i"), array("i")
        for number, session in enumerate(sessions):
            known: set[str] = set()
            for place, visit in enumerate(session):
                if place and visit.event.item not in known:
                    self._numbers.append(number)
                    self._places.append(place)
                known.add(visit.event.item)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Moment:  # type: ignore[override]  # nobody asks for a slice
        session, place = self._sessions[self._numbers[number]], self._places[number]
        visit = session[place]
        before = [earlier.event for earlier in session[max(0, place - self._most_events) : place]]
        context = Context(time=visit.event.time, device=visit.device or None)
        return Moment(RecommendRequest(user=visit.user, session=before, context=context), visit.event.item)


class Sessions(Sequence[list[Visit]]):
    """Sessions of a dataset, each made when it is asked for: of an interaction some thirty bytes are kept."""

    def __init__(self, rows: Rows, starts: np.ndarray, ends: np.ndarray) -> None:
        self._rows, self._starts, self._ends = rows, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> list[Visit]:  # type: ignore[override]  # nobody asks for a slice
        rows = slice(self._starts[number], self._ends[number])
        columns = [column[rows].tolist() for column in self._rows[:5]]
        user, item, event, device = self._rows[5:]
        return [
            Visit(user[u].as_py(), SessionEvent(item=item[i].as_py(), event=event[e], time=float(time)), device[d])
            for u, i, e, d, time in zip(*columns, strict=True)
        ]


class Rows(NamedTuple):
    """Interactions by user, session and time: numbers, and the texts that they stand for."""

    user: np.ndarray  # int32[n], user_index
    item: np.ndarray  # int32[n], item_index
    event: np.ndarray  # int32[n], place in `events`
    device: np.ndarray  # int32[n], place in `devices`
    time: np.ndarray  # int64[n], epoch seconds
    users: pa.ChunkedArray  # user ids by index
    items: pa.ChunkedArray  # item ids by index
    events: list[str]
    devices: list[str]


def sessions(prepared: Path, *, since: int, until: int, gap_minutes: float) -> Sessions:
    """The sessions from `since` on and before `until`, by time of their beginning; each oldest first, of one user.

    What a session is, `sessions.begins` says. Interactions of weight 0 say nothing here, as everywhere.

    Args:
        prepared: the dataset of this name.
    """
    rows, session = _interactions(prepared, since, until)
    starts = np.flatnonzero(begins(rows.user, session, rows.time, gap_minutes * 60))
    ends = np.append(starts[1:], len(session))
    order = np.argsort(rows.time[starts], kind="stable")
    return Sessions(rows, starts[order], ends[order])


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
    trending = None if stage.trending is None else stage.trending.at(now)
    pool = sources.personal(version, candidates, session, serve, stage.fresh, user=user, trending=trending)
    familiar = familiar_items(request.session, session, version, serve, user_row=row, tower=tower, now=now)
    hidden = hidden_items(request, version, familiar)
    at = Circumstances(now, request.context.device or "", user=user, trending=trending)
    scoring = Scoring(stage.ranker, SignalInputs(version, pool, session, at))
    wanted = version.item_index(moment.wanted)
    places = np.flatnonzero(pool.items == wanted) if wanted is not None else NO_PLACES
    place = int(places[0]) if len(places) else -1
    return Replayed(pool, eligible(pool.items, hidden, stage.live, now), scoring.values, place)


def _interactions(prepared: Path, since: int, until: int) -> tuple[Rows, np.ndarray]:
    """The interactions, and the place of each one's session id among all in order; NO_SESSION: it has none."""
    time, weight = (pa.dataset.field(name) for name in ("time", "weight"))
    columns = ["user_index", "item_index", "event", "device", "time", "session_id"]
    found = pa.dataset.dataset(prepared / "interactions", format="parquet").to_table(
        columns=columns, filter=(time >= since) & (time < until) & (weight > 0)
    )
    user, item, at = (found[name].to_numpy() for name in ("user_index", "item_index", "time"))
    (event, events), (device, devices), (session, ids) = (
        _numbered(found[name]) for name in ("event", "device", "session_id")
    )
    session[session == pa.compute.index(ids, "").as_py()] = NO_SESSION
    order = np.lexsort((item.astype(np.uint64) * HASH, at, session, user))
    texts = (ids_by_index(prepared, "user"), ids_by_index(prepared, "item"), events.to_pylist(), devices.to_pylist())
    rows = Rows(user[order], item[order], event[order], device[order], at[order], *texts)
    return rows, session[order]


def _numbered(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """The place of each text among the distinct ones in order, and those; null is the empty text."""
    texts = column.fill_null("").dictionary_encode().combine_chunks()
    order = pa.compute.array_sort_indices(texts.dictionary)
    places = np.empty(len(order), np.int32)
    places[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    return places[texts.indices.to_numpy()], texts.dictionary.take(order)


def ids_by_index(prepared: Path, noun: str) -> pa.ChunkedArray:
    """The ids of all users or items, by their index."""
    table = pa.dataset.dataset(prepared / f"{noun}s", format="parquet").to_table(
        columns=[f"{noun}_index", f"{noun}_id"]
    )
    return table.sort_by(f"{noun}_index")[f"{noun}_id"]
