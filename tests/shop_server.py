"""`shortlist serve` as a process of its own, over a store that a test changes under it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

SHORTLIST = [sys.executable, str(Path(__file__).parents[1] / "shortlist.py")]
SERVE = [*SHORTLIST, "serve"]
PATIENCE_SECONDS = 120.0
"""How long a condition may take on a crowded machine before the test gives up on it."""


class Server:
    """`shortlist serve` on a port of the kernel's choice."""

    def __init__(self, store: Path, folder: Path, workers: int = 2, *overrides: str) -> None:
        settings = [f"--set={override}" for override in (f"paths.store={store}", *overrides)]
        self.n_workers = workers
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*SERVE, "--port", "0", "--workers", str(workers), *settings],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.search(r"http://(?:127\.0\.0\.1|0\.0\.0\.0):(\d+)", line)
        assert match, f"{line!r}\n{self.log.read_text()}"
        self.url, self.port = match[0], int(match[1])

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def workers(self) -> set[int]:
        """Process ids of the workers, as the kernel knows them."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """Make sure that it is no more."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Visitors:
    """Clients of a server that never stop asking until they leave, and everything they were answered."""

    def __init__(self, url: str, clients: int = 1) -> None:
        self._url = url
        self._leaving = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        self.answers: list[dict[str, object]] = []
        self.failures: list[object] = []
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Visitors:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._leaving.set()
        for thread in self._threads:
            thread.join()

    def see_only(self, version: str) -> bool:
        """True when the last twenty answers to each client, about, all came from this version."""
        last = 20 * len(self._threads)
        recent = self.answers[-last:]
        return len(recent) == last and {answer["version"] for answer in recent} == {version}

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE_SECONDS) as client:
            while not self._leaving.is_set():
                try:
                    response = client.post("/v1/recommend", json={"user": "u0", "k": 5})
                except httpx.HTTPError as error:
                    self.failures.append(error)
                    continue
                (self.answers if response.status_code == 200 else self.failures).append(response.json())


def eventually(claim: Callable[[], bool], what: Callable[[], str] = str) -> None:
    """Return as soon as the claim holds; `what` says more about one that never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not claim():
        assert time.monotonic() < deadline, f"it never happened: {what()}"
        time.sleep(0.01)
