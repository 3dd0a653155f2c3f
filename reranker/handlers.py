"""What each route does: thin handlers over the re-ranker, the sessions and the live facts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from prediction_store.ttl import freshness_of
from reranker import docs_page, items
from reranker.bodies import read_body
from reranker.connections import Headers
from reranker.deadline import HEADER
from reranker.edge import JSON, Service, as_json
from reranker.events import decode_events
from reranker.log import hash_user, logger
from reranker.metrics import CONTENT_TYPE
from reranker.requests import decode_deadline, decode_many, decode_query, decode_request, max_batch_bytes
from schemas.messages import (
    EventsAnswer,
    Health,
    ListAnswer,
    Readiness,
    RecommendAnswer,
    RecommendManyAnswer,
    RecommendRequest,
    VersionAnswer,
)

DEADLINE = HEADER.lower().encode()
log = logger(__name__)


async def recommend(request: Request, service: Service) -> Response:
    """POST /v1/recommend"""
    arrived = service.reranker.timer()
    body = await read_body(request, service.config.serve)
    return as_json(await service.waiting.turn(partial(answer_body, request.headers.raw, body, arrived, service)))


async def recommend_many(request: Request, service: Service) -> Response:
    """POST /v1/recommend/batch"""
    arrived = service.reranker.timer()
    limit_ms = _limit_ms(request.headers.raw)
    serve = service.config.serve
    body = await read_body(request, serve, max_bytes=max_batch_bytes(serve))
    requests = await service.waiting.turn(partial(decode_many, body, serve))
    # Others wait for one answer at most, not for a hundred.
    answers = [
        await service.waiting.turn(partial(_answered, wanted, service, limit_ms, arrived), is_admitted=True)
        for wanted in requests
    ]
    return as_json(RecommendManyAnswer(answers=answers))


async def similar(request: Request, service: Service) -> Response:
    """GET /v1/similar/{item}"""
    fields = decode_query(request.query_params.multi_items(), ["k"])
    found = partial(service.reranker.similar, request.path_params["item"], fields.get("k"))
    return as_json(await service.waiting.turn(found))


async def popular(request: Request, service: Service) -> Response:
    """GET /v1/popular"""
    return await _of_segment(request, service, service.reranker.popular)


async def trending(request: Request, service: Service) -> Response:
    """GET /v1/trending"""
    return await _of_segment(request, service, service.reranker.trending)


async def candidates(request: Request, service: Service) -> Response:
    """GET /v1/users/{user}/candidates"""
    fields = decode_query(request.query_params.multi_items(), ["k"])
    found = partial(service.reranker.candidates, request.path_params["user"], fields.get("k"))
    return as_json(await service.waiting.turn(found))


async def events(request: Request, service: Service) -> Response:
    """POST /v1/events"""
    serve = service.config.serve
    wanted = decode_events(await read_body(request, serve, max_bytes=serve.max_events_body_bytes), serve)
    return as_json(EventsAnswer(accepted=await service.feedback.take(wanted)))


async def change_items(request: Request, service: Service) -> Response:
    """POST /v1/items"""
    serve, reranker = service.config.serve, service.reranker
    changes = items.decode_changes(await read_body(request, serve, max_bytes=items.max_body_bytes(serve)), serve)
    answer = await items.change_items(reranker.live, reranker.store, changes, service.now())
    service.metrics.item_changes.inc(answer.changed)
    log.info("items changed", changed=answer.changed, asked=len(changes))
    return as_json(answer)


async def item(request: Request, service: Service) -> Response:
    """GET /v1/items/{item}"""
    reranker = service.reranker
    return as_json(items.read_item(reranker.live, reranker.store, request.path_params["item"], service.now))


async def version(request: Request, service: Service) -> Response:
    """GET /v1/version"""
    with (held := service.reranker.current()) as current:
        manifest = current.manifest
        fresh = freshness_of(manifest.made_at, manifest.expires_at, service.now(), service.config.store)
        return as_json(
            VersionAnswer(
                version=current.name,
                number=held.number,
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
    return as_json(Health(alive=True))


async def readyz(request: Request, service: Service) -> Response:
    """GET /readyz"""
    with service.reranker.current() as current:
        return as_json(Readiness(ready=True, version=current.name))


async def metrics(request: Request, service: Service) -> Response:
    """GET /metrics"""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def openapi_json(request: Request, service: Service) -> Response:
    """GET /openapi.json"""
    return Response(service.openapi, media_type=JSON)


async def docs(request: Request, service: Service) -> Response:
    """GET /docs"""
    return Response(service.docs, media_type="text/html", headers=docs_page.HEADERS)


def answer_body(headers: Headers, body: bytes, arrived: float, service: Service) -> RecommendAnswer:
    """The answer to the request in a body, by whichever way it came; raises what the edge turns into a status."""
    # Less than a millisecond of work: handing it to a thread would cost more than it frees.
    return _answered(decode_request(body), service, _limit_ms(headers), arrived)


async def _of_segment(request: Request, service: Service, of: Callable[[str, str | None], ListAnswer]) -> Response:
    fields = decode_query(request.query_params.multi_items(), ["k", "segment"])
    return as_json(await service.waiting.turn(partial(of, fields.get("segment", ""), fields.get("k"))))


def _limit_ms(headers: Headers) -> int | None:
    return decode_deadline(next((value.decode("latin-1") for name, value in headers if name == DEADLINE), None))


def _answered(wanted: RecommendRequest, service: Service, limit_ms: int | None, arrived: float) -> RecommendAnswer:
    """The answer to one request, counted."""
    answer = service.reranker.recommend_checked(wanted, deadline_ms=limit_ms, arrived=arrived)
    service.metrics.count(answer)
    service.metrics.count_live_failures(service.reranker.views.failures)
    if answer.reason == "damaged_record":
        user = hash_user(wanted.user, service.log_key)
        log.error("damaged record", version=answer.version, user=user, request_id=answer.request_id)
    return answer
