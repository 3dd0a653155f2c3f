"""What the connections of a worker are given of its application: the answers, the refusals and the limits."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from functools import partial

import msgspec
from starlette.responses import Response

from reranker.connection_limits import Connections
from reranker.connections import PATH, Door, Framing, Headers, Sent
from reranker.errors import BodyTooSlowError, NoTokenError, OverloadedError, RoleError, status_of
from reranker.metrics import Metrics
from reranker.waiting import Waiting
from schemas.messages import RecommendAnswer
from schemas.serving_config import Serve

RECOMMEND = PATH.decode()
REFUSED = frozenset(status_of(error(""))[0] for error in (NoTokenError, RoleError))
SPARE_FILES = 1000
"""Open files for the store, the log and the sessions; a quarter of all where few are allowed."""

Answer = Callable[[Headers, bytes, float], RecommendAnswer]
"""Of headers, a body, and when the head came by `time.perf_counter`; raises what the application does."""


def open_door(
    serve: Serve,
    metrics: Metrics,
    waiting: Waiting,
    *,
    is_open: bool,
    answer: Answer,
    failure: Callable[[Exception], Response],
) -> Door:
    """The door between connections and application; see `Door` for `is_open`."""
    return Door(
        is_open=is_open,
        answer=partial(_answer, answer, failure),
        observe=partial(_observe, metrics),
        overloaded=_sent(failure(OverloadedError("too many requests wait; try again"))),
        too_slow=_sent(failure(BodyTooSlowError(f"the request did not arrive within {serve.body_seconds} s"))),
        waiting=waiting,
        connections=Connections(
            most=min(serve.max_connections, _open_files()),
            idle_seconds=serve.idle_seconds,
            arrival_seconds=serve.body_seconds,
            closed=partial(metrics.closed.inc, 1.0),
            tell=metrics.tell_open,
        ),
        framing=Framing(),
        max_body_bytes=serve.max_body_bytes,
    )


def _answer(
    answer: Answer, failure: Callable[[Exception], Response], headers: Headers, body: bytes, arrived: float
) -> Sent:
    try:
        encoded = msgspec.json.encode(answer(headers, body, arrived))
    except Exception as error:  # the process edge
        return _sent(failure(error))
    return Sent(200, b"content-type: application/json\r\ncontent-length: %d\r\n" % len(encoded), encoded)


def _observe(metrics: Metrics, status: int, seconds: float) -> None:
    if status in REFUSED:
        metrics.refused(status)
    else:
        metrics.observe(RECOMMEND, status, seconds)


def _sent(response: Response) -> Sent:
    head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    return Sent(response.status_code, head, bytes(response.body), is_last="connection" in response.headers)


def _open_files() -> int:
    """How many of the files that this process may have open can be connections."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - min(SPARE_FILES, limit // 4)
