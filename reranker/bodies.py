"""Reading a request's body: bounded in size and in time, and only plain JSON."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from reranker.errors import BodyTooLargeError, BodyTooSlowError, MediaTypeError
from schemas.serving_config import Serve


async def read_body(request: Request, serve: Serve, *, max_bytes: int = 0) -> bytes:
    """The whole body; raises MediaTypeError, BodyTooLargeError or BodyTooSlowError.

    Never holds more than `max_bytes`, by default `serve.max_body_bytes`, and one chunk. The server itself has no
    deadline for a body.
    """
    _require_json(request)
    max_bytes = max_bytes or serve.max_body_bytes
    declared = request.headers.get("content-length", "")
    # isdigit alone would let "²" through, which int does not read.
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(serve.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                parts.append(part)
    except TimeoutError as error:
        raise BodyTooSlowError(f"the body did not arrive within {serve.body_seconds} s") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _require_json(request: Request) -> None:
    declared = request.headers.get("content-type", "").lower().replace(" ", "").replace('"', "").rstrip(";")
    if declared not in ("application/json", "application/json;charset=utf-8"):
        raise MediaTypeError("the content type must be application/json in UTF-8", field="Content-Type")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise MediaTypeError("the body must not be compressed", field="Content-Encoding")


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is longer than {max_bytes} bytes")
