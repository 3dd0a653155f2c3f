"""An application in this process, spoken to in ASGI: its lifespan, one request after another, and bodies that stall."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from starlette.applications import Starlette

JSON_HEADERS = {"content-type": "application/json"}
STALL_FOR_EVER = "stall"
STALL = None
"""A part of a body that never comes."""


@dataclass(frozen=True)
class Reply:
    """What the application sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class AsgiClient:
    """Runs an application as a server would, without a socket."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._runner = asyncio.Runner()

    def __enter__(self) -> AsgiClient:
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._state = self._runner.run(self._lifespan.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._lifespan.__aexit__(kind, error, trace))
        self._runner.close()

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def post(self, path: str, body: object) -> Reply:
        return self.request("POST", path, [json.dumps(body).encode()], JSON_HEADERS)

    def request(
        self,
        method: str,
        path: str,
        parts: Sequence[bytes | None] = (b"",),
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request whose body comes in parts."""
        return self._runner.run(self._request(method, path, list(parts), headers or {}))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run to its end what sends requests by itself."""
        self._runner.run(work)

    async def _request(self, method: str, path: str, parts: list[bytes | None], headers: dict[str, str]) -> Reply:
        path, _, query = path.partition("?")
        found: list[tuple[bytes, bytes]] = []
        given = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        status, body = await self.send(method, path, query.encode(), given, parts, on_none=STALL_FOR_EVER, found=found)
        return Reply(status, {name.decode(): value.decode() for name, value in found}, body)

    async def send(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        parts: list[bytes | None],
        *,
        on_none: str = "http.disconnect",
        found: list[tuple[bytes, bytes]] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer to one request; `found` gets its headers.

        A part that is None stands for a client that hangs up, or with STALL_FOR_EVER for one that sends no more.
        """
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 50000),
            "headers": headers,
            "state": dict(self._state),
        }
        left = parts[::-1]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            part = left.pop() if left else None
            if part is None:
                if on_none == STALL_FOR_EVER:
                    await asyncio.Event().wait()
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(left)}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        await self._app(scope, receive, send)
        start, *rest = sent
        if found is not None:
            found += start["headers"]
        return start["status"], b"".join(message.get("body", b"") for message in rest)
