"""The OpenAPI document, made from the message structs and the limits of this server."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from types import ModuleType
from typing import Any

import msgspec

from reranker.access import role_for
from reranker.deadline import HEADER, MAX_DEADLINE_MS
from reranker.errors import STATUS, status_of
from reranker.items import max_body_bytes
from reranker.requests import max_batch_bytes
from reranker.tokens import ROLES
from schemas import live_items, messages
from schemas.live_items import ItemChanges, ItemChangesAnswer, ItemNow
from schemas.messages import (
    ErrorAnswer,
    EventsAnswer,
    EventsRequest,
    Health,
    ListAnswer,
    Readiness,
    RecommendAnswer,
    RecommendManyAnswer,
    RecommendManyRequest,
    RecommendRequest,
    VersionAnswer,
)
from schemas.serving_config import Serve

LIVE_ITEMS_503 = "The live facts about items cannot be written, or those of this one not be read."
REF = "#/components/schemas/{name}"
DESCRIPTIONS = {
    404: "Nothing is known of the item or user.",
    421: "The user's list is on other hosts.",
    400: "The body is not JSON in UTF-8. Up to 16 KB, `field` names the value that is not: NaN, or half a character.",
    401: "No token was given that this server knows.",
    403: "The token's role is not enough.",
    408: "The body did not arrive in time.",
    413: "The body is longer than {:,} bytes.",
    415: "The body is not application/json.",
    422: "A field is missing, unknown, given twice, of the wrong type or out of bounds. Of a whole number the"
    " fraction is refused, .0 too.",
    431: "The head is too large.",
    500: "A fault of the server.",
    503: "No verified version is served yet, too many requests wait, or events could not be recorded; try again.",
}
UNRAISED = ((400, "malformed_request"), (404, "not_found"), (405, "method_not_allowed"), (431, "head_too_large"))
"""Status and name of what is refused before a handler has it."""


def document(serve: Serve, program_version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server with these limits."""
    structs = [RecommendRequest, RecommendAnswer, EventsRequest, EventsAnswer]
    structs += [RecommendManyRequest, RecommendManyAnswer, ListAnswer]
    structs += [VersionAnswer, Health, Readiness, ErrorAnswer]
    structs += [ItemChanges, ItemChangesAnswer, ItemNow]
    _, schemas = msgspec.json.schema_components(structs, ref_template=REF)
    for name, fields in _field_docs(messages, live_items):
        for field, text in fields:
            schemas.get(name, {"properties": {}})["properties"].get(field, {}).setdefault("description", text)
    schemas["ErrorAnswer"]["properties"]["error"]["description"] = f"Short, for programs: {_error_names()}."
    wanted = schemas["RecommendRequest"]["properties"]
    wanted["k"] = {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": serve.max_k}, {"type": "null"}],
        "default": None,
        "description": f"How many items; absent: {serve.default_k}.",
    }
    schemas["RecommendManyRequest"]["properties"]["requests"]["maxItems"] = serve.max_batch
    wanted["session"]["maxItems"] = serve.max_session_events
    wanted["exclude"]["maxItems"] = serve.max_exclusions
    schemas["EventsRequest"]["properties"]["events"]["maxItems"] = serve.max_events
    schemas["ItemChanges"]["properties"]["items"]["maxItems"] = serve.max_item_changes
    schemas["ItemChange"]["minProperties"] = 2  # one that names an item and says nothing of it is refused
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Shortlist",
            "version": program_version,
            "summary": "Precomputed lists, re-ranked in the request.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/recommend": {"post": _recommend(serve)},
            "/v1/recommend/batch": {"post": _recommend_many(serve)},
            "/v1/similar/{item}": {"get": _list("similar", "The items nearest to an item.", serve, in_path="item")},
            "/v1/popular": {"get": _list("popular", "What is popular.", serve, in_query="segment")},
            "/v1/trending": {"get": _list("trending", "What is popular of late.", serve, in_query="segment")},
            "/v1/users/{user}/candidates": {"get": _list("candidates", "A list as stored.", serve, in_path="user")},
            "/v1/events": {"post": _events(serve)},
            "/v1/items": {"post": _change_items(serve)},
            "/v1/items/{item}": {"get": _item()},
            "/v1/version": {"get": _get("version", "The version that is served.", VersionAnswer, may_lack=True)},
            "/healthz": {"get": _get("healthz", "Whether the process answers.", Health)},
            "/readyz": {"get": _get("readyz", "Whether a verified version is served.", Readiness, may_lack=True)},
            "/metrics": {"get": _text("metrics", "Prometheus metrics.")},
            "/openapi.json": {"get": _object("openapi", "This document.")},
            "/docs": {"get": _text("docs", "This document as a page for people.", "text/html")},
        },
        "components": {"schemas": schemas},
    }
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["responses"]["431"] = _response(DESCRIPTIONS[431], ErrorAnswer)
    if serve.tokens_file:
        _want_tokens(described)
    return described


