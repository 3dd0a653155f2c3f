"""The settings of the online process: how it answers, its log of answers and events, and the sessions it keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from schemas.rules import Order, Place, Rule
from schemas.section import Count, Duration, EventWeight, Name, Positive, Section, Share

BodyBytes = Annotated[int, Meta(ge=1024, le=8_388_608)]
"""What it says becomes one record of the serving log, which holds 16 MiB; written there it may be a third longer."""


class Repeat(Section, frozen=True):
    """What becomes of items that the user knows already."""

    policy: Literal["hide", "discount", "allow"] = "hide"
    """`hide`: shown on no rung. `discount`: shown with a lower score. `allow`: shown like any other item."""
    discount: Annotated[float, Meta(ge=0.0, le=100.0)] = 1.0
    """What is taken from the score just after the event. For scale: a signal is about 1 at its best, before its
    weight."""
    half_life_hours: Duration = 24.0
    """After this time half of the discount is left."""


class Holdouts(Section, frozen=True):
    """Shares of the users who are answered by less than there is: `shortlist outcomes --by holdout` can tell then what
    the rest is worth. A user's id decides who they are."""

    stored_order: Share = 0.0
    """They get their stored list in its own order, as without time to rank: no session, no signals, no boosts."""
    popular: Share = 0.0
    """They get what is popular, in their segment where the request or the version names one: no list of their own."""

    def __post_init__(self) -> None:
        if self.stored_order + self.popular > 1.0:
            raise ValueError(f"stored_order {self.stored_order} and popular {self.popular} are more than all users")


