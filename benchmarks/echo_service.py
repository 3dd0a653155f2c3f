"""The least that a service on this server can be: the body comes back. `python -m benchmarks.echo_service FD`"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


def serve(app: Any, fd: int) -> None:
    """Serve an application with the settings of Shortlist's own worker."""
    settings = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False, proxy_headers=False
    )
    with socket.socket(fileno=fd) as listener:
        uvicorn.Server(settings).run(sockets=[listener])


if __name__ == "__main__":
    serve(echo, int(sys.argv[1]))
