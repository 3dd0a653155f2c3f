"""The HTTP application: thin handlers over the re-ranker, resources in the lifespan, one edge for errors."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from prediction_store.reader import Store
from prediction_store.ttl import state_of
from reranker import docs_page, items, openapi
from reranker.access import Guard
from reranker.bodies import read_body
from reranker.connections import Headers
from reranker.deadline import HEADER
from reranker.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    NotReadyError,
    NotRecordedError,
    OverloadedError,
    status_of,
)
from reranker.events import decode_events
from reranker.feedback import Feedback
from reranker.follow import Follower
from reranker.log import hash_user, logger
from reranker.metrics import CONTENT_TYPE, Metrics
from reranker.recommend import Clock, Reranker, not_ready
from reranker.requests import decode_deadline, decode_many, decode_query, decode_request
from reranker.short_way import open_door
from reranker.tokens import Gatekeeper
from reranker.traces import open_traces
from reranker.waiting import Waiting
from schemas import __version__
from schemas.config import Config
from schemas.messages import (
    ErrorAnswer,
    EventsAnswer,
    Health,
    Readiness,
    RecommendAnswer,
    RecommendManyAnswer,
    RecommendRequest,
    VersionAnswer,
)

JSON = "application/json"
DEADLINE = HEADER.lower().encode()
RETRY_AFTER_SECONDS = "1"
BYTES_PER_REQUEST = 4096
"""Of a batch."""
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


def create_app(
    config: Config, *, now: Clock = time.time, log_key: bytes | None = None, counts: Path | None = None
) -> Starlette:
    """The application over the store that the configuration names; opens it when the server starts, not before.

    `counts`: the folder through which several workers share what they count.
    """

    log_key = secrets.token_bytes(16) if log_key is None else log_key
    traces = open_traces(config.serve)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        document = openapi.document(config.serve, __version__)
        store = Store(Path(config.paths.store), now=now)
        reranker = Reranker(store, config, now=now) if traces is None else traces.reranker(store, config, now, log_key)
        metrics = Metrics(store, config.store, now, reranker.live_view, counts)
        feedback = Feedback(config, metrics, now)
        reranker.known_of, reranker.on_answer = feedback.known_of, feedback.answered if config.log.answers else None
        store.prepare = reranker.prepare
        follower = Follower(store, config.serve.poll_seconds)
        follower.start()
        feedback.start()
        if traces is not None:
            traces.start()
        try:
            service = Service(
                config=config,
                reranker=reranker,
                metrics=metrics,
                feedback=feedback,
                waiting=Waiting(config.serve.max_wait_ms / 1000),
                now=now,
                log_key=log_key,
                openapi=msgspec.json.encode(document),
                docs=docs_page.page(document),
            )
            door = open_door(
                config.serve,
                metrics,
                service.waiting,
                # By the short way of `reranker.connections` no middleware sees a request.
                is_open=not app.user_middleware,
                answer=lambda headers, body, arrived: _answer_body(headers, body, arrived, service),
                failure=_failure,
            )
            yield {"service": service, "door": door}
        finally:
            feedback.stop()
            follower.stop()
            reranker.close()
            store.close()
            if traces is not None:
                traces.stop()

    app = Starlette(
        routes=[
            Route("/v1/recommend", _edge(recommend), methods=["POST"]),
            Route("/v1/recommend/batch", _edge(recommend_many), methods=["POST"]),
            # An id may hold a slash. The counters know the path without it.
            Route("/v1/similar/{item:path}", _edge(similar, "/v1/similar/{item}"), methods=["GET"]),
            Route("/v1/popular", _edge(popular), methods=["GET"]),
            Route(
                "/v1/users/{user:path}/candidates", _edge(candidates, "/v1/users/{user}/candidates"), methods=["GET"]
            ),
            Route("/v1/events", _edge(events), methods=["POST"]),
            Route("/v1/items", _edge(change_items), methods=["POST"]),
            Route("/v1/items/{item:path}", _edge(item, "/v1/items/{item}"), methods=["GET"]),
            Route("/v1/version", _edge(version), methods=["GET"]),
            Route("/healthz", _edge(healthz), methods=["GET"]),
            Route("/readyz", _edge(readyz), methods=["GET"]),
            Route("/metrics", _edge(metrics), methods=["GET"]),
            Route("/openapi.json", _edge(openapi_json), methods=["GET"]),
            Route("/docs", _edge(docs), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _unrouted},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would make clients repeat a POST as a GET
    if config.serve.tokens_file:
        gatekeeper = Gatekeeper(Path(config.serve.tokens_file), lambda why: log.error("tokens not read", reason=why))
        app.add_middleware(Guard, gatekeeper=gatekeeper)
    if traces is not None:
        app.add_middleware(traces.middleware, traces=traces)
    return app


async def recommend(request: Request, service: Service) -> Response:
    """POST /v1/recommend"""
    arrived = service.reranker.timer()
    body = await read_body(request, service.config.serve)
    return _json(await service.waiting.turn(partial(_answer_body, request.headers.raw, body, arrived, service)))


async def recommend_many(request: Request, service: Service) -> Response:
    """POST /v1/recommend/batch"""
    arrived = service.reranker.timer()
    limit_ms = _limit_ms(request.headers.raw)
    serve = service.config.serve
    most = max(serve.max_body_bytes, serve.max_batch * BYTES_PER_REQUEST)
    body = await read_body(request, serve, max_bytes=most)
    requests = await service.waiting.turn(partial(decode_many, body, serve))
    # Others wait for one answer at most, not for a hundred.
    answers = [
        await service.waiting.turn(partial(_answered, wanted, service, limit_ms, arrived), is_admitted=True)
        for wanted in requests
    ]
    return _json(RecommendManyAnswer(answers=answers))


async def similar(request: Request, service: Service) -> Response:
    """GET /v1/similar/{item}"""
    fields = decode_query(request.query_params.multi_items(), ["k"])
    found = partial(service.reranker.similar, request.path_params["item"], fields.get("k"))
    return _json(await service.waiting.turn(found))


async def popular(request: Request, service: Service) -> Response:
    """GET /v1/popular"""
    fields = decode_query(request.query_params.multi_items(), ["k", "segment"])
    found = partial(service.reranker.popular, fields.get("segment", ""), fields.get("k"))
    return _json(await service.waiting.turn(found))


async def candidates(request: Request, service: Service) -> Response:
    """GET /v1/users/{user}/candidates"""
    fields = decode_query(request.query_params.multi_items(), ["k"])
    found = partial(service.reranker.candidates, request.path_params["user"], fields.get("k"))
    return _json(await service.waiting.turn(found))


async def events(request: Request, service: Service) -> Response:
    """POST /v1/events"""
    serve = service.config.serve
    wanted = decode_events(await read_body(request, serve, max_bytes=serve.max_events_body_bytes), serve)
    return _json(EventsAnswer(accepted=await service.feedback.take(wanted)))


async def change_items(request: Request, service: Service) -> Response:
    """POST /v1/items"""
    serve, reranker = service.config.serve, service.reranker
    changes = items.decode_changes(await read_body(request, serve, max_bytes=items.max_body_bytes(serve)), serve)
    answer = await items.change_items(reranker.live, reranker.store, changes, service.now())
    service.metrics.item_changes.inc(answer.changed)
    log.info("items changed", changed=answer.changed, asked=len(changes))
    return _json(answer)


async def item(request: Request, service: Service) -> Response:
    """GET /v1/items/{item}"""
    reranker = service.reranker
    return _json(items.read_item(reranker.live, reranker.store, request.path_params["item"], service.now))


async def version(request: Request, service: Service) -> Response:
    """GET /v1/version"""
    store = service.reranker.store
    if not store.is_ready:
        raise not_ready(store)
    number = store.history_number or 0
    with store.acquire() as current:
        manifest = current.manifest
        fresh = state_of(manifest.made_at, manifest.expires_at, service.now(), service.config.store)
        return _json(
            VersionAnswer(
                version=current.name,
                number=number,
                age_seconds=fresh.age_seconds,
                stale=fresh.is_expired,
                items=current.n_items,
                users=current.n_users,
                dimensions=current.dimensions,
                space_id=manifest.space_id,
                shards=str(current.held),
            )
        )


async def healthz(request: Request, service: Service) -> Response:
    """GET /healthz"""
    return _json(Health(alive=True))


async def readyz(request: Request, service: Service) -> Response:
    """GET /readyz"""
    store = service.reranker.store
    if not store.is_ready:
        raise not_ready(store)
    with store.acquire() as current:
        return _json(Readiness(ready=True, version=current.name))


async def metrics(request: Request, service: Service) -> Response:
    """GET /metrics"""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def openapi_json(request: Request, service: Service) -> Response:
    """GET /openapi.json"""
    return Response(service.openapi, media_type=JSON)


def _answer_body(headers: Headers, body: bytes, arrived: float, service: Service) -> RecommendAnswer:
    # Less than a millisecond of work: handing it to a thread would cost more than it frees.
    return _answered(decode_request(body), service, _limit_ms(headers), arrived)


def _limit_ms(headers: Headers) -> int | None:
    return decode_deadline(next((value.decode("latin-1") for name, value in headers if name == DEADLINE), None))


async def docs(request: Request, service: Service) -> Response:
    """GET /docs"""
    return Response(service.docs, media_type="text/html", headers=docs_page.HEADERS)


def _answered(wanted: RecommendRequest, service: Service, limit_ms: float | None, arrived: float) -> RecommendAnswer:
    """The answer to one request, counted."""
    answer = service.reranker.recommend(wanted, deadline_ms=limit_ms, arrived=arrived)
    service.metrics.count(answer)
    service.metrics.count_live_failures(service.reranker.views.failures)
    if answer.reason == "damaged_record":
        user = hash_user(wanted.user, service.log_key)
        log.error("damaged record", version=answer.version, user=user, request_id=answer.request_id)
    return answer


def _edge(handler: Handler, path: str = "") -> Callable[[Request], Awaitable[Response]]:
    """A handler that always answers: every error becomes JSON with a status, in this one place.

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
            response = _failure(error)
        service.metrics.observe(path or request.scope["path"], response.status_code, time.perf_counter() - started)
        return response

    return answer


def _failure(error: Exception) -> Response:
    status, name = status_of(error)
    if status == 500:
        log.error("request failed", exc_info=error)
        return _json(ErrorAnswer(error=name, message="the server failed; its log says why"), status)
    message = getattr(error, "message", "")
    response = _json(ErrorAnswer(error=name, message=message, field=getattr(error, "field", None)), status)
    if isinstance(error, (NotReadyError, NotRecordedError, OverloadedError)):
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    if isinstance(error, (BodyTooLargeError, BodyTooSlowError)):
        response.headers["Connection"] = "close"  # the rest of the body is not read
    return response


async def _unrouted(request: Request, error: Exception) -> Response:
    """404 and 405, as JSON."""
    assert isinstance(error, HTTPException)
    known = {404: ("not_found", "there is no such path"), 405: ("method_not_allowed", "the path has other methods")}
    name, message = known.get(error.status_code, ("http_error", str(error.detail)))
    request.state.service.metrics.requests.inc(1.0, "other", str(error.status_code))
    response = _json(ErrorAnswer(error=name, message=message), error.status_code)
    response.headers.update(error.headers or {})
    return response


def _json(answer: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status, media_type=JSON)
