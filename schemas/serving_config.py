"""The settings of the online process: how it answers, its log of answers and events, and the sessions it keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from schemas.rules import Order, Rule
from schemas.section import Section

Name = Annotated[str, Meta(min_length=1)]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
EventWeight = Annotated[float, Meta(ge=0.0, le=1e4)]


class Repeat(Section, frozen=True):
    """What becomes of items that the user knows already."""

    policy: Literal["hide", "discount", "allow"] = "hide"
    """`hide`: not shown, on no rung. `discount`: with a lower score. `allow`: as any other."""
    discount: Annotated[float, Meta(ge=0.0, le=100.0)] = 1.0
    """Taken from the score of what happened just now; a signal is about 1 at its best, before its weight."""
    half_life_hours: Annotated[float, Meta(gt=0.0)] = 24.0
    """After so long half of the discount is left."""


class Serve(Section, frozen=True):
    """The online process."""

    host: Name = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """0: any free port; the one taken is printed."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    tokens_file: str = ""
    """Names, roles and hashes of the tokens that requests must carry, see `shortlist tokens`. Empty: whoever reaches
    the server may do everything."""
    traces_endpoint: Annotated[str, Meta(pattern=r"^(https?://.+)?$")] = ""
    """Where spans go, as OTLP over HTTP: `http://127.0.0.1:4318/v1/traces`. Needs the extra `traces`. Empty: none."""
    traces_share: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    """Share of the requests that are traced; one whose `traceparent` says whether it is sampled follows that."""
    poll_seconds: Annotated[float, Meta(gt=0.0, le=60.0)] = 0.2
    """How often a worker looks for a new history record."""
    default_k: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Items in an answer to a request that names no `k`; at most `max_k`."""
    max_k: Annotated[int, Meta(ge=1, le=1000)] = 200
    max_head_bytes: Annotated[int, Meta(ge=1024, le=1_048_576)] = 16_384
    """Length of a request's target and headers; beyond it, 431."""
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 65_536
    max_session_events: Positive = 200
    max_exclusions: Positive = 1_000
    max_batch: Annotated[int, Meta(ge=1, le=1000)] = 100
    """Requests in one `POST /v1/recommend/batch`, whose body may be as long as that of as many bodies of 4 KB."""
    max_events: Positive = 500
    """Events in one body of `POST /v1/events`."""
    max_events_body_bytes: Annotated[int, Meta(ge=1024)] = 262_144
    """Length of such a body."""
    max_item_changes: Positive = 1_000
    """Items in one `POST /v1/items`, whose body may have 1 KB for each of them."""
    body_seconds: Annotated[float, Meta(gt=0.0)] = 2.0
    """A request whose head, or whose body, has not arrived by then is answered 408."""
    idle_seconds: Annotated[float, Meta(gt=0.0)] = 75.0
    """A connection without a request is closed after this long; a proxy in front should close its own sooner."""
    max_connections: Annotated[int, Meta(ge=1)] = 15_000
    """Of one worker, as far as its limit of open files allows. One more closes that which has been idle for longest;
    when none is idle, it is answered 503 and closed."""
    max_wait_ms: Annotated[float, Meta(gt=0.0)] = 200.0
    """A request that would wait longer for its turn, behind those that came before, is answered 503 at once."""
    deadline_ms: Annotated[float, Meta(ge=0.0, le=3_600_000.0)] = 0.0
    """Milliseconds from the arrival of a request to its answer, for those that bring no shorter limit in the header
    `X-Deadline-Ms`. Where too few are left to rank, the answer is the stored list in its own order. 0: no limit."""
    session_half_life_seconds: Annotated[float, Meta(gt=0.0)] = 1800.0
    """An event of the session counts half after this long."""
    session_event_weights: dict[str, EventWeight] = field(
        default_factory=lambda: {"view": 1.0, "cart": 2.0, "purchase": 1.0}
    )
    """How much an event of each type moves the order. An unlisted type counts as 1."""
    neighbour_candidates: Count = 200
    """Items added to the pool from the neighbours of the session's items."""
    fresh_candidates: Count = 100
    """Items added to the pool from the new and trending ones: those that suit the user best, by the vector that the
    session makes of the user. 0: none, as in a version without the user tower."""
    seen: Repeat = field(default_factory=Repeat)
    """Items of the session itself, those that were bought aside."""
    seen_before: Repeat = field(default_factory=lambda: Repeat(policy="allow"))
    """Items of the user's history, as far as the version has it for the user tower, neither bought nor in the session.
    They are as old as the version's data."""
    bought: Repeat = field(default_factory=Repeat)
    """Items bought in the session, by `bought_events`, and those that the version knows as consumed, see
    `data.interactions.consumed_events`; these are as old as its data. `retrieve.consumed = "drop"` leaves them out of
    the stored list whatever stands here."""
    bought_events: list[str] = field(default_factory=lambda: ["purchase"])
    """The event types of the session that buy."""
    rules: list[Rule] = field(default_factory=list)
    """What may be shown, what is raised, what stands where."""
    order: Order = field(default_factory=Order)

    def __post_init__(self) -> None:
        if self.default_k > self.max_k:
            raise ValueError(
                f"default_k {self.default_k} is above max_k {self.max_k}; lower the one or raise the other"
            )


class Log(Section, frozen=True):
    """The serving log under `paths.events`: what was shown, and what users did."""

    answers: bool = True
    """Write a record of every answer; about a kilobyte for twenty items. Events are written in any case."""
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Answers that may wait for the disk in one worker; more are dropped and counted. Also the bodies of events that
    may: more are refused with 503."""
    segment_mb: Annotated[float, Meta(gt=0.0, le=4096.0)] = 64.0
    """A segment is ended when it is larger."""
    segment_minutes: Annotated[float, Meta(gt=0.0, le=1440.0)] = 15.0
    """A segment is ended when it is older."""
    keep_days: Annotated[float, Meta(gt=0.0)] = 30.0
    """Segments older than this are removed, when a worker begins a new one."""


class Sessions(Section, frozen=True):
    """What users did in the last minutes, kept for the answers to come."""

    enabled: bool = True
    """Add the events that were posted for a user to the session of each request. Off: only the request's own count."""
    ttl_minutes: Annotated[float, Meta(gt=0.0, le=1440.0)] = 60.0
    """An event older than this belongs to no session."""
    impressions: bool = False
    """Let the signal `ignored` read which items were shown to the user in vain. Off: impressions are kept, and move
    nothing."""
    backend: Literal["embedded", "redis"] = "embedded"
    """`embedded`: a file under `paths.sessions`, shared by the workers of this host. `redis`: shared by all hosts that
    name the same server; needs the extra `redis`."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_seconds: Annotated[float, Meta(gt=0.0, le=10.0)] = 0.1
    """A request does not wait longer for Redis; it is then answered without the stored session."""
    max_mb: Annotated[int, Meta(ge=1, le=1_048_576)] = 1024
    """What the embedded file may grow to; beyond it, events are refused with 503 until some have expired."""
