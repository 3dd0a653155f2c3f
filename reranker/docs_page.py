"""The OpenAPI document as one page for people. It loads nothing from elsewhere: it works without the internet."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Final

Node = Mapping[str, Any]
_STYLE: Final = files("reranker").joinpath("docs_page.css").read_text(encoding="utf-8")
_SCRIPT: Final = files("reranker").joinpath("docs_page.js").read_text(encoding="utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HEADERS: Final = {
    "content-security-policy": f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Nothing but the page's own style and script is run, whatever stands in it."""
EXAMPLES: Final[Mapping[str, Any]] = {
    "recommend": {"user": "u0009917", "k": 5, "session": [{"item": "i0001901", "event": "view"}], "explain": True},
    "recommend_many": {"requests": [{"user": "u0009917", "k": 5}, {"user": "u0000042", "placement": "basket"}]},
    "events": {"events": [{"user": "u0009917", "item": "i0001901", "event": "cart"}]},
    "change_items": {
        "items": [
            {"item": "i0001901", "in_stock": False, "price": 9.5},
            {"item": "i0099999", "in_stock": True, "title": "Red hat", "category": "hats", "brand": "acme"},
        ]
    },
}
"""Bodies by operation."""
ORIGIN: Final = "http://127.0.0.1:8080"
"""Of the examples; the script puts the page's own in its place."""
PLACES: Final = {"{item}": "i0001901", "{user}": "u0009917"}
GROUPS: Final = (
    ("Ask", ("recommend", "recommend_many", "similar", "popular", "trending", "candidates")),
    ("Tell", ("events", "change_items", "item")),
    ("Watch", ("version", "healthz", "readyz", "metrics", "openapi", "docs")),
)


