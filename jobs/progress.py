"""What a person sees of long work: a bar at a terminal, one line per finished stage in a log."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished step says: `rows` by part, `details` for anything else worth a word."""

    step: str
    day: str
    rows: dict[str, int] = {}
    seconds: float = 0.0
    skipped: bool = False
    details: dict[str, Any] = {}


class Bar:
    """Advances a bar; does nothing when there is no terminal."""

    def __init__(self, progress: Progress | None, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int = 1, note: str = "") -> None:
        if self._progress is not None:
            self._progress.update(self._task, advance=n, note=note)


@contextlib.contextmanager
def bar(name: str, total: int) -> Iterator[Bar]:
    """A progress bar on stderr with a free text beside it; silent in a log."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Bar(None, None)
        return
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, progress.add_task(name, total=total, note=""))


def stage(report: Report) -> None:
    """Print the one log line of a finished step, on stderr."""
    _log().info(
        report.step,
        day=report.day,
        outcome="skipped" if report.skipped else "done",
        seconds=round(report.seconds, 1),
        **{f"rows_{part}": n for part, n in report.rows.items()},
        **report.details,
    )


def notice(event: str, **details: Any) -> None:
    """Print one log line about something that is not a step, on stderr."""
    _log().info(event, **details)


def _log() -> Any:
    render: Any = (
        structlog.dev.ConsoleRenderer(colors=True, pad_event_to=10, sort_keys=False)
        if sys.stderr.isatty()
        else structlog.processors.KeyValueRenderer(key_order=["timestamp", "event"])
    )
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True), render],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
