"""Changing live facts: a short form, damage, and a process that goes on changing until it is killed.

Run as `python live_changes.py ROOT` it sets all items of a batch to the same price, over and over, and prints the
price of each batch as soon as it is acknowledged.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from prediction_store.live_environment import Tables
from prediction_store.live_items import LiveItems
from schemas.live_items import ItemChange

HOME = Path(__file__).parents[1]
PAIR = ("left", "right")
"""Items that are in each batch of the process."""
BALLAST = 200
"""Further ones, so that there is something to be killed in."""


def change(item: str, **facts: Any) -> ItemChange:
    return ItemChange(item=item, **facts)


def run(code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *argv], cwd=HOME, capture_output=True, text=True, check=False)


def damage(live: LiveItems, key: bytes) -> None:
    """Flip a bit of an item's facts, as a bad disk would."""

    def flip(tables: Tables) -> None:
        value = bytearray(tables.transaction.get(key, db=tables.facts))
        value[-1] ^= 1
        tables.transaction.put(key, bytes(value), db=tables.facts)

    live._environment.write(flip)


def go_on_changing(root: Path) -> None:
    with LiveItems(root) as live:
        before = live.get(PAIR[0])
        price = 0.0 if before is None else float(before.price)  # type: ignore[arg-type]
        while True:
            price += 1.0
            names = [PAIR[0], *(f"ballast-{place}" for place in range(BALLAST)), PAIR[1]]
            live.set([change(name, price=price) for name in names], now=time.time())
            print(price, flush=True)


if __name__ == "__main__":
    go_on_changing(Path(sys.argv[1]))
