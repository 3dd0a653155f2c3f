"""Promise 1 at every system call of a publish, those of LMDB included, which announces none of its steps.

`strace` ends the process at the call, or lets the call fail, and counts the calls itself. Skipped where there is no
strace, or no right to trace.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prediction_store import history, layout
from promises.outcome import Outcome
from promises.tiny_store import HOUR, MADE_AT, copy_store, problems_of, publish, remove_store

KILL, EIO, ENOSPC = "signal=KILL", "error=EIO", "error=ENOSPC"
CHANGING = {
    "openat", "write", "writev", "pwrite64", "pwritev", "fsync", "fdatasync", "ftruncate", "mkdir", "rename", "link",
    "linkat", "unlink", "unlinkat", "rmdir", "chmod", "fchmodat", "mmap", "msync",
}  # fmt: skip
"""Calls that a full or broken disk lets fail."""
PATIENCE_SECONDS = 60.0
_CALL = re.compile(r"^([a-z_0-9]+)\(")


class Fault(NamedTuple):
    """What happens at one of the calls."""

    call: str
    number: int
    """Counted from 1, as strace does."""
    what: str


def is_possible() -> bool:
    """True when this process may be traced by a strace that is there."""
    if shutil.which("strace") is None:
        return False
    return traced(lambda: None, "-e", "trace=none", "-o", os.devnull) == 0


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Try that many faults, or every one there is, whichever is less; in an order that the seed says."""
    outcome = Outcome()
    if not is_possible():
        outcome.count("skipped: no strace here, or no right to trace")
        return outcome
    before, copy, log = folder / "before", folder / "copy", folder / "calls"
    old = publish(before, "a", MADE_AT)
    command = partial(publish, copy, "b", MADE_AT + HOUR)
    copy_store(before, copy)
    traced(command, "-o", str(log))
    calls = Counter(match[1] for line in log.read_text().splitlines() if (match := _CALL.match(line)))
    new = history.current(copy).version
    faults = [Fault(call, number, KILL) for call in calls for number in range(1, calls[call] + 1)]
    faults += [fault._replace(what=what) for fault in faults if fault.call in CHANGING for what in (EIO, ENOSPC)]
    random.Random(seed).shuffle(faults)
    outcome.counts["calls of a publish"] = calls.total()
    for fault in faults[:trials]:
        remove_store(copy)
        copy_store(before, copy)
        trial(copy, command, fault, {old, new}, outcome)
    return outcome


def trial(root: Path, command: Callable[[], object], fault: Fault, versions: set[str], outcome: Outcome) -> None:
    """Publish with a fault, look at what is there, and publish again."""
    where = f"{fault.what} at {fault.call} number {fault.number}"
    inject = f"inject={fault.call}:{fault.what}:when={fault.number}"
    code = traced(command, "-e", f"trace={fault.call}", "-e", inject, "-o", os.devnull)
    outcome.tried += 1
    outcome.count(f"{fault.what}, {'it ended' if code else 'it went on'}")
    outcome.violate_each(problems_of(root, versions), where)
    try:
        command()
    except Exception as error:
        outcome.violate(f"{where}: publishing again raised {error!r}")
    record = history.current(root)
    outcome.violate_each(problems_of(root, versions - {record.previous}), f"{where}, and again")
    drafts = layout.leftovers(root, layout.BUILDING)
    outcome.violate_each((f"{draft.name} is left" for draft in drafts), where)


def traced(command: Callable[[], object], *options: str) -> int:
    """Run a command in a forked child under strace, from the command's first call on; the child's exit code.

    -1 stands for a child that could not be traced.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.kill(os.getpid(), signal.SIGSTOP)
            command()
            code = 0
        finally:
            os._exit(code)
    os.waitpid(child, os.WUNTRACED)
    with subprocess.Popen(["strace", "-qq", "-p", str(child), *options], stderr=subprocess.DEVNULL) as strace:
        is_traced = _wait_for_tracer(child, strace)
        if not is_traced:
            os.kill(child, signal.SIGKILL)
        os.kill(child, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if is_traced else -1


def _wait_for_tracer(pid: int, strace: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while strace.poll() is None and time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        if not re.search(r"^TracerPid:\t0$", status, re.MULTILINE):
            return True
        time.sleep(0.001)
    return False
