"""The most that a server can answer, found by wrk: a client in C, so that little of what is measured is the client's.

A closed loop: every connection asks again as soon as it is answered.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import MissingPeerError

SCRIPT = """
local bodies, at = {}, 0
for line in io.lines(%(bodies)r) do bodies[#bodies + 1] = line end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  at = at %% #bodies + 1
  return wrk.format(nil, "/v1/recommend", nil, bodies[at])
end
"""
"""Asks with one body after the other."""


class Most(NamedTuple):
    """What a loop came to."""

    answers: int
    """Of whatever status."""
    per_second: float
    """Answers."""
    not_200: int
    """Answers of another status, and what failed on the way."""


def closed_loop(port: int, bodies: Sequence[bytes], *, connections: int, seconds: float, cores: Set[int]) -> Most:
    """Ask as fast as answers come, from so many connections, for whole seconds.

    Raises:
        MissingPeerError: there is no wrk.
    """
    program = shutil.which("wrk")
    if program is None:
        raise MissingPeerError("there is no wrk on PATH: Debian's package has this name")
    with tempfile.TemporaryDirectory() as folder:
        lines, script = Path(folder, "bodies"), Path(folder, "ask.lua")
        lines.write_bytes(b"\n".join(bodies) + b"\n")
        script.write_text(SCRIPT % {"bodies": str(lines)})
        argv = ["taskset", "-c", ",".join(map(str, sorted(cores))), program, "-t1", f"-c{connections}"]
        argv += [f"-d{max(1, round(seconds))}s", "-s", str(script), f"http://127.0.0.1:{port}"]
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return read(said)


def read(said: str) -> Most:
    """What wrk has printed."""
    answers = re.search(r"(\d+) requests in", said)
    errors = re.findall(r"(?:connect|read|write|timeout) (\d+)", said)
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    per_second = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert answers is not None, said
    assert per_second is not None, said
    return Most(int(answers[1]), float(per_second[1]), sum(map(int, errors)) + (int(other[1]) if other else 0))
