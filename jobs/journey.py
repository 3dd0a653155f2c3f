"""The whole journey of one day, in order: from your tables to a live version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import progress
from jobs.progress import Report
from schemas.config import Config
from schemas.errors import UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


STEPS = (
    "simulate",
    "prepare",
    "train",
    "embed",
    "retrieve",
    "lists",
    "evaluate",
    "train-ranker",
    "build",
    "gate",
    "cutover",
    "retire",
)
"""The verbs in the order in which they run."""


def run(config: Config, day: str, only: Sequence[str] = STEPS, *, now: Callable[[], float]) -> list[Report]:
    """Run the steps of a day in journey order, one Spark session for all; a finished step is skipped.

    Args:
        day: everything before its end is known.
        only: the steps to run; the order is always that of the journey.
        now: the clock; used for the version's name and for the history, never for its contents.

    Raises:
        UsageError: a step is unknown.
        GateRefusedError: a gate refused the version; it stays on disk and is not current.
    """
    unknown = [step for step in only if step not in STEPS]
    if unknown:
        raise UsageError(f"there is no step {unknown[0]!r}", hint=f"the steps are: {', '.join(STEPS)}")
    with ExitStack() as stack:
        spark: Any = LazySession(config, stack)
        reports = []
        for step in STEPS:
            if step in only and (step != "simulate" or is_simulated(config)):
                reports.append(_run_step(step, config, day, spark, now))
                progress.stage(reports[-1])
    return reports


def is_simulated(config: Config) -> bool:
    """True when the interactions are the embedded shop's, so that `simulate` writes them first."""
    return Path(config.data.interactions.path).is_relative_to(config.simulate.output)


def default_day(config: Config, now: float) -> str:
    """The last day in the data that has begun; for a shop that is not written yet, the last that `simulate` will write.

    Raises:
        SourceError: the table of interactions is missing or empty.
    """
    from jobs.last_day import last_day

    if is_simulated(config) and not Path(config.data.interactions.path).is_dir():
        return str(date.fromisoformat(config.simulate.start_day) + timedelta(days=config.simulate.days - 1))
    return last_day(config, _today(config, now))


def checked_day(config: Config, day: str, now: float) -> str:
    """The day as given, if it is one that has begun.

    Raises:
        UsageError: it is not a day of the calendar written YYYY-MM-DD, or lies in the future.
    """
    try:
        is_day = date.fromisoformat(day).isoformat() == day
    except ValueError:
        is_day = False
    if not is_day:
        raise UsageError(f"--day {day!r} is not a day; wanted YYYY-MM-DD")
    today = _today(config, now)
    if today and day > today:
        raise UsageError(f"--day {day} lies in the future: nothing of it can be known")
    return day


def _today(config: Config, now: float) -> str | None:
    """The day after which nothing can be known, UTC; None for the embedded shop, which has a time of its own."""
    return None if is_simulated(config) else datetime.fromtimestamp(now, UTC).date().isoformat()


class LazySession:
    """Stands for the Spark session and starts it at its first use, so that skipped steps cost no Java process."""

    def __init__(self, config: Config, stack: ExitStack) -> None:
        self._config, self._stack = config, stack
        self._session: SparkSession | None = None

    def __getattr__(self, name: str) -> Any:
        if self._session is None:
            from jobs.spark import session

            self._session = self._stack.enter_context(session(self._config.spark, "journey"))
        return getattr(self._session, name)


def _run_step(step: str, config: Config, day: str, spark: Any, now: Callable[[], float]) -> Report:
    """One step. Its module is imported when it runs: `gate` needs neither torch nor Spark."""
    if step in ("gate", "cutover", "retire"):
        report: Report = getattr(import_module("jobs.release"), step)(config, day, now())
        return report
    job = import_module(f"jobs.{step.replace('-', '_')}")
    if step in ("simulate", "evaluate", "train-ranker") or (step == "train" and config.train.workers == 1):
        report = job.run(config, day)
    else:
        from jobs.spark import errors_for_people

        with errors_for_people(step):
            report = job.run(config, day, spark, now=now()) if step == "build" else job.run(config, day, spark)
    return report
