"""`make combinations`: many worlds, days and places left to chance; every problem that is found, on a line of its own.

    make combinations                                       some ten minutes on two cores
    make combinations COMBINATIONS="--world 20000 --first 5000"
    make combinations COMBINATIONS="--day 1 --first 17"     one of them once more

What is not named is tried only where nothing is named. Exit code 1: there were problems.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import structlog
from promises.outcome import Outcome
from promises.tiny_store import memory_folder

from combinations.trials import TRIALS

USUAL = {"world": 1_000, "day": 500, "odds": 200}
BATCH = 10


def try_some(name: str, first: int, last: int) -> Outcome:
    """Those trials, in a process of their own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    outcome = Outcome()
    with memory_folder() as folder:
        for seed in range(first, last):
            TRIALS[name](folder, seed, outcome)
    return outcome


def main() -> None:
    """Try, print, and exit with 1 if anything was wrong."""
    options = _options()
    asked = {name: getattr(options, name) for name in TRIALS if getattr(options, name) is not None} or USUAL
    total = Outcome()
    with ProcessPoolExecutor(options.jobs) as pool:
        batches = [*_batches(asked, options.first)]
        for outcome in pool.map(try_some, *zip(*batches, strict=True)):
            total.add(outcome)
            for problem in outcome.shown:
                print(problem, flush=True)
    for name, count in sorted(total.counts.items()):
        print(f"{count:>9,} answers: {name}")
    print(f"{total.tried:,} tried, {total.violations:,} problems: {asked}")
    sys.exit(total.violations > 0)


def _batches(asked: dict[str, int], first: int) -> Iterator[tuple[str, int, int]]:
    for name, count in asked.items():
        for begin in range(first, first + count, BATCH):
            yield name, begin, min(begin + BATCH, first + count)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in TRIALS:
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"so many: {TRIALS[name].__doc__}")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    return parser.parse_args()


if __name__ == "__main__":
    main()
