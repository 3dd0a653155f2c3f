"""The word to end, given by a signal in the midst of waiting for it."""

from __future__ import annotations

import subprocess
import sys

from prediction_store.transfer.stop import Stop

PATIENCE_SECONDS = 60.0
INTERRUPTED_AT_EACH_LINE = """
import signal, sys
from prediction_store.transfer.stop import Stop

def interrupted_at(line):
    lines = 0
    def trace(frame, event, _):
        nonlocal lines
        lines += event == "line"
        if event == "line" and lines == line:
            signal.raise_signal(signal.SIGTERM)
        return trace
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sys.settrace(trace)
    is_set = stop.wait(0.01)
    sys.settrace(None)
    return is_set, lines >= line

line = 1
while (found := interrupted_at(line))[1]:
    assert found[0], line
    line += 1
print(line > 3)
"""


def test_a_signal_that_comes_at_any_line_of_waiting_ends_it() -> None:
    """A `threading.Event` waits for its own lock then, and its process for SIGKILL."""
    command = [sys.executable, "-c", INTERRUPTED_AT_EACH_LINE]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert (found.returncode, found.stdout, found.stderr) == (0, "True\n", "")


def test_nobody_has_said_so() -> None:
    stop = Stop()
    assert not stop.wait(0.001)
    assert not stop.is_set()
