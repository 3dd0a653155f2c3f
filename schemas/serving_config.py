"""What a server writes: its log of answers and events, and the sessions it keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from schemas.section import Section


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
