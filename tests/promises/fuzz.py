"""Promise 11: whatever is sent, it is answered, and a client is told what is wrong with it.

Requests go into the application in this process, by ASGI, as a server would hand them on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
from asgi_client import AsgiClient
from fuzzed_requests import MARK, Fuzzer, Request
from server_log import logged_as_by_a_server
from serving_shop import Shop

from promises.outcome import Outcome
from reranker.app import create_app
from reranker.requests import MOST_SEARCHED_BYTES
from schemas.messages import ErrorAnswer

WARM_UP_SHARE = 0.3
"""Of the requests; memory that grows after them is a leak."""
SAMPLES = 20
MAY_GROW_MB = 8.0
"""Between the two halves after the warm-up. The allocators take and give back some 4 MB at once, in 50,000 requests as
in 400,000; half a million requests that left 50 bytes each behind would show. What is alive does not grow like that:
with PYTHONMALLOC=malloc and a collection before each look, mallinfo2 counted 6 bytes a request over 65,000 of them, and
once 1 MB, which is CPython's table of interned strings made anew (16,000 strings interned and forgotten do that in an
idle process: 962,560 bytes)."""
UNROUTED = {404, 405}
ERROR = msgspec.json.Decoder(ErrorAnswer)
_USER = re.compile(re.escape(MARK) + r"\d")


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """That many requests, to all endpoints of one application."""
    shop = Shop(folder / "store")
    shop.publish("a")
    return fuzz(shop, seed, trials)


def run_long(seed: int, trials: int, folder: Path) -> Outcome:
    """The same in one process, whose memory is judged: the more requests, the smaller the leak that shows."""
    shop = Shop(folder / "store")
    shop.publish("a")
    return fuzz(shop, seed, trials, with_memory=True)


def fuzz(shop: Shop, seed: int, trials: int, *, damaged: str = "", with_memory: bool = False) -> Outcome:
    """Send requests, judge each answer and the log; the record of the user `damaged` is so, once served."""
    outcome, log_file = Outcome(), shop.root.with_name("log of the fuzz")
    # To a file: lines kept in memory would look like a leak of the server.
    with (
        log_file.open("w", encoding="utf-8") as stream,
        logged_as_by_a_server(stream),
        AsgiClient(create_app(shop.config("log.segment_minutes=0.5"))) as client,
    ):
        if damaged:
            shop.damage(damaged)
        judge = Judge(outcome, _documented(client.get("/openapi.json").json()), damaged)
        client.run(_send_all(client, Fuzzer(seed, shop.users), judge, trials))
        if with_memory:
            judge.judge_memory()
    judge.judge_log(log_file.read_text(encoding="utf-8"))
    return outcome


async def _send_all(client: AsgiClient, fuzzer: Fuzzer, judge: Judge, trials: int) -> None:
    every = max(1, trials // SAMPLES)
    for number in range(trials):
        request = fuzzer.next()
        if number % every == 0:
            judge.look(number / trials)
        status, body = await client.send(request.method, request.path, request.query, request.headers, request.parts)
        judge.judge(request, status, body)


class Judge:
    """Holds each answer against what is promised."""

    def __init__(self, outcome: Outcome, documented: list[tuple[str, re.Pattern[str], set[int]]], damaged: str) -> None:
        self._outcome = outcome
        self._documented = documented
        self._damaged = damaged
        self._megabytes: list[tuple[float, float]] = []

    def judge(self, request: Request, status: int, body: bytes) -> None:
        """Count an answer, and note what is wrong with it."""
        self._outcome.tried += 1
        self._outcome.count(f"answered {status}")
        problem = self._problem(request, status, body)
        if problem:
            sent = b"".join(part or b"<gone>" for part in request.parts)[:300]
            self._outcome.violate(
                f"{request.method} {request.path[:100]!r} {request.query[:60]!r} {request.headers} {sent!r}: {status}"
                f" {body[:200]!r}: {problem}"
            )

    def _problem(self, request: Request, status: int, body: bytes) -> str:  # noqa: PLR0911 one for each promise
        if status >= 500 and not (status == 503 and self._damaged and self._damaged in request.path):
            return "a fault of the server"
        if status not in self._statuses(request.method, request.path):
            return "the OpenAPI document does not know this status"
        if request.method == "HEAD" or (status == 400 and request.body is None):
            return ""
        if status < 400:
            return "" if request.method != "POST" or _is_json(body) else "the answer is no JSON"
        error = ERROR.decode(body)
        if not error.message:
            return "no message"
        if status == 400 and request.body is not None and _is_json(request.body):
            return "valid JSON is called malformed"
        is_searched = request.body is not None and len(request.body) <= MOST_SEARCHED_BYTES
        if status == 400 and error.field is None and is_searched and _is_object_to_python(request.body):
            return "no field is named"
        if status == 422 and error.field is None and not (request.method == "POST" and _is_no_object(request.body)):
            return "no field is named"
        return ""

    def _statuses(self, method: str, path: str) -> set[int]:
        found = [statuses for name, pattern, statuses in self._documented if name == method and pattern.fullmatch(path)]
        return found[0] if found else UNROUTED

    def look(self, share: float) -> None:
        """Measure the memory that is this process's own."""
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        self._megabytes.append((share, int(found[1]) / 1000))

    def judge_memory(self) -> None:
        """Compare the two halves after the warm-up."""
        warm = [megabytes for share, megabytes in self._megabytes if share >= WARM_UP_SHARE]
        half = len(warm) // 2
        early, late = sorted(warm[:half])[half // 2], sorted(warm[-half:])[half // 2]
        self._outcome.raise_to("megabytes more in the second half", round(late - early, 2))
        if late - early > MAY_GROW_MB:
            self._outcome.violate(f"memory grew from {early} to {late} MB")

    def judge_log(self, text: str) -> None:
        """Hold the log against what is promised: no failure, no traceback, no user by name."""
        for line in text.splitlines():
            facts = json.loads(line)
            if facts["event"] == "damaged record":
                self._outcome.count("damages in the log")
            elif facts["level"] == "error":
                self._outcome.violate(f"an error in the log: {line[:300]}")
            if "Traceback" in line or "exception" in facts:
                self._outcome.violate(f"a traceback in the log: {line[:300]}")
            if _USER.search(line) or (self._damaged and self._damaged in facts.values()):
                self._outcome.violate(f"a user in the log: {line[:300]}")
        self._outcome.count("lines of the log", len(text.splitlines()))


def _documented(document: dict[str, Any]) -> list[tuple[str, re.Pattern[str], set[int]]]:
    """Method, pattern of the path and statuses of each operation."""
    found = []
    for path, operations in document["paths"].items():
        pattern = re.compile(re.sub(r"\\{\w+\\}", ".*", re.escape(path)), re.DOTALL)
        for method, operation in operations.items():
            statuses = {int(status) for status in operation["responses"]}
            found.append((method.upper(), pattern, statuses))
            if method == "get":
                found.append(("HEAD", pattern, statuses))
    return found


def _is_json(body: bytes) -> bool:
    """Whether it is JSON in UTF-8, by another parser than ours. What that one cannot judge is not."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.dumps(json.loads(body.decode(), parse_constant=refuse), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _is_object_to_python(body: bytes | None) -> bool:
    """Whether it is wrong in a value only: Python reads NaN, halves of characters and, here, bytes that are no text."""
    try:
        return isinstance(json.loads((body or b"").decode(errors="surrogateescape")), dict)
    except (ValueError, RecursionError):
        return False


def _is_no_object(body: bytes | None) -> bool:
    return body is None or not body.lstrip(b" \t\r\n").startswith(b"{")
