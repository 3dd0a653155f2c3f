"""Requests that nobody should send: valid ones of every endpoint, spoilt at random in structure, in bytes and in HTTP.

The same seed makes the same requests. Some stay valid, so that what is behind the parser is reached, too.
"""

# ruff: noqa: E501 tables of odd values, some in a row
from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

GONE = None
"""A part of a body that stands for a client that has hung up."""
MARK = "somebody-"
"""Users that no store knows begin with it, so that a log that names one is found out."""
JSON_TYPE = (b"content-type", b"application/json")
WEIRD: Sequence[Any] = (
    None, True, False, 0, -1, 1, 7, 201, 1.5, -0.0, 1e308, -1e308, 5e-324, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40,
    "", " ", "0", "7", "null", "a01", "view", "\x00", "\x1f\x7f", "a\nb", "\u202e", "\ufeff", "\ufffe", "é", "e\u0301", "😀" * 130,
    "x" * 64, "x" * 65, "x" * 511, "x" * 512, "ü" * 256, "x" * 20_000, "../../etc/passwd", "' OR 1=1 --", "{{7*7}}", "%00", "${jndi:x}",
    [], [[]], [None], ["a01", "a01"], ["a01"] * 1_100, {}, {"": ""}, {"item": {}}, [{"item": "a01"}] * 210, {"a": {"b": {"c": [1]}}},
)  # fmt: skip
RAW: Sequence[bytes] = (
    b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e400", b"-1e400", b"1e-400", b"9" * 400, b"1." + b"0" * 400 + b"1", b"-", b"01", b"+1",
    b".5", b"1.", b"0x10", b"1_000", b"'a'", b"undefined", b"True", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"',
    b'"\\x41"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'"a\x00"', b'"', b"[" * 3_000 + b"]" * 3_000,
    b'{"a":' * 1_500 + b"1" + b"}" * 1_500, b"[" * 500, b"/* */ 1", b"1 // x", b"", b",", b"{", b"]", b"\xef\xbb\xbf1",
)  # fmt: skip
SLOT = "@slot@"
NAMES = ("user", "item", "k", "session", "context", "event", "time", "exclude", "placement", "explain", "hidden", "price",
         "requests", "events", "items", "position", "request_id", "device", "segment", "K", "user ", "usеr", "__proto__",
         "", "\x00", "x" * 300)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "QUERY", "")
TYPES = (
    b"", b"text/plain", b"application/json; charset=latin-1", b"application/json;charset=UTF-8", b"APPLICATION/JSON", b"application/json;",
    b"application/json, text/plain", b"multipart/form-data; boundary=x", b"\xff\xfe", b"application/json\x00", b"*/*", b"application/xml",
)  # fmt: skip
ODD_HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"content-length", b"0"), (b"content-length", b"70000000000000000000000"), (b"content-length", b"-1"), (b"content-length", b"\xb2"),
    (b"content-length", b"1e3"), (b"content-length", b""), (b"content-encoding", b"gzip"), (b"content-encoding", b"Identity"),
    (b"content-encoding", b"\xff"), (b"transfer-encoding", b"chunked"), (b"accept", b"text/html"), (b"accept-encoding", b"br, *;q=0"),
    (b"authorization", b"Bearer x"), (b"authorization", b"\xff\xfe"), (b"cookie", b"a=b; a=c"), (b"expect", b"100-continue"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), (b"traceparent", b"00-zz"), (b"x-http-method-override", b"DELETE"),
    (b"host", b"\xff"), (b"range", b"bytes=0-1"), (b"x", b"y" * 9_000), (b"if-none-match", b"*"), (b"origin", b"null"), (b"", b""),
    (b"x-deadline-ms", b"NaN"), (b"x-deadline-ms", b"-1"), (b"x-forwarded-for", b"1.1.1.1, 2.2.2.2"), (b"connection", b"close, upgrade"),
)  # fmt: skip
SEGMENTS = (
    "a01", "a39", "nothing", "u0", MARK + "path", "%61%30%31", "a%2Fb", "%2e%2e", "..", "%00", "%ff%fe", "%C3%BC2", "%E2%82", "a b", "é", "",
    "/", "x" * 511, "x" * 513, "%C3%BC" * 300, "%", "%zz", "a01?k=1", "a01#x", "candidates", "%F0%9F%98%80", "%u0041", "a01;v=1", "\\", "*",
)  # fmt: skip
QUERIES = (
    "k=1", "k=5", "k=0", "k=-1", "k=1e1", "k=201", "k=%EF%BC%95", "k=5&k=6", "k=", "k", "=5", "&&&", "K=5", "k=5&other=1", "segment=DE", "segment=",
    "segment=%00", "segment=%ff", "segment=" + "x" * 3_000, "segment=DE&segment=", "k=9999999999999999999999", "k=%B2", "k=+5", "k=5%00", "%6b=5",
    "k[]=5", "a=1&" * 500, "%", "%zz=%zz", ";k=5", "k=5;segment=DE", "segment=DE&k=3", "\u00ff=\u00ff",
)  # fmt: skip
ITEMS = ("a00", "a01", "a12", "a39", "b07", "nothing")


