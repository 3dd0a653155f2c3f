"""From the body of `POST /v1/events` to events that can be logged."""

from __future__ import annotations

import msgspec

from reranker.requests import at_most, check_id, decode_body
from reranker.serving_log.records import EventsRecord, LoggedEvent
from schemas.messages import EventsRequest, PostedEvent
from schemas.serving_config import Serve

SAME_BODY_SECONDS = 1e-6
"""Events of one body that bring no time are set this far apart, the last one now, so that they keep their order."""
_DECODER = msgspec.json.Decoder(EventsRequest)


def decode_events(body: bytes, serve: Serve) -> EventsRequest:
    """The events in a body, within the limits of this server; raises MalformedBodyError or InvalidFieldError."""
    request = decode_body(body, _DECODER)
    at_most("events", len(request.events), serve.max_events)
    for place, event in enumerate(request.events):
        check_id(f"events[{place}].user", event.user)
        check_id(f"events[{place}].item", event.item)
    return request


def record_of(request: EventsRequest, received: float) -> EventsRecord:
    """The record of a body that arrived at a time."""
    last = len(request.events) - 1
    events = [
        _logged(event, received - (last - place) * SAME_BODY_SECONDS) for place, event in enumerate(request.events)
    ]
    return EventsRecord(received, events)


def _logged(event: PostedEvent, arrived: float) -> LoggedEvent:
    return LoggedEvent(
        user=event.user,
        item=event.item,
        event=event.event,
        time=arrived if event.time is None else event.time,
        request_id=event.request_id,
        position=event.position,
        device=event.device,
    )
