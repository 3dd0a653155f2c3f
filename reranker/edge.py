"""The edge of the process: whatever a handler raises becomes JSON with a status, in this one place."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from prediction_store.errors import LiveItemsError
from reranker.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    NoTokenError,
    NotReadyError,
    NotRecordedError,
    OverloadedError,
    UnopenedVersionError,
    status_of,
)
from reranker.feedback import Feedback
from reranker.log import logger
from reranker.metrics import Metrics
from reranker.recommend import Clock, Reranker
from reranker.waiting import Waiting
from schemas.config import Config
from schemas.messages import ErrorAnswer

JSON = "application/json"
RETRY_AFTER_SECONDS = "1"
CHALLENGE = 'Bearer realm="shortlist"'
UNTOLD: dict[type[Exception], str] = {
    LiveItemsError: "the live facts about items cannot be used; the server's log says why",
    UnopenedVersionError: "the current version cannot be opened; the server's log says why",
}
"""What a client is told instead of a message that may name our files; of these classes, and not of those under them."""
log = logger(__name__)

Handler = Callable[[Request, "Service"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Service:
    """What the handlers work with; lives as long as the application."""

    config: Config
    reranker: Reranker
    metrics: Metrics
    feedback: Feedback
    waiting: Waiting
    now: Clock
    log_key: bytes
    openapi: bytes
    docs: bytes


def edge(handler: Handler, path: str = "") -> Callable[[Request], Awaitable[Response]]:
    """A handler that always answers, with an error as `failure` has it.

    It is counted under `path`, by default the request's own: for a route that stands for many.
    """

    async def answer(request: Request) -> Response:
        service: Service = request.state.service
        started = time.perf_counter()
        try:
            response = await handler(request, service)
        except ClientDisconnect:
            response = Response(status_code=400)  # nobody is there to read it
        except Exception as error:  # the process edge
            response = failure(error)
            if isinstance(error, BodyTooSlowError):
                service.metrics.closed.inc(1.0, "slow")
        service.metrics.observe(path or request.scope["path"], response.status_code, time.perf_counter() - started)
        return response

    return answer


def failure(error: Exception) -> Response:
    """An error as JSON with its status."""
    status, name = status_of(error)
    if status == 500:
        log.error("request failed", exc_info=error)
        return as_json(ErrorAnswer(error=name, message="the server failed; its log says why"), status)
    if isinstance(error, LiveItemsError):  # that a version cannot be opened is logged by who tries to
        log.error("live facts about items not used", reason=str(error))
    message = UNTOLD.get(type(error), getattr(error, "message", ""))
    response = as_json(ErrorAnswer(error=name, message=message, field=getattr(error, "field", None)), status)
    if isinstance(error, (NotReadyError, NotRecordedError, OverloadedError)):
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    if isinstance(error, NoTokenError):
        response.headers["WWW-Authenticate"] = CHALLENGE
    if isinstance(error, (BodyTooLargeError, BodyTooSlowError)):
        response.headers["Connection"] = "close"  # the rest of the body is not read
    return response


async def unrouted(request: Request, error: Exception) -> Response:
    """404 and 405, as JSON."""
    assert isinstance(error, HTTPException)
    known = {404: ("not_found", "there is no such path"), 405: ("method_not_allowed", "the path has other methods")}
    name, message = known.get(error.status_code, ("http_error", str(error.detail)))
    request.state.service.metrics.requests.inc(1.0, "other", str(error.status_code))
    response = as_json(ErrorAnswer(error=name, message=message), error.status_code)
    response.headers.update(error.headers or {})
    return response


def as_json(answer: msgspec.Struct, status: int = 200) -> Response:
    """A message as the body of a response."""
    return Response(msgspec.json.encode(answer), status, media_type=JSON)