def page(document: Node) -> bytes:
    """The page of an OpenAPI document."""
    operations = {
        operation["operationId"]: (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    grouped = [(title, [name for name in names if name in operations]) for title, names in GROUPS]
    known = {name for _, names in grouped for name in names}
    grouped.append(("More", [name for name in operations if name not in known]))
    grouped = [(title, names) for title, names in grouped if names]
    schemas = document["components"]["schemas"]
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{_text(info['title'])} API</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style></head><body>",
        f"<nav><h1>{_text(info['title'])}</h1><p class=version>{_text(info['version'])}</p>",
        *_contents(grouped, operations, schemas),
        "</nav><main>",
        f"<p class=lead>{_text(info['summary'])} Bodies are JSON in UTF-8; unknown fields are refused. Times are UTC"
        " epoch seconds. An error is <code>{error, message, field}</code> with the status of its kind.</p>",
        *_tokens(document),
    ]
    for title, names in grouped:
        parts.append(f"<h2>{title}</h2>")
        for name in names:
            parts += _operation(*operations[name], schemas)
    parts += ["<h2>Messages</h2>", *(part for name in sorted(schemas) for part in _schema(name, schemas))]
    parts.append(f"</main><script>{_SCRIPT}</script></body></html>")
    return "".join(parts).encode()


def _contents(grouped: list[tuple[str, list[str]]], operations: Mapping[str, Any], schemas: Node) -> Iterator[str]:
    for title, names in grouped:
        yield f"<h3>{title}</h3><ul>"
        for name in names:
            path, method, _ = operations[name]
            yield f"<li><a href='#{name}'><b class={method}>{method.upper()}</b> <span>{_path(path)}</span></a></li>"
        yield "</ul>"
    yield "<h3>Messages</h3><ul>"
    yield from (f"<li><a href='#{name}'>{name}</a></li>" for name in sorted(schemas))
    yield "</ul>"


def _tokens(document: Node) -> Iterator[str]:
    if "securitySchemes" in document["components"]:
        yield (
            "<p class=note>This server wants a token: <code>Authorization: Bearer TOKEN</code>. Roles, each may do what"
            " those before it may: read, write, operate.</p>"
        )


def _operation(path: str, method: str, operation: Node, schemas: Node) -> Iterator[str]:
    name = operation["operationId"]
    role = f"<span class=role>role: {_text(operation['x-role'])}</span>" if "x-role" in operation else ""
    yield f"<section id='{name}'><h3><b class={method}>{method.upper()}</b> <code>{_path(path)}</code>{role}</h3>"
    yield f"<p>{_text(operation['summary'])}</p>"
    yield f"<div class=curl><button hidden>copy</button><pre>{_text(_curl(path, method, operation))}</pre></div>"
    if operation.get("parameters"):
        yield "<table><tr><th>parameter<th>in<th>type and limits"
        for parameter in operation["parameters"]:
            must = "" if parameter["required"] else " <i>optional</i>"
            yield f"<tr><td><code>{_text(parameter['name'])}</code>{must}<td>{_text(parameter['in'])}"
            yield f"<td>{_kind(parameter['schema'])} {_text(parameter.get('description', ''))}"
        yield "</table>"
    if "requestBody" in operation:
        wanted = _message(operation["requestBody"])
        yield f"<h4>Body: <a href='#{wanted}'>{wanted}</a></h4>"
        yield from _fields(schemas[wanted], schemas)
    yield "<table><tr><th>status<th>when<th>answer"
    for status, response in sorted(operation["responses"].items()):
        kind = "good" if status < "300" else "bad"
        answer = _message(response) if "content" in response else ""
        shown = f"<a href='#{answer}'>{answer}</a>" if answer in schemas else _text(answer)
        yield f"<tr><td><b class={kind}>{status}</b><td>{_text(response['description'])}<td>{shown}"
    yield "</table></section>"


def _curl(path: str, method: str, operation: Node) -> str:
    for place, example in PLACES.items():
        path = path.replace(place, example)
    if any(parameter["name"] == "k" for parameter in operation.get("parameters", ())):
        path += "?k=5"
    lines = [f"curl -s {ORIGIN}{path}" if "?" not in path else f"curl -s '{ORIGIN}{path}'"]
    if "x-role" in operation:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if method == "post":
        lines += [
            "-H 'Content-Type: application/json'",
            f"-d '{json.dumps(EXAMPLES.get(operation['operationId'], {}))}'",
        ]
    return " \\\n  ".join(lines)


def _schema(name: str, schemas: Node) -> Iterator[str]:
    yield f"<section><h3 id='{name}'><code>{name}</code></h3>"
    if "description" in schemas[name]:
        yield f"<p>{_text(schemas[name]['description'])}</p>"
    yield from _fields(schemas[name], schemas)
    yield "</section>"


def _fields(schema: Node, schemas: Node) -> Iterator[str]:
    yield "<table class=fields><tr><th>field<th>type and limits<th>what"
    for name, field in schema.get("properties", {}).items():
        must = "" if name in schema.get("required", ()) else " <i>optional</i>"
        named = schemas.get(str(field.get("$ref", "")).rpartition("/")[2], {})
        parts = [field, *field.get("anyOf", ()), named]
        what = next((part["description"] for part in parts if "description" in part), "")
        yield f"<tr><td><code>{_text(name)}</code>{must}<td>{_kind(field)}<td>{_text(what).replace('`', '')}"
    yield "</table>"


def _kind(field: Node) -> str:
    """The type of a field with its bounds, as HTML."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in field:
        return " or ".join(_kind(part) for part in field["anyOf"]) + _default(field)
    kind = str(field.get("type", "any"))
    if kind == "array":
        kind = f"list of {_kind(field.get('items', {}))}"
    elif kind == "object" and isinstance(field.get("additionalProperties"), Mapping):
        kind = f"map to {_kind(field['additionalProperties'])}"
    return kind + "".join(_bounds(field)) + _default(field)


def _bounds(field: Node) -> Iterator[str]:
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " long"),
        ("minItems", "maxItems", " entries"),
    ):
        if low in field and high in field:
            yield f", {field[low]:,} to {field[high]:,}{unit}"
        elif high in field:
            yield f", at most {field[high]:,}{unit}"
        elif low in field:
            yield f", at least {field[low]:,}{unit}"
    if "enum" in field:
        yield f": {_text(', '.join(map(str, field['enum'])))}"


def _default(field: Node) -> str:
    default = field.get("default")
    return "" if default in (None, [], {}) or isinstance(default, dict) else f", default {_text(json.dumps(default))}"


def _message(part: Node) -> str:
    """The name of the message that a body or a response holds, or what else it is."""
    ((media_type, content),) = part["content"].items()
    reference = content["schema"].get("$ref")
    return str(media_type if reference is None else reference.rpartition("/")[2])


def _path(path: str) -> str:
    return _text(path).replace("{", "<i>{").replace("}", "}</i>")


def _text(text: object) -> str:
    return html.escape(str(text), quote=True)
