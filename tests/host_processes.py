"""One serving host as it really runs: `shortlist follow` and `shortlist serve` over a store of its own."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from shop_server import PATIENCE_SECONDS, SHORTLIST

from prediction_store import layout


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
