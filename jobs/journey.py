"""The whole journey of one day, in order: from your tables to a live version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jobs import progress
from jobs.datasets import STEP_OF, end_of
from jobs.disk import refusals_for_people
from jobs.lock import lock
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
FIRST_DAY, LAST_DAY = "1970-01-01", "9998-12-31"
"""Times are epoch seconds, and what ends or expires after a day needs a calendar, too."""


def run(config: Config, day: str, only: Sequence[str] = STEPS, *, now: Callable[[], float]) -> list[Report]:
    """Run the steps of a day in journey order, one Spark session for all; a finished step is skipped.

    The whole journey simulates only where the embedded shop is what is read. Two runs of one day do not alternate: each
    would make anew what the other reads.

    Args:
        day: everything before its end is known.
        only: the steps to run; the order is always that of the journey.
        now: the clock; used for the version's name and for the history, and to tell whether the day is over: never
            for the contents of a day that is.

    Raises:
        UsageError: a step is unknown.
        DatasetBusyError: another run of several steps is at the day.
        GateRefusedError: a gate refused the version; it stays on disk and is not current.
    """
    unknown = [step for step in only if step not in STEPS]
    if unknown:
        raise UsageError(f"there is no step {unknown[0]!r}", hint=f"the steps are: {', '.join(STEPS)}")
    steps = [step for step in STEPS if step in only]
    if len(steps) == len(STEPS) and not is_simulated(config):
        steps.remove("simulate")
    with ExitStack() as stack:
        if sum(step in STEP_OF.values() for step in steps) > 1:
            stack.enter_context(_alone(Path(config.paths.workspace) / day))
        spark: Any = LazySession(config, stack)
        reports = []
        for step in steps:
            reports.append(_run_step(step, config, day, spark, now))
            progress.stage(reports[-1])
    return reports


def is_simulated(config: Config) -> bool:
    """True when the interactions are the embedded shop's, so that `simulate` writes them first."""
    return Path(config.data.interactions.path).is_relative_to(config.simulate.output)


def is_over(config: Config, day: str, now: float) -> bool:
    """True when nothing more can happen on the day; the embedded shop writes whole days, whatever the clock says."""
    return is_simulated(config) or end_of(day) <= now


def default_day(config: Config, now: float, only: Sequence[str] = STEPS) -> str:
    """The last day in the data that has begun; for `simulate` alone or a shop that is not written yet, the last that it
    will write.

    Raises:
        SourceError: the table of interactions is missing or empty.
    """
    from jobs.last_day import last_day

    if [*only] == ["simulate"] or (is_simulated(config) and not Path(config.data.interactions.path).is_dir()):
        return str(date.fromisoformat(config.simulate.start_day) + timedelta(days=config.simulate.days - 1))
    return last_day(config, _today(config, now, only))


def checked_day(config: Config, day: str, now: float, only: Sequence[str] = STEPS) -> str:
    """The day as given, if it is one that can be run.

    Raises:
        UsageError: it is not a day of the calendar written YYYY-MM-DD, its times do not fit a clock, or it lies in the
            future.
    """
    try:
        is_day = date.fromisoformat(day).isoformat() == day and FIRST_DAY <= day <= LAST_DAY
    except ValueError:
        is_day = False
    if not is_day:
        raise UsageError(f"--day {day!r} is not a day that can be run; wanted YYYY-MM-DD, {FIRST_DAY} to {LAST_DAY}")
    today = _today(config, now, only)
    if today and day > today:
        raise UsageError(f"--day {day} lies in the future: nothing of it can be known")
    return day


def _today(config: Config, now: float, only: Sequence[str]) -> str | None:
    """The day after which nothing can be known, UTC; None for the embedded shop, which has a time of its own."""
    is_embedded = is_simulated(config) or [*only] == ["simulate"]
    return None if is_embedded else datetime.fromtimestamp(now, UTC).date().isoformat()


def with_model_kept(config: Config) -> Config:
    """The configuration by which today keeps whatever model the last nights might keep.

    Two days more: it is today, and until last night's run is over the one before it is the last.
    """
    train = msgspec.structs.replace(config.train, keep_days=config.train.keep_days + 2)
    return msgspec.structs.replace(config, train=train)


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


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the day whose datasets lie in a folder, which is made, against other runs of several steps."""
    with ExitStack() as stack:
        with refusals_for_people("run", folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(folder / ".run.lock", f"the version of {folder.name}"))
        yield


def _run_step(step: str, config: Config, day: str, spark: Any, now: Callable[[], float]) -> Report:
    """One step. Its module is imported when it runs: `gate` needs neither torch nor Spark."""
    if step in ("gate", "cutover", "retire"):
        return getattr(import_module("jobs.release"), step)(config, day, now())
    job = import_module(f"jobs.{step.replace('-', '_')}")
    if step in ("simulate", "evaluate", "train-ranker") or (step == "train" and config.train.workers == 1):
        return job.run(config, day)
    from jobs.spark import errors_for_people

    with errors_for_people(step):
        if step == "prepare":
            return job.run(config, day, spark, is_over=is_over(config, day, now()))
        return job.run(config, day, spark, now=now()) if step == "build" else job.run(config, day, spark)
