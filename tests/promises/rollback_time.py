"""Promise 5: a rollback is over within a second, to the last worker, and copies nothing.

The command is run as an operator runs it, in a process of its own, while a server with several workers follows. Times
are measured and reported; no number of seconds makes a trial fail.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from shop_server import SHORTLIST

from prediction_store import layout
from promises.flips_over_http import WORKERS, Log, served
from promises.outcome import Outcome

WITHIN_SECONDS = 1.0
COMMAND_WITHIN_SECONDS = 0.3
Inventory = dict[str, tuple[int, int, int]]
"""Inode, size and time of change of each file, by path."""


def run(seed: int, trials: int, folder: Path, *, workers: int = WORKERS) -> Outcome:
    """Roll back that many times."""
    outcome = Outcome()
    with served(folder, workers=workers) as (shop, server, kind_of):
        log = Log(server)
        first, second, *_ = kind_of
        while outcome.tried < trials:
            shop.release(second)
            shop.cut_over(second)
            log.wait_for_workers(shop.newest().number)
            before = inventory(shop.root)
            begin = time.monotonic()
            done = subprocess.run(
                [*SHORTLIST, "rollback", "--why", "a test", "--set", f"paths.store={shop.root}"],
                cwd=folder, capture_output=True, text=True, check=False,
            )  # fmt: skip
            command_seconds = time.monotonic() - begin
            if done.returncode != 0 or shop.current() != first:
                outcome.violate(f"rollback ended with {done.returncode}: {done.stderr}")
                return outcome
            seconds = log.wait_for_workers(shop.newest().number) - begin
            outcome.tried += 1
            outcome.spread("command", command_seconds)
            outcome.spread("to the last worker", seconds)
            outcome.raise_to("longest command", command_seconds)
            outcome.raise_to("longest to the last worker", seconds)
            outcome.count("commands over 0.3 s", int(command_seconds > COMMAND_WITHIN_SECONDS))
            outcome.count("over a second", int(seconds > WITHIN_SECONDS))
            outcome.violate_each(changes(before, inventory(shop.root)), "a rollback")
    return outcome


def inventory(root: Path) -> Inventory:
    """Every file of a store."""
    facts = {str(path.relative_to(root)): path.stat() for path in root.rglob("*") if path.is_file()}
    return {path: (fact.st_ino, fact.st_size, fact.st_mtime_ns) for path, fact in facts.items()}


def changes(before: Inventory, after: Inventory) -> list[str]:
    """What a rollback has changed beside adding one history record; []: nothing."""
    came = sorted(after.keys() - before.keys())
    found = [f"{path} changed or is gone" for path in before if before[path] != after.get(path)]
    if len(came) != 1 or Path(came[0]).parent.name != layout.history_folder(Path()).name:
        found.append(f"new files: {came}")
    return found
