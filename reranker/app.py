"""The HTTP application: its routes, and its resources from the start of the server to its end."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import Route

from prediction_store.reader import Store
from reranker import docs_page, handlers, openapi
from reranker.access import Guard, refusal_of
from reranker.connections import Headers
from reranker.counts import Counts
from reranker.edge import Service, edge, failure, unrouted
from reranker.feedback import Feedback
from reranker.follow import Follower
from reranker.log import logger
from reranker.metrics import Metrics
from reranker.recommend import Clock, Reranker
from reranker.short_way import RECOMMEND, open_door
from reranker.tokens import Gatekeeper
from reranker.traces import open_traces
from reranker.waiting import Waiting
from schemas import __version__
from schemas.config import Config
from schemas.messages import RecommendAnswer

log = logger(__name__)


class Id(PathConvertor):
    """An id in a path: any text, slashes and line ends too, which Starlette's own leave out."""

    regex = "(?s:.*)"


register_url_convertor("id", Id())

ROUTES = [
    Route("/v1/recommend", edge(handlers.recommend), methods=["POST"]),
    Route("/v1/recommend/batch", edge(handlers.recommend_many), methods=["POST"]),
    # The counters know the path without the id.
    Route("/v1/similar/{item:id}", edge(handlers.similar, "/v1/similar/{item}"), methods=["GET"]),
    Route("/v1/popular", edge(handlers.popular), methods=["GET"]),
    Route("/v1/trending", edge(handlers.trending), methods=["GET"]),
    Route(
        "/v1/users/{user:id}/candidates",
        edge(handlers.candidates, "/v1/users/{user}/candidates"),
        methods=["GET"],
    ),
    Route("/v1/events", edge(handlers.events), methods=["POST"]),
    Route("/v1/items", edge(handlers.change_items), methods=["POST"]),
    Route("/v1/items/{item:id}", edge(handlers.item, "/v1/items/{item}"), methods=["GET"]),
    Route("/v1/version", edge(handlers.version), methods=["GET"]),
    Route("/healthz", edge(handlers.healthz), methods=["GET"]),
    Route("/readyz", edge(handlers.readyz), methods=["GET"]),
    Route("/metrics", edge(handlers.metrics), methods=["GET"]),
    Route("/openapi.json", edge(handlers.openapi_json), methods=["GET"]),
    Route("/docs", edge(handlers.docs), methods=["GET"]),
]


def create_app(
    config: Config, *, now: Clock = time.time, log_key: bytes | None = None, counts: Counts | None = None
) -> Starlette:
    """The application over the store that the configuration names; opens it when the server starts, not before.

    `counts`: where the application counts; None: for itself.
    """

    log_key = secrets.token_bytes(16) if log_key is None else log_key
    traces = open_traces(config.serve)
    gatekeeper = _gatekeeper(config.serve.tokens_file)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        document = openapi.document(config.serve, __version__)
        store = Store(Path(config.paths.store), now=now)
        reranker = Reranker(store, config, now=now) if traces is None else traces.reranker(store, config, now, log_key)
        metrics = Metrics(store, config.store, now, reranker.live_view, Counts() if counts is None else counts)
        feedback = Feedback(config, metrics, now)
        reranker.known_of, reranker.on_answer = feedback.known_of, feedback.answered if config.log.answers else None
        reranker.trending_now = feedback.trending_now()
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
                # By the short way of `reranker.connections` no middleware sees a request; what the guard asks is asked
                # there too.
                is_open={middleware.cls for middleware in app.user_middleware} <= {Guard},
                answer=partial(_answer_plain, service, gatekeeper),
                failure=failure,
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
        routes=ROUTES,
        exception_handlers={HTTPException: unrouted},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would make clients repeat a POST as a GET
    if gatekeeper is not None:
        app.add_middleware(Guard, gatekeeper=gatekeeper)
    if traces is not None:
        app.add_middleware(traces.middleware, traces=traces)
    return app


def _gatekeeper(file: str) -> Gatekeeper | None:
    return Gatekeeper(Path(file), lambda why: log.error("tokens not read", reason=why)) if file else None


def _answer_plain(
    service: Service, gatekeeper: Gatekeeper | None, headers: Headers, body: bytes, arrived: float
) -> RecommendAnswer:
    """The answer to a recommendation that came by the short way, where no middleware has asked for a token."""
    refusal = None if gatekeeper is None else refusal_of(gatekeeper, "POST", RECOMMEND, headers)
    if refusal is not None:
        raise refusal
    return handlers.answer_body(headers, body, arrived, service)