class Request(NamedTuple):
    """One request, as a server would hand it on."""

    method: str
    path: str
    """Percent-decoded."""
    query: bytes
    headers: list[tuple[bytes, bytes]]
    parts: list[bytes | None]

    @property
    def body(self) -> bytes | None:
        """The whole body; None: the client has hung up before its end."""
        return None if GONE in self.parts else b"".join(part for part in self.parts if part is not None)


class Fuzzer:
    """Makes requests, one after the other."""

    def __init__(self, seed: int, users: Sequence[str]) -> None:
        self._dice = random.Random(seed)
        self._users = [*users, *(f"{MARK}{number}" for number in range(5))]
        self._makers: list[Callable[[], Request]] = [self._post, self._post, self._post, self._get]

    def next(self) -> Request:
        """The next request."""
        request = self._dice.choice(self._makers)()
        return self._spoil_http(request) if self._dice.random() < 0.15 else request

    def _post(self) -> Request:
        dice = self._dice
        path, message = self._message()
        fate = dice.random()
        if fate < 0.1:
            body = json.dumps(message).encode()
        elif fate < 0.75:
            body = self._spoil_structure(message)
        else:
            body = self._spoil_bytes(json.dumps(message, ensure_ascii=dice.random() < 0.5).encode())
        return Request("POST", path, b"", [JSON_TYPE], self._split(body))

    def _get(self) -> Request:
        dice = self._dice
        path = dice.choice((
            "/v1/similar/{}", "/v1/items/{}", "/v1/users/{}/candidates", "/v1/popular", "/v1/trending", "/v1/version", "/healthz",
            "/readyz", "/openapi.json", "/v1/{}", "/{}", "/v1/users/{}", "/v1/recommend", "/docs/{}",
        )).replace("{}", dice.choice(SEGMENTS) if dice.random() < 0.9 else self._user())  # fmt: skip
        query = dice.choice(QUERIES) if dice.random() < 0.6 else ""
        return Request("GET", unquote(path), query.encode("latin-1"), [], [b""])

    def _message(self) -> tuple[str, dict[str, Any]]:
        """A path, and a body that it takes."""
        dice = self._dice
        user, item, what = self._user(), dice.choice(ITEMS), dice.random()
        if what < 0.2:
            event = {"user": user, "item": item, "event": "view", "time": 1_795_000_000.5}
            shown = {"request_id": "r", "position": 1, "device": "phone"}
            return "/v1/events", {"events": [{**event, **shown}, {"user": user, "item": "a02", "event": "cart"}]}
        if what < 0.4:
            change = {"item": item, "in_stock": True, "hidden": False, "price": 9.5, "available_until": None}
            change |= {"title": "a hat", "category": "hats", "brand": None}
            return "/v1/items", {"items": [change]}
        wanted: dict[str, Any] = {"user": user, "k": dice.randint(1, 30)}
        if dice.random() < 0.6:
            events = [{"item": dice.choice(ITEMS), "event": dice.choice(("view", "cart", "other"))} for _ in range(3)]
            wanted |= {"session": events, "exclude": ["a02", "a03"], "placement": "basket", "explain": what < 0.5}
            wanted["context"] = {"device": "phone", "time": 1_795_000_000.0, "segment": dice.choice(("DE", None, ""))}
        return (
            ("/v1/recommend/batch", {"requests": [wanted, {"user": user}]}) if what < 0.6 else ("/v1/recommend", wanted)
        )

    def _weird(self) -> Any:
        """A value; a copy, since it may be spoilt further."""
        return copy.deepcopy(self._dice.choice(WEIRD))

    def _user(self) -> str:
        return self._dice.choice(self._users)

    def _spoil_structure(self, message: dict[str, Any]) -> bytes:
        """Change one to three places of the tree, of which one may become what JSON cannot hold."""
        dice = self._dice
        raw = b""
        for _ in range(dice.randint(1, 3)):
            node, key = self._place(message)
            what = dice.random()
            if what < 0.35:
                node[key] = self._weird()
            elif what < 0.5 and not raw:
                node[key], raw = SLOT, dice.choice(RAW) or b" "
            elif what < 0.6:
                del node[key]
                if not message:
                    break
            elif what < 0.8 and isinstance(node, dict):
                node[dice.choice(NAMES)] = self._weird()
            elif isinstance(node, dict):
                node[dice.choice(NAMES)] = node.pop(key)
            else:
                node.append(node[key])
        body = json.dumps(message, ensure_ascii=dice.random() < 0.5).encode()
        if raw:
            body = body.replace(f'"{SLOT}"'.encode(), raw)
        if dice.random() < 0.1:  # a key twice, at the root or in the first object within
            key = json.dumps(dice.choice(NAMES)).encode()
            place = body.find(b"{", dice.randint(0, 1)) + 1
            body = body[:place] + key + b": " + dice.choice((b"1", b'"a"', b"[]", b"null")) + b", " + body[place:]
        return body

    def _place(self, message: dict[str, Any]) -> tuple[Any, Any]:
        """A place in the tree: a container that is not empty, and a key of it."""
        node: Any = message
        while True:
            key = self._dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
            inner = node[key]
            if not isinstance(inner, (dict, list)) or not inner or self._dice.random() < 0.3:
                return node, key
            node = inner

    def _spoil_bytes(self, body: bytes) -> bytes:
        dice = self._dice
        for _ in range(dice.randint(1, 3)):
            at, what = dice.randrange(len(body) + 1), dice.random()
            if what < 0.25:
                body = body[:at]
            elif what < 0.5:
                body = body[:at] + bytes([dice.randrange(256)]) + body[at + 1 :]
            elif what < 0.65:
                body = body[:at] + dice.randbytes(dice.randint(1, 4)) + body[at:]
            elif what < 0.8:
                body = body[:at] + body[at + dice.randint(1, 5) :]
            elif what < 0.9:
                body = body[:at] + dice.choice(RAW) + body[at:]
            else:
                body = body + body[at:]
        return body

    def _split(self, body: bytes) -> list[bytes | None]:
        """The body in one part or several; at times the client is gone before the end."""
        if self._dice.random() < 0.9:
            return [body]
        at = self._dice.randrange(len(body) + 1)
        return [body[:at], b"", body[at:]] if self._dice.random() < 0.8 else [body[:at], GONE]

    def _spoil_http(self, request: Request) -> Request:
        dice = self._dice
        what = dice.random()
        if what < 0.25:
            return request._replace(method=dice.choice(METHODS))
        if what < 0.5:
            return request._replace(headers=[(b"content-type", dice.choice(TYPES))])
        if what < 0.85:
            return request._replace(headers=[*request.headers, dice.choice(ODD_HEADERS)])
        return request._replace(query=dice.choice(QUERIES).encode("latin-1"))
