"""`make soak`: every promise tried with the full numbers. Takes about four hours on two cores; can be interrupted.

    make soak                                   everything; after Ctrl-C the same command goes on
    make soak SOAK="--only 4 --scale 0.01"      one promise, a hundredth of it
    make soak SOAK="--fresh"                    from the beginning

What was found stands in build/soak, one file for each technique, written after each batch. It is gone on with only on
the sources it was found on: when the product or the trials change, a technique begins anew. At the end
docs/reliability.json is written, with the commit that each technique was run at, a table printed, and one line of
JSON. `--table` prints the table of promises as README.md has it, `--readme` puts it there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from promises import report
from promises.catalogue import PROMISES, Promise, Technique
from promises.outcome import Outcome
from promises.sources import digest_of
from promises.tiny_store import memory_folder

FOLDER: Final = report.ROOT / "build" / "soak"
POLL_SECONDS = 0.05
SEED_STEP = 1_000_003
"""Between the seeds of two batches, so that no two trials of two techniques share one."""


class Progressed(msgspec.Struct, kw_only=True):
    """How far a technique has come: one file in build/soak."""

    sources: str
    commit: str = ""
    """At which it began."""
    scale: float
    batches: int = 0
    """Done, from the first on."""
    seconds: float = 0.0
    """Of the clock, all batches together."""
    outcome: Outcome = msgspec.field(default_factory=Outcome)


class Batch:
    """One batch that is running, in a session of its own so that all of it can be ended."""

    def __init__(self, technique: Technique, number: int, trials: int) -> None:
        self.number = number
        self._exit = contextlib.ExitStack()
        folder = self._exit.enter_context(memory_folder())
        seed = number * SEED_STEP + sum(technique.name.encode())
        path = os.pathsep.join([str(report.ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "promises.trials", technique.name, str(seed), str(trials), str(folder)],
            cwd=report.ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def result(self) -> Outcome | None:
        """What it found; None: it is running. A batch that fails has broken its promise."""
        if self._process.poll() is None:
            return None
        printed, complaints = self._process.communicate()
        self.end()
        if self._process.returncode == 0:
            return msgspec.json.decode(printed.splitlines()[-1], type=Outcome)
        outcome = Outcome()
        last = complaints.decode(errors="replace").strip().splitlines()[-12:]
        outcome.violate(f"batch {self.number} ended with {self._process.returncode}:\n" + "\n".join(last))
        return outcome

    def end(self) -> None:
        """Make sure that nothing of it is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._exit.close()


class Screen:
    """A bar at a terminal, a line for each technique elsewhere."""

    def __init__(self) -> None:
        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[found]}"),
            TimeElapsedColumn(), console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, promise: Promise, technique: Technique, batches: int, done: int) -> TaskID:
        title = f"{promise.number:>2} {technique.name}"
        return self._bar.add_task(title, total=batches, completed=done, found="")

    def show(self, task: TaskID, progressed: Progressed) -> None:
        outcome = progressed.outcome
        found = f"{outcome.tried:,} tried, {outcome.violations} violations"
        self._bar.update(task, completed=progressed.batches, found=found)

    def end(self, promise: Promise, technique: Technique, progressed: Progressed) -> None:
        if not self._console.is_terminal:
            outcome = progressed.outcome
            print(
                f"promise {promise.number}, {technique.name}: {outcome.tried:,} tried,"
                f" {outcome.violations} violations, {progressed.seconds:.0f} s",
                flush=True,
            )