class Serve(Section, frozen=True):
    """The online process."""

    host: Name = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """0: any free port; the one taken is printed."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    tokens_file: str = ""
    """Names, roles and hashes of the tokens that requests must carry, see `shortlist tokens`. Empty: whoever reaches
    the server may do everything."""
    traces_endpoint: Annotated[str, Meta(pattern=r"^(https?://.+)?$", examples=["http://host:4318/v1/traces"])] = ""
    """Where spans go, by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`. Needs the extra `traces`. Empty:
    off."""
    traces_share: Share = 1.0
    """Share of the requests that are traced. A request whose `traceparent` decides about sampling overrides it."""
    poll_seconds: Annotated[float, Meta(gt=0.0, le=60.0)] = 0.2
    """How often a worker looks for a new history record."""
    default_k: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Items in an answer to a request that names no `k`; at most `max_k`."""
    max_k: Annotated[int, Meta(ge=1, le=1000)] = 200
    max_head_bytes: Annotated[int, Meta(ge=1024, le=1_048_576)] = 16_384
    """Most bytes of a request's target and headers; a longer head is answered 431."""
    max_body_bytes: BodyBytes = 65_536
    max_session_events: Positive = 200
    max_exclusions: Positive = 1_000
    max_batch: Annotated[int, Meta(ge=1, le=1000)] = 100
    """Most requests in one `POST /v1/recommend/batch`, whose body may have 4 KB for each of them."""
    max_events: Positive = 500
    """Most events in one body of `POST /v1/events`."""
    max_events_body_bytes: BodyBytes = 262_144
    """Most bytes of such a body."""
    max_item_changes: Positive = 1_000
    """Most items in one `POST /v1/items`, whose body may have 1 KB for each of them."""
    body_seconds: Duration = 2.0
    """A request whose head, or whose body, has not arrived by then is answered 408."""
    idle_seconds: Duration = 75.0
    """A connection without a request is closed after this long; a proxy in front should close its own sooner."""
    max_connections: Positive = 15_000
    """Most connections of one worker, as far as its limit of open files allows. One more closes the connection that has
    been idle for longest; if none is idle, the new one is answered 503 and closed."""
    max_wait_ms: Duration = 200.0
    """A request that would have to wait longer for its turn is answered 503 at once."""
    deadline_ms: Annotated[float, Meta(ge=0.0, le=3_600_000.0)] = 0.0
    """Milliseconds from a request's arrival until its answer is too late; the header `X-Deadline-Ms` may set a shorter
    limit. Where too little time is left to rank, the answer is the stored list in its own order. 0: no limit."""
    session_half_life_seconds: Duration = 1800.0
    """An event of the session counts half after this long."""
    session_event_weights: dict[str, EventWeight] = field(default_factory=lambda: {"cart": 2.0})
    """How much an event of each type moves the order. An unlisted type counts as 1, or as 0 where it weighed 0 in
    `data.interactions.event_weights` when the version was made."""
    neighbour_candidates: Count = 200
    """Items added to the pool from the neighbours of the session's items."""
    fresh_candidates: Count = 100
    """New and trending items added to the pool: those that score best with the user's vector as the session moves it.
    0: none. A version without the user tower adds none either."""
    trending_now_candidates: Count = 50
    """Items added to the pool that most users have done something with in the last hours, by the events posted to this
    host. 0: none."""
    arrivals: list[Place] | Literal["learned"] = "learned"
    """Where items stand that came after the version was made: what is most wanted just now of those that the version
    lacks and the live facts say are in stock. `learned`: as many, and where, as `train-ranker` finds that users want
    them; none before it has. Or positions, from 1; empty: none."""
    seen: Repeat = field(default_factory=Repeat)
    """Items of the session, except those bought."""
    seen_before: Repeat = field(default_factory=lambda: Repeat(policy="allow"))
    """Items of the history that the version keeps for the user tower, if neither bought nor in the session. Their age
    is that of the version's data."""
    bought: Repeat = field(default_factory=Repeat)
    """Items bought in the session (see `bought_events`) or consumed according to the version (see
    `data.interactions.consumed_events`); the age of the latter is that of the version's data. With
    `retrieve.consumed = "drop"` they are not in the stored list, whatever this says."""
    bought_events: list[str] = field(default_factory=lambda: ["purchase"])
    """The event types that mean a purchase."""
    rules: list[Rule] = field(default_factory=list)
    """Which items may be shown, get a higher score, or stand at a fixed position."""
    order: Order = field(default_factory=Order)
    holdouts: Holdouts = field(default_factory=Holdouts)

    def __post_init__(self) -> None:
        if self.default_k > self.max_k:
            raise ValueError(
                f"default_k {self.default_k} is above max_k {self.max_k}; lower the one or raise the other"
            )
        beyond = f"beyond max_k {self.max_k}: no answer is so long"
        for position in self.order.explore_positions:
            if position > self.max_k:
                raise ValueError(f"order.explore_positions {position} is {beyond}")
        for position in self.kept_for_arrivals:
            if position > self.max_k:
                raise ValueError(f"arrivals {position} is {beyond}")
            if position in self.order.explore_positions:
                raise ValueError(f"position {position} is for arrivals, and left to chance in order.explore_positions")
        for rule in self.rules:
            if rule.action == "pin" and rule.position > self.max_k:
                raise ValueError(f"the pin {rule.name!r} of rules stands at {rule.position}, {beyond}")

    @property
    def kept_for_arrivals(self) -> list[int]:
        """Positions that are theirs whatever they score."""
        return self.arrivals if isinstance(self.arrivals, list) else []


class Log(Section, frozen=True):
    """The serving log under `paths.events`: what was shown, and what users did."""

    answers: bool = True
    """Write a record of every answer; about a kilobyte for twenty items. Events are written in any case."""
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Answers that may wait for the disk in one worker; more are dropped and counted. The same number bounds the bodies
    of events that wait; more are refused with 503."""
    segment_mb: Annotated[float, Meta(gt=0.0, le=4096.0)] = 64.0
    """A segment that has grown beyond this is ended."""
    segment_minutes: Annotated[float, Meta(gt=0.0, le=1440.0)] = 15.0
    """A segment older than this is ended."""
    keep_days: Duration = 30.0
    """Segments older than this are removed, when a worker begins a new one."""


class Sessions(Section, frozen=True):
    """What users did in the last minutes, kept for the answers to come."""

    enabled: bool = True
    """Add the events posted for a user to the session of each of that user's requests. Off: only the events that a
    request brings count."""
    ttl_minutes: Annotated[float, Meta(gt=0.0, le=1440.0)] = 60.0
    """An event older than this belongs to no session."""
    impressions: bool = False
    """Let the signal `ignored` read which items the user was shown without a click. Off: impressions are kept, but
    change no answer."""
    backend: Literal["embedded", "redis"] = "embedded"
    """`embedded`: a file under `paths.sessions`, shared by the workers of this host. `redis`: shared by all hosts that
    name the same server; needs the extra `redis`."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_seconds: Annotated[float, Meta(gt=0.0, le=10.0)] = 0.1
    """A request waits no longer than this for Redis to answer, nor for a connection; then it is answered without the
    stored session."""
    max_mb: Annotated[int, Meta(ge=1, le=1_048_576)] = 1024
    """What the embedded file may grow to; beyond it, events are refused with 503 until some have expired."""
