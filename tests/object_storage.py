"""Real object storage for the tests: moto's S3 server on a free port of this machine, and folders."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 60.0
BUCKET = "hosts"


class S3Server:
    """A running server with one bucket; everything in it is in its memory."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def environment(self) -> dict[str, str]:
        """What obstore reads to find its way there."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start moto's server, and end it by its own pid."""
    log = folder / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, __file__], stdout=output, stderr=output)
    try:
        endpoint = _endpoint(process, log)
        make = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(make, timeout=PATIENCE_SECONDS).close()
        yield S3Server(endpoint)
    finally:
        process.kill()
        process.wait()


def _endpoint(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        match = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if match:
            return match[1]
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def serve() -> None:
    """Serve until killed, one request after the other.

    moto looks whether an object is there and then puts it; S3 does both as one, which is what the tests are about.
    """
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple

    answer, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with turn:
            found: Iterable[bytes] = answer(environ, start_response)
            return found

    run_simple("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    serve()
