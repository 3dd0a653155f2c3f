"""One serving host as it really runs: `shortlist follow` and `shortlist serve` over a store of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from prediction_store import layout

SHORTLIST = [sys.executable, str(Path(__file__).parents[1] / "shortlist.py")]
PATIENCE_SECONDS = 120.0
"""How long a condition may take on a crowded machine before the test gives up on it."""


class HostProcesses:
    """A host by name, with the settings that its two processes are started with."""

    def __init__(self, name: str, folder: Path, *settings: str) -> None:
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        self.store = self.folder / "store"
        self._settings = [f"paths.store={self.store}", f"follow.host={name}", *settings]
        self._follow: subprocess.Popen[str] | None = None
        self._serve: subprocess.Popen[str] | None = None
        self.url = ""

    def follow(self, *settings: str) -> None:
        """Start the agent."""
        self._follow = self._start("follow", *settings)

    def serve(self) -> None:
        """Start the server, and wait until it listens."""
        self._serve = self._start("serve", "serve.port=0", "serve.workers=1")
        assert self._serve.stdout is not None
        match = re.search(r"http://127\.0\.0\.1:\d+", self._serve.stdout.readline())
        assert match, self.log("serve")
        self.url = match[0]

    def stop_following(self) -> None:
        """SIGTERM; the agent ends as one that was asked to."""
        assert self._follow is not None
        self._follow.send_signal(signal.SIGTERM)
        assert self._follow.wait(PATIENCE_SECONDS) == 0, self.log("follow")

    def kill(self) -> None:
        """SIGKILL for both: the host is lost."""
        for process in (self._follow, self._serve):
            if process is not None:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()
        self._follow = self._serve = None

    def is_pulling(self) -> bool:
        """True when a file of a version is on its way here."""
        return any(self.store.glob(f"versions/{layout.PULLING}*/**/{layout.PART}*"))

    def log(self, verb: str) -> str:
        return (self.folder / f"{verb}.log").read_text()

    def _start(self, verb: str, *settings: str) -> subprocess.Popen[str]:
        options = [word for setting in (*self._settings, *settings) for word in ("--set", setting)]
        with (self.folder / f"{verb}.log").open("ab") as log:
            stdout = subprocess.PIPE if verb == "serve" else log
            return subprocess.Popen([*SHORTLIST, verb, *options], cwd=self.folder, stdout=stdout, stderr=log, text=True)


class Visitors:
    """Clients of one host that never stop asking, and everything they were answered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[dict[str, object]] = []
        self.failures: list[object] = []
        self._thread.start()

    def leave(self) -> None:
        self._leaving.set()
        self._thread.join()

    def see_only(self, version: str, last: int = 20) -> bool:
        """True when the last answers all came from this version."""
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
    """Return as soon as the claim holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not claim():
        assert time.monotonic() < deadline, f"it never happened: {what()}"
        time.sleep(0.02)
