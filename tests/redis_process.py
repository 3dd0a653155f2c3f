"""A real redis-server for tests, on a socket of its own and nothing else; skips where there is none."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REASON = "there is no redis-server on PATH (Debian, Ubuntu: apt install redis-server)"


class RedisProcess:
    """A server that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program is not None
        self._process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"],
            stdout=subprocess.PIPE,
            cwd=self.socket.parent,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"accept connections at" in line:
                return
        raise AssertionError("redis-server did not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
            self.socket.unlink(missing_ok=True)


@contextlib.contextmanager
def redis_process(folder: Path) -> Iterator[RedisProcess]:
    pytest.importorskip("redis", reason="the extra `redis` is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip(REASON)
    server = RedisProcess(folder)
    try:
        yield server
    finally:
        server.kill()