def _field_docs(*modules: ModuleType) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The strings under the fields of each class, which exist in the source only."""
    for module in modules:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                yield (
                    node.name,
                    [
                        (field.target.id, " ".join(text.value.value.split()))
                        for field, text in pairwise(node.body)
                        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                        if isinstance(text.value.value, str)
                    ],
                )


def _want_tokens(described: dict[str, Any]) -> None:
    """Say of each operation which role it wants, and how it refuses."""
    described["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": f"Roles: {', '.join(ROLES)}; each may do more."}
    }
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            role = role_for(method.upper(), path)
            if role is None:
                continue
            operation["security"] = [{"token": []}]
            operation["x-role"] = role
            operation["responses"] |= {
                str(status): _response(DESCRIPTIONS[status], ErrorAnswer) for status in (401, 403)
            }
            operation["responses"]["401"]["headers"] = {
                "WWW-Authenticate": {"schema": {"type": "string"}, "description": "The scheme, Bearer."}
            }


def _recommend(serve: Serve) -> dict[str, Any]:
    summary = "One user's best items, given what the user did in the last seconds."
    answer = _response("The ranked items.", RecommendAnswer)
    return {**_post("recommend", summary, RecommendRequest, answer, serve.max_body_bytes), "parameters": [_deadline()]}


def _recommend_many(serve: Serve) -> dict[str, Any]:
    answer = _response("The answers in the order of the requests.", RecommendManyAnswer)
    summary = "Answers to several requests at once."
    found = _post("recommend_many", summary, RecommendManyRequest, answer, max_batch_bytes(serve))
    return {**found, "parameters": [_deadline()]}


def _deadline() -> dict[str, Any]:
    return {
        "name": HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS},
        "description": "Milliseconds from arrival after which the answer is too late; all answers of a batch together.",
    }


def _list(name: str, summary: str, serve: Serve, *, in_path: str = "", in_query: str = "") -> dict[str, Any]:
    found = _get(name, summary, ListAnswer, may_lack=True)
    found["responses"]["422"] = _response(DESCRIPTIONS[422], ErrorAnswer)
    if in_path:
        found["responses"]["404"] = _response(DESCRIPTIONS[404], ErrorAnswer)
    if in_path == "user":
        found["responses"]["421"] = _response(DESCRIPTIONS[421], ErrorAnswer)
    k = {"type": "integer", "minimum": 1, "maximum": serve.max_k, "default": serve.default_k}
    parameters = [{"name": "k", "in": "query", "required": False, "schema": k}]
    if in_path:
        parameters.append({"name": in_path, "in": "path", "required": True, "schema": {"type": "string"}})
    if in_query:
        parameters.append({"name": in_query, "in": "query", "required": False, "schema": {"type": "string"}})
    return {**found, "parameters": parameters}


def _events(serve: Serve) -> dict[str, Any]:
    answer = _response("All events are on disk and in the sessions of their users.", EventsAnswer)
    summary = "What users did. Sending the same again is safe."
    return _post("events", summary, EventsRequest, answer, serve.max_events_body_bytes)


def _post(name: str, summary: str, wanted: type, answer: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    responses = {"200": answer, **_refusals(max_bytes)}
    responses["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": _content(wanted)},
        "responses": responses,
    }


def _change_items(serve: Serve) -> dict[str, Any]:
    answer = _response("What has been changed.", ItemChangesAnswer)
    responses = {"200": answer, **_refusals(max_body_bytes(serve))}
    responses["503"] = _response(LIVE_ITEMS_503, ErrorAnswer)
    return {
        "operationId": "change_items",
        "summary": "Facts about items that change within the day; durable, and seen by the next request to any worker.",
        "requestBody": {"required": True, "content": _content(ItemChanges)},
        "responses": responses,
    }


def _item() -> dict[str, Any]:
    found = _get("item", "The facts about one item as they are now.", ItemNow)
    found["responses"] |= {
        "404": _response(DESCRIPTIONS[404], ErrorAnswer),
        "503": _response(LIVE_ITEMS_503, ErrorAnswer),
    }
    parameter = {"name": "item", "in": "path", "required": True, "schema": {"type": "string"}}
    return {**found, "parameters": [parameter]}


def _refusals(max_bytes: int) -> dict[str, Any]:
    """Every way to refuse a body of at most so many bytes."""
    statuses = sorted({status for _, status, _ in STATUS} - {401, 403, 404, 421} | {500})
    return {str(status): _response(DESCRIPTIONS[status].format(max_bytes), ErrorAnswer) for status in statuses}


def _error_names() -> str:
    """What each status is called in an answer."""
    known = sorted({(status, name) for _, status, name in STATUS} | {*UNRAISED, status_of(Exception())})
    by_status = groupby(known, itemgetter(0))
    return "; ".join(f"{status} {', '.join(name for _, name in named)}" for status, named in by_status)


def _get(name: str, summary: str, answer: type, *, may_lack: bool = False) -> dict[str, Any]:
    responses = {"200": _response(summary, answer)}
    if may_lack:
        responses["503"] = _response(DESCRIPTIONS[503], ErrorAnswer)
    return {"operationId": name, "summary": summary, "responses": responses}


def _text(name: str, summary: str, media_type: str = "text/plain") -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "string"}}}
    return {"operationId": name, "summary": summary, "responses": {"200": {"description": summary, "content": content}}}


def _object(name: str, summary: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"operationId": name, "summary": summary, "responses": {"200": {"description": summary, "content": content}}}


def _response(description: str, answer: type) -> dict[str, Any]:
    return {"description": description, "content": _content(answer)}


def _content(struct: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF.format(name=struct.__name__)}}}