class Soak:
    """Runs techniques, and keeps in a folder how far each has come."""

    def __init__(self, folder: Path, options: argparse.Namespace, screen: Screen) -> None:
        self._folder = folder
        self._options = options
        self._screen = screen

    def run(self, promise: Promise, technique: Technique) -> None:
        """Run the batches of a technique that have not been run, as many at once as there are cores."""
        options = self._options
        trials = max(1, math.ceil((technique.trials or technique.batch) * options.scale))
        batches = math.ceil(trials / technique.batch)
        progressed = self._begin(technique)
        task = self._screen.begin(promise, technique, batches, progressed.batches)
        clock = time.monotonic()
        deadline = clock + 60 * technique.minutes * options.minutes_share
        upcoming, running, done = progressed.batches, list[Batch](), dict[int, Outcome]()
        try:
            while running or (upcoming < batches and time.monotonic() < deadline):
                slots = 1 if technique.is_alone else options.jobs
                while len(running) < slots and upcoming < batches and time.monotonic() < deadline:
                    running.append(
                        Batch(technique, upcoming, min(technique.batch, trials - upcoming * technique.batch))
                    )
                    upcoming += 1
                time.sleep(POLL_SECONDS)
                done |= {batch.number: found for batch in running if (found := batch.result()) is not None}
                running = [batch for batch in running if batch.number not in done]
                while progressed.batches in done:  # in order, so that it can be gone on with
                    progressed.outcome.add(done[progressed.batches])
                    progressed.batches += 1
                    progressed.seconds, clock = progressed.seconds + time.monotonic() - clock, time.monotonic()
                    self._keep(technique, progressed)
                    self._screen.show(task, progressed)
        finally:
            for batch in running:
                batch.end()
        self._screen.end(promise, technique, progressed)

    def found(self) -> Iterator[tuple[str, Progressed]]:
        """How far each technique has come, by name; not all need have run at the same commit."""
        for promise in PROMISES:
            for technique in promise.techniques:
                progressed = self._read(technique)
                if progressed is not None and progressed.batches:
                    yield technique.name, progressed

    def _begin(self, technique: Technique) -> Progressed:
        """How far it has come on these sources and at this scale."""
        found = self._read(technique)
        sources, scale = digest_of(technique.module), self._options.scale
        if found is None or self._options.fresh or (found.sources, found.scale) != (sources, scale):
            return Progressed(sources=sources, commit=report.commit(), scale=scale)
        return found

    def _path(self, technique: Technique) -> Path:
        return self._folder / f"{technique.name.replace(' ', '-')}.json"

    def _read(self, technique: Technique) -> Progressed | None:
        try:
            return msgspec.json.decode(self._path(technique).read_bytes(), type=Progressed)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _keep(self, technique: Technique, progressed: Progressed) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._path(technique).with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(progressed))
        temporary.replace(self._path(technique))


def main() -> None:
    """Soak, report, and exit with 1 if a promise was broken."""
    options = _options()
    if options.table or options.readme:
        found = json.loads(options.report.read_text(encoding="utf-8"))
        if options.readme:
            report.put_into_readme(found)
        print(report.table(found))
        return
    with Screen() as screen:
        soak = Soak(options.folder, options, screen)
        for promise in PROMISES:
            if options.only is None or promise.number in options.only:
                for technique in promise.techniques:
                    soak.run(promise, technique)
    written = report.write(
        options.report,
        {
            name: {"commit": progressed.commit, **report.summarise(progressed.outcome, progressed.seconds)}
            for name, progressed in soak.found()
        },
    )
    _print_table(written)
    print(json.dumps({number: _brief(found) for number, found in written["promises"].items()}, ensure_ascii=False))
    sys.exit(any(found["violations"] for found in written["promises"].values()))


def _brief(found: dict[str, Any]) -> dict[str, Any]:
    figures = {name: figure for one in found["techniques"].values() for name, figure in one["figures"].items()}
    return {"tried": found["tried"], "violations": found["violations"], "figures": figures}


def _print_table(written: dict[str, Any]) -> None:
    shown = Table("", "promise", "tried", "violations")
    for promise in PROMISES:
        found = written["promises"].get(str(promise.number))
        if found is not None:
            tried = report.describe(promise, found["techniques"])
            shown.add_row(str(promise.number), promise.words, tried, str(found["violations"]))
    Console().print(shown)
    for number, found in written["promises"].items():
        for name, one in found["techniques"].items():
            for what in one.get("shown", []):
                print(f"promise {number}, {name}: {what}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = [promise.number for promise in PROMISES]
    parser.add_argument("--only", type=int, nargs="+", choices=numbers, metavar="N", help="these promises: 1 … 11")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers")
    parser.add_argument("--minutes-share", type=float, default=1.0, help="share of the time that each may take")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="batches at once")
    parser.add_argument("--fresh", action="store_true", help="forget what was found before")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where it is kept how far each has come")
    parser.add_argument("--report", type=Path, default=report.REPORT, help="where the report goes")
    parser.add_argument("--table", action="store_true", help="print README.md's table from the report, and run nothing")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md, too")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
