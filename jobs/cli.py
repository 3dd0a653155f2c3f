"""The verbs of the batch journey. Each parses, calls one job and prints one line."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.options import ConfigOption, DayOption, JsonOption, SetOption

if TYPE_CHECKING:
    from schemas.config import Config

app = typer.Typer(add_completion=False, help="The batch journey.")

ChangedOnlyOption = Annotated[
    bool,
    typer.Option(
        "--changed-only",
        help="Find lists for changed users alone, the others' are carried over: retrieve.changed_only for this run.",
    ),
]

KeepModelOption = Annotated[
    bool,
    typer.Option(
        "--keep-model",
        help="For a day that is not over: train nothing while the last nights have left a model, whatever "
        "train.keep_days is.",
    ),
]

OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--only",
        help="Only these steps, separated by commas; they run in the order of the journey: simulate, prepare, train, "
        "embed, retrieve, lists, evaluate, train-ranker, build, gate, cutover, retire.",
        metavar="STEPS",
    ),
]

LastDayOption = Annotated[
    str | None,
    typer.Option("--day", help="The shop's last day, YYYY-MM-DD. Default: simulate.days from simulate.start_day on."),
]


@app.command()
def run(
    config: ConfigOption = None,
    overrides: SetOption = [],
    day: DayOption = None,
    only: OnlyOption = None,
    *,
    changed_only: ChangedOnlyOption = False,
    keep_model: KeepModelOption = False,
) -> None:
    """Run the whole journey of one day, from your tables to a live version. Finished steps are skipped.

    Example: shortlist run --day 2026-11-21
    """
    from jobs.journey import STEPS

    steps = list(STEPS) if only is None else [step.strip() for step in only.split(",")]
    _run(config, _with_changed_only(overrides, changed_only), day, steps, keep_model=keep_model)


@app.command()
def simulate(config: ConfigOption = None, overrides: SetOption = [], day: LastDayOption = None) -> None:
    """Write the embedded shop up to a day: a stand-in for your own tables.

    Example: shortlist simulate --set simulate.users=1000
    """
    _run(config, overrides, day, ["simulate"])


@app.command()
def prepare(config: ConfigOption = None, overrides: SetOption = [], day: DayOption = None) -> None:
    """Read, check and split interactions, items and users.

    Example: shortlist prepare --set data.max_rejected_share=0.01
    """
    _run(config, overrides, day, ["prepare"])


@app.command()
def tune(
    config: ConfigOption = None,
    overrides: SetOption = [],
    day: DayOption = None,
    knobs: Annotated[
        str | None,
        typer.Option(
            "--knobs",
            help="Only these settings of the section train, separated by commas: similarity, dimensions, max_epochs, "
            "learning_rate, temperature, user_id_share, example_half_life_days.",
            metavar="NAMES",
        ),
    ] = None,
) -> None:
    """Find the settings of the towers that list best, on the validation split of a prepared day.

    Takes some trainings' time; a killed run goes on where it was. Prints what to put into the configuration.

    Example: shortlist tune --knobs similarity,dimensions
    """
    loaded, on = _what_to_run(config, overrides, day, ["tune"])
    from jobs import progress, tuning

    wanted = list(tuning.KNOBS) if knobs is None else [knob.strip() for knob in knobs.split(",")]
    report, trials = tuning.run(loaded, on, wanted)
    progress.stage(report)
    print(tuning.advice(trials))


@app.command()
def train(
    config: ConfigOption = None, overrides: SetOption = [], day: DayOption = None, keep_model: KeepModelOption = False
) -> None:
    """Train the two towers; a killed training goes on from its last epoch.

    Example: shortlist train --set train.max_epochs=4
    """
    _run(config, overrides, day, ["train"], keep_model=keep_model)


@app.command()
def embed(config: ConfigOption = None, overrides: SetOption = [], day: DayOption = None) -> None:
    """Embed every item and every user with the trained towers.

    Example: shortlist embed --day 2026-11-21
    """
    _run(config, overrides, day, ["embed"])


@app.command()
def retrieve(
    config: ConfigOption = None,
    overrides: SetOption = [],
    day: DayOption = None,
    changed_only: ChangedOnlyOption = False,
) -> None:
    """Find the best items of every user.

    Example: shortlist retrieve --set retrieve.candidates=500
    """
    _run(config, _with_changed_only(overrides, changed_only), day, ["retrieve"])


@app.command()
def lists(config: ConfigOption = None, overrides: SetOption = [], day: DayOption = None) -> None:
    """Make the fallbacks: popular, trending and neighbouring items.

    Example: shortlist lists --set lists.length=200
    """
    _run(config, overrides, day, ["lists"])


@app.command()
def evaluate(config: ConfigOption = None, overrides: SetOption = [], day: DayOption = None) -> None:
    """Judge the lists on held-out interactions, against baselines and the version before.

    Leaves a page to open in a browser, WORKSPACE/DAY/report/report.html, and report.json beside it.

    Example: shortlist evaluate --day 2026-11-21
    """
    _run(config, overrides, day, ["evaluate"])


@app.command("train-ranker")
def train_ranker(config: ConfigOption = None, overrides: SetOption = [], day: DayOption = None) -> None:
    """Learn the weights of the re-ranker's signals from the sessions since an earlier version.

    Example: shortlist train-ranker --day 2026-11-21
    """
    _run(config, overrides, day, ["train-ranker"])


@app.command()
def build(config: ConfigOption = None, overrides: SetOption = [], day: DayOption = None) -> None:
    """Write a sealed version into the store. It serves nobody until cutover.

    Example: shortlist build --day 2026-11-21
    """
    _run(config, overrides, day, ["build"])


@app.command()
def gate(
    version: Annotated[str, typer.Argument(help="A version's name, as `shortlist versions` lists it.")],
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Check a version against the one that is current. Exit 3: refused; it stays on disk and is not served.

    Example: shortlist gate 20261122T031500Z-3f9c0a1b
    """
    from jobs.release import judge
    from prediction_store import terminal
    from prediction_store.gates import require_passed
    from schemas.config_file import load_config

    report = judge(load_config(config, overrides), version, time.time())
    if as_json:
        terminal.print_json(report)
    else:
        terminal.print_gates(report)
    require_passed(report)


def _with_changed_only(overrides: list[str], changed_only: bool) -> list[str]:
    return [*overrides, "retrieve.changed_only=true"] if changed_only else overrides


def _run(
    config: ConfigOption, overrides: list[str], day: str | None, only: list[str], *, keep_model: bool = False
) -> None:
    from jobs import journey

    loaded, on = _what_to_run(config, overrides, day, only)
    if keep_model:
        loaded = journey.with_model_kept(loaded)
    journey.run(loaded, on, only, now=time.time)


def _what_to_run(config: ConfigOption, overrides: list[str], day: str | None, only: list[str]) -> tuple[Config, str]:
    """The configuration and the day. Requires: torch is not loaded yet."""
    from jobs import journey
    from schemas.config_file import load_config

    # Read when torch is loaded. Threads that wait spin otherwise: where other processes want the cores, two threads
    # took 15 seconds of CPU for what takes one thread 5, and three times as long; waiting asleep they take 5.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    loaded = load_config(config, overrides)
    now = time.time()
    on = journey.default_day(loaded, now, only) if day is None else day
    return loaded, journey.checked_day(loaded, on, now, only)
