"""The HTTP messages: requests, answers and errors, each with its bounds.

The OpenAPI document is made from these structs, and so is the parser: what is documented is what is enforced.
Times are UTC epoch seconds. Ids are compared as UTF-8 bytes and normalised nowhere.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

MAX_ID_BYTES = 511
"""Longest id, in UTF-8: the longest key of the store."""
MAX_K = 1000
"""Longest answer; `serve.max_k` is what one server allows."""

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES, description="1 to 511 bytes in UTF-8")]
EpochSeconds = Annotated[
    float, Meta(ge=0.0, le=99_999_999_999.0, description="UTC epoch seconds (milliseconds are refused as too large)")
]
EventType = Annotated[str, Meta(min_length=1, max_length=64, examples=["view", "cart", "purchase"])]
Label = Annotated[str, Meta(max_length=MAX_ID_BYTES)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a client sends; an unknown field is refused."""


class SessionEvent(Message, frozen=True):
    """One recent event of the user."""

    item: Id
    event: EventType = "view"
    time: EpochSeconds | None = None
    """When it happened; absent: just now. A time in the future counts as just now."""


class Context(Message, frozen=True):
    """Circumstances of the request."""

    device: Annotated[str, Meta(max_length=64)] | None = None
    time: EpochSeconds | None = None
    """The request's own time, from which events age, with its hour and weekday in UTC; absent: the server's clock."""
    segment: Label | None = None
    """The segment whose popular list is the fallback; absent: the user's own, as the version knows it."""


class RecommendRequest(Message, frozen=True):
    """Ask for one user's best items, given what the user did in the last seconds."""

    user: Id
    k: Annotated[int, Meta(ge=1, le=MAX_K)] | None = None
    """How many items; absent: the server's default."""
    session: list[SessionEvent] = field(default_factory=list)
    """Recent events of this user, in any order; without times, the last one is the most recent."""
    context: Context = field(default_factory=Context)
    exclude: list[Id] = field(default_factory=list)
    """Items that must not be in the answer."""
    placement: Annotated[str, Meta(min_length=1, max_length=64, examples=["home", "basket"])] = "home"
    """Where the answer will be shown; the server may have other rules for it."""
    explain: bool = False
    """Add to every item its signal values, their contributions and a sentence."""


class PostedEvent(Message, frozen=True):
    """One thing that a user did, or was shown."""

    user: Id
    item: Id
    event: EventType
    """The event type. `impression` means that the item was shown to the user, not that the user did something."""
    time: EpochSeconds | None = None
    """When it happened; absent: just now."""
    request_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """The answer in which the item was shown."""
    position: Annotated[int, Meta(ge=1, le=MAX_K)] | None = None
    """The item's rank in that answer."""
    device: Annotated[str, Meta(max_length=64)] | None = None


class EventsRequest(Message, frozen=True):
    """Tell what users did, for the sessions of coming requests and for the next training."""

    events: Annotated[list[PostedEvent], Meta(min_length=1)]
    """Of any users; without times, in the order in which they happened."""


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The events are on disk and in the sessions of their users."""

    accepted: int


class AnsweredItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of an answer. Scores can be compared within one rung only."""

    item: str
    rank: int
    """Place in this answer, from 1."""
    score: float
    """The final score, after the session."""
    base_score: float
    """The score of the list it came from."""
    base_rank: int
    """Place in the list it came from, from 1; what was added to a list comes after all of it."""
    rung: str
    """The list it came from: personal, stored_order, session, segment or popular; arrivals: it came after the version
    was made, and many want it now. Its base score is how many, and so is its score where it has a kept place; its base
    rank is its place among those."""
    title: str | UnsetType = UNSET
    """With `explain`."""
    sources: list[str] | UnsetType = UNSET
    """With `explain`: how it came to be a candidate: stored_list, session_neighbours, new, trending, trending_now;
    popular or segment_popular; arrivals."""
    signals: dict[str, float] | UnsetType = UNSET
    """With `explain`: the value of every signal."""
    contributions: dict[str, float] | UnsetType = UNSET
    """With `explain`: value times weight, of the signals that have a weight; they add up to the score."""
    why: str | UnsetType = UNSET
    """With `explain`: the main reason, as one sentence."""


class RecommendAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The ranked items, and how they were made."""

    items: list[AnsweredItem]
    version: str
    """The one version that everything in this answer comes from, but arrivals."""
    age_seconds: int
    """Age of the user's list, or of the version where the user has none."""
    rung: str
    """How the answer was made: personal, session, segment, popular; `stored_order`: the user's list in its own order;
    `arrivals` when there was nothing but these; `empty` when nothing was left to show."""
    topped_up_from: list[str]
    """Further rungs that filled the answer up when the first one ran dry."""
    reason: str | None
    """Why the user's own list was not used; null when it was. unknown_user: there is none. expired_record,
    damaged_record: it must not be used. other_host: another host has it. list_ran_dry: nothing of it may be shown.
    `deadline` comes before all others: there was no time to rank, so lists are in their own order, without what the
    session would have added. holdout comes before that one, too: the user is one of those in `serve.holdouts`."""
    stale: bool
    """The data is older than its time to live and was served nevertheless."""
    ignored_events: int
    """How many events of the session, the stored one included, have an item that this version lacks."""
    request_id: str


class RecommendManyRequest(Message, frozen=True):
    """Ask for the answers to several requests at once."""

    requests: Annotated[list[RecommendRequest], Meta(min_length=1)]


class RecommendManyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answers, in the order of the requests."""

    answers: list[RecommendAnswer]


class ListedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a list."""

    item: str
    score: float
    """In the units of the list; can be compared within it only."""


class ListAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A list as the version has it, best first."""

    items: list[ListedItem]
    version: str
    age_seconds: int
    """Of the user's list, or of the version."""


class VersionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The version that this worker serves."""

    version: str
    number: int
    """Number of the history record that made it current."""
    age_seconds: int
    stale: bool
    items: int
    users: int
    dimensions: int
    space_id: str
    """The embedding space of its vectors."""
    shards: str
    """The shards of users on this host, FIRST-LAST/ALL. A user's shard is the CRC-32 of the id modulo ALL."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    alive: bool


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """A verified version is served."""

    ready: bool
    version: str


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why there is no answer."""

    error: str
    """Short, for programs."""
    message: str
    """What was found and what was wanted, for people."""
    field: str | None = None
    """The field of the request that is wrong."""
