"""Steady requests against a running re-ranker, with a note of which version answered when and of every failure."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Traffic:
    """Asks for one user after the other, until stopped. A context manager.

    Args:
        users: asked for in turn.
        per_second: requests a second, over `connections` kept-alive connections.
    """

    port: int
    users: list[str]
    per_second: float = 100.0
    connections: int = 2
    sent: int = 0
    failures: list[str] = field(default_factory=list)
    answers: list[tuple[float, str]] = field(default_factory=list)
    """When (monotonic) each answer came, and the version it named."""

    def __enter__(self) -> Traffic:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(n,), daemon=True) for n in range(self.connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def first_from(self, version: str, since: float) -> float | None:
        """When the first answer after `since` came from `version`; None: not yet."""
        return next((at for at, name in list(self.answers) if at >= since and name == version), None)

    def _ask_on(self, offset: int) -> None:
        client = Client(self.port)
        due = time.monotonic()
        turn = offset
        while not self._stop.is_set():
            due += self.connections / self.per_second
            self.sent += 1
            try:
                status, answer = client.recommend({"user": self.users[turn % len(self.users)], "k": 20})
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                client.close()  # the next request connects anew
            else:
                if status == 200 and len(answer["items"]) == 20:
                    self.answers.append((time.monotonic(), str(answer["version"])))
                else:
                    self.failures.append(f"{status}: {json.dumps(answer)[:200]}")
            turn += self.connections
            self._stop.wait(max(0.0, due - time.monotonic()))
        client.close()


class Client:
    """One kept-alive connection. A context manager: leaving it closes the connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def recommend(self, request: dict[str, Any]) -> tuple[int, Any]:
        """POST /v1/recommend: status and decoded answer."""
        self._connection.request("POST", "/v1/recommend", json.dumps(request), {"Content-Type": "application/json"})
        return self._read()

    def get(self, path: str) -> tuple[int, Any]:
        self._connection.request("GET", path)
        return self._read()

    def _read(self) -> tuple[int, Any]:
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
