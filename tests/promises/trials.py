"""One batch of trials, for the soak: `python -m promises.trials NAME SEED TRIALS FOLDER`; prints what it found."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from promises.catalogue import technique_named


def main(name: str, seed: str, trials: str, folder: str) -> None:
    """Run the batch and print its outcome as one line of JSON."""
    outcome = technique_named(name).load()(int(seed), int(trials), Path(folder))
    sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
