"""One span for each request, one in it for the wait for its body, and one for each answer that is ranked.

Spans go by OTLP over HTTP to a collector, in batches, from a thread of their own; what a full queue or a collector
that is down cannot take is lost, and never waited for. A request's `traceparent` is honoured (W3C Trace Context). Users
are hashed as they are in the log; no id stands in a span.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from reranker.deadline import Haste
from reranker.log import hash_user
from reranker.recommend import Clock, Reranker
from reranker.trending_now import Trending
from schemas import __version__

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from prediction_store.live_view import LiveView
    from prediction_store.reader import Store, Version
    from reranker.shown import Shown
    from schemas.config import Config
    from schemas.messages import ListAnswer, RecommendAnswer, RecommendRequest
    from schemas.serving_config import Serve

EXPORT_SECONDS: Final = 2.0
"""The collector gets this long to take a batch; at the end, a worker waits no longer for it."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
PATHS: Final = frozenset({
    "/v1/recommend", "/v1/recommend/batch", "/v1/popular", "/v1/trending", "/v1/events", "/v1/items", "/v1/version",
    "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs",
})  # fmt: skip
WITH_ID: Final = {"/v1/similar/": "{item}", "/v1/items/": "{item}", "/v1/users/": "{user}/candidates"}
BATCH: Final = "/v1/recommend/batch"
CONTEXT_HEADERS: Final = (b"traceparent", b"tracestate")
Facts = dict[str, str | int | bool]
_facts: ContextVar[Facts | None] = ContextVar("facts", default=None)
"""What is known of the answer to the request that is being traced; of several, of the last."""


class Traces:
    """Makes spans, and sends them from `start` to `stop`."""

    def __init__(self, serve: Serve) -> None:
        self._endpoint = serve.traces_endpoint
        self.provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(serve.traces_share)),
            resource=Resource.create({"service.name": "shortlist", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self.middleware = Traced
        self.tracer = self.provider.get_tracer("shortlist", __version__)

    def reranker(self, store: Store, config: Config, now: Clock, log_key: bytes) -> TracedReranker:
        """A re-ranker whose answers are spans; `log_key` hashes the users."""
        reranker = TracedReranker(store, config, now=now)
        reranker.tracer, reranker.log_key = self.tracer, log_key
        return reranker

    def start(self) -> None:
        """Begin to send. Requires: the process does not fork after it."""
        exporter = OTLPSpanExporter(endpoint=self._endpoint, timeout=EXPORT_SECONDS)
        self.provider.add_span_processor(BatchSpanProcessor(exporter))

    def stop(self) -> None:
        """Send what is left, if the collector takes it."""
        self.provider.shutdown()


class Traced:
    """The application, with a span for each request."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._tracer = traces.tracer
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        route = route_of(scope["path"])
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=self._propagator.extract(_carrier(scope)),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        ) as span:
            if span.is_recording():
                await self._recorded(span, scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _recorded(self, span: Span, scope: Scope, receive: Receive, send: Send) -> None:
        body = _BodySpan(self._tracer, receive)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    span.set_status(Status(StatusCode.ERROR))
            await send(message)

        facts: Facts = {}
        token = _facts.set(facts)
        try:
            await self._app(scope, body.receive, sending)
        finally:
            _facts.reset(token)
            # Of a batch, each answer has a span of its own.
            if route_of(scope["path"]) != BATCH:
                span.set_attributes(facts)


class TracedReranker(Reranker):
    """A re-ranker that says in the span of the request how each answer was made."""

    tracer: trace.Tracer
    log_key: bytes
    """With which users are hashed."""

    def recommend_checked(
        self, request: RecommendRequest, *, deadline_ms: int | None = None, arrived: float | None = None
    ) -> RecommendAnswer:
        with self.tracer.start_as_current_span("rank") as span:
            answer = super().recommend_checked(request, deadline_ms=deadline_ms, arrived=arrived)
            if span.is_recording():
                facts: Facts = {
                    "shortlist.version": answer.version,
                    "shortlist.rung": answer.rung,
                    "shortlist.k": self._config.serve.default_k if request.k is None else request.k,
                    "shortlist.items": len(answer.items),
                    "shortlist.stale": answer.stale,
                    "shortlist.user": hash_user(request.user, self.log_key),
                    "shortlist.request_id": answer.request_id,
                }
                span.set_attributes(facts)
                _note(facts)
        return answer

    def answer_on(
        self,
        version: Version,
        request: RecommendRequest,
        ignored: Mapping[str, int],
        live: LiveView,
        *,
        now: float,
        request_id: str,
        haste: Haste,
        holdout: str,
        trending: Trending | None,
        note: Callable[[Shown], None] | None,
    ) -> RecommendAnswer:
        candidates = 0

        def counting(part: Shown) -> None:
            nonlocal candidates
            candidates += part.candidates
            if note is not None:
                note(part)

        answer = super().answer_on(
            version, request, ignored, live,
            now=now, request_id=request_id, haste=haste, holdout=holdout, trending=trending, note=counting,
        )  # fmt: skip
        trace.get_current_span().set_attribute("shortlist.candidates", candidates)
        _note({"shortlist.candidates": candidates})
        return answer

    def similar(self, item: str, k: int | str | None = None) -> ListAnswer:
        return _noted(super().similar(item, k))

    def popular(self, segment: str = "", k: int | str | None = None) -> ListAnswer:
        return _noted(super().popular(segment, k))

    def trending(self, segment: str = "", k: int | str | None = None) -> ListAnswer:
        return _noted(super().trending(segment, k))

    def candidates(self, user: str, k: int | str | None = None) -> ListAnswer:
        return _noted(super().candidates(user, k))


class _BodySpan:
    """Receives a request, with a span from the first wait for its body to its end."""

    def __init__(self, tracer: trace.Tracer, receive: Receive) -> None:
        self._tracer = tracer
        self._receive = receive
        self._begun = 0
        self._is_done = False

    async def receive(self) -> Message:
        self._begun = self._begun or time.time_ns()
        message = await self._receive()
        if not self._is_done and not message.get("more_body", False):
            self._is_done = True
            self._tracer.start_span("read body", start_time=self._begun).end()
        return message


def route_of(path: str) -> str:
    """The path as the OpenAPI document has it, without ids; `other` for one that is not there."""
    if path in PATHS:
        return path
    return next((start + rest for start, rest in WITH_ID.items() if path.startswith(start)), "other")


def _carrier(scope: Scope) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name in CONTEXT_HEADERS
    }


def _note(facts: Facts) -> None:
    known = _facts.get()
    if known is not None:
        known.update(facts)


def _noted(answer: ListAnswer) -> ListAnswer:
    _note({"shortlist.version": answer.version, "shortlist.items": len(answer.items)})
    return answer
