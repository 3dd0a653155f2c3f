"""What a person sees of long work: a bar at a terminal, one line per finished stage in a log."""

from __future__ import annotations

import contextlib
import os
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
    """Advances a bar at a terminal, and prints a line now and then where there is none."""

    def __init__(
        self, name: str, progress: Progress | None = None, task: Any = None, *, is_silent: bool = False
    ) -> None:
        self._name, self._progress, self._task, self._is_silent = name, progress, task, is_silent

    def advance(self, n: int = 1, note: str = "") -> None:
        if self._progress is not None:
            self._progress.update(self._task, advance=n, note=note)

    def milestone(self, **facts: Any) -> None:
        """One line of a log; nothing where a bar is seen."""
        if self._progress is None and not self._is_silent:
            _log().info(self._name, **facts)


@contextlib.contextmanager
def bar(name: str, total: int, *, is_silent: bool = False) -> Iterator[Bar]:
    """A progress bar on stderr with a free text beside it; in a log, only its milestones."""
    console = Console(stderr=True)
    if is_silent or not console.is_terminal:
        yield Bar(name, is_silent=is_silent)
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
        yield Bar(name, progress, progress.add_task(name, total=total, note=""))


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
        structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"), pad_event_to=10, sort_keys=False)
        if sys.stderr.isatty()
        else structlog.processors.KeyValueRenderer(key_order=["timestamp", "event"])
    )
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True), render],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
