"""Find the settings of the towers on the validation slice: one knob after the other, the best so far kept.

The test split is never read. A setting replaces another only when it finds clearly more, so that noise does not choose.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from jobs import checkpoint, datasets, kept_model, progress, train
from jobs.datasets import Draft
from jobs.encoder import find_encoder
from jobs.errors import NothingToTuneError, TrainingDivergedError
from jobs.progress import Report
from jobs.task import Reading
from schemas.config import Config, digest
from schemas.errors import UsageError
from schemas.train_config import Train

WORTH = 0.005
"""A setting must raise the recall by this share of it."""

KNOBS: dict[str, Callable[[Train, Reading], Sequence[object]]] = {
    "similarity": lambda now, _: ["cosine", "dot"],
    "dimensions": lambda now, _: [64, 128, 256],
    "max_epochs": lambda now, _: [0, 4, 12] if now.similarity == "dot" else [2, 4, 12],
    "learning_rate": lambda now, _: [now.learning_rate / 3, now.learning_rate * 3] if now.max_epochs else [],
    "temperature": lambda now, _: [0.07, 0.1, 0.15, 0.2] if now.similarity == "cosine" else [],
    "user_id_share": lambda now, _: [0.0, 0.1, 0.3, 1.0] if now.similarity == "cosine" else [],
    "example_half_life_days": lambda now, reading: [7.0, 30.0, 365.0] if reading.strategy == "time" else [],
}
"""In the order in which they are turned: what else is worth a trial, given the best so far and how it is judged."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One training on the train split."""

    settings: dict[str, str | int | float]
    """The knobs, all of them."""
    recall: float
    """Of the validation slice at `train.recall_at`, at the best epoch."""
    best_epoch: int
    seconds: float
    is_better: bool
    """Than all before it, by enough."""


def run(config: Config, day: str, knobs: Sequence[str] = tuple(KNOBS)) -> tuple[Report, list[Trial]]:
    """Write `tuning`: trials.json, every trial in order; the last that is better holds the settings to take.

    A killed run goes on: finished trials are not repeated, an unfinished one goes on from its last epoch.

    Raises:
        UsageError: there is no such knob.
        NothingToTuneError: no user has anything in the validation split.
    """
    started = time.monotonic()
    unknown = [knob for knob in knobs if knob not in KNOBS]
    if unknown:
        raise UsageError(f"there is no knob {unknown[0]!r}", hint=f"the knobs are: {', '.join(KNOBS)}")
    workspace = Path(config.paths.workspace).absolute()
    prepared = datasets.open_dataset(workspace, day, "prepared")
    reading = Reading(config.retrieve.consumed, config.split.strategy)
    order = [knob for knob in KNOBS if knob in knobs]
    given = kept_model.deciding(config.train)
    outside = {"knobs": ",".join(order), "model": str(datasets.REVISION["model"])}  # a trial is a training
    if given.text == "sentences":
        outside["encoder"] = find_encoder().id
    with datasets.step(
        workspace,
        day,
        "tuning",
        inputs=[prepared],
        settings=[given, reading],
        outside=outside,
        resumable=True,
    ) as draft:
        if draft.is_complete:
            trials = msgspec.json.decode((draft.path / "trials.json").read_bytes(), type=list[Trial])
            return Report(step="tune", day=day, skipped=True, rows=draft.rows), trials
        trials = _search(_Laboratory(config, reading, workspace, day, draft), given, reading, order)
        datasets.write_json(draft.path / "trials.json", trials)
        draft.rows["trials"] = len(trials)
    details = {"recall": round(best(trials).recall, 4), "before": round(trials[0].recall, 4)}
    return Report(step="tune", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=details), trials


def best(trials: Sequence[Trial]) -> Trial:
    """The trial whose settings to take."""
    return [trial for trial in trials if trial.is_better][-1]


def advice(trials: Sequence[Trial]) -> str:
    """What to put into the configuration, as TOML, with what it gained."""
    first, found = trials[0], best(trials)
    facts = f"# recall on the validation split: {first.recall:.4f} before, {found.recall:.4f} with these"
    changed = {knob: value for knob, value in found.settings.items() if value != first.settings[knob]}
    if not changed:
        return f"# the settings as they are: recall {first.recall:.4f}, and none of {len(trials) - 1} others is better"
    lines = [
        f'{knob} = "{value}"' if isinstance(value, str) else f"{knob} = {value!r}" for knob, value in changed.items()
    ]
    return "\n".join([facts, "[train]", *lines])


def _search(laboratory: _Laboratory, given: Train, reading: Reading, order: Sequence[str]) -> list[Trial]:
    now, trials = given, [laboratory.trial(given, None)]
    tried = {_key(given)}
    for knob in order:
        for value in KNOBS[knob](now, reading):
            other = msgspec.structs.replace(now, **{knob: value})
            if _key(other) in tried:
                continue
            tried.add(_key(other))
            trials.append(laboratory.trial(other, best(trials).recall))
        now = msgspec.structs.replace(given, **best(trials).settings)
    return trials


class _Laboratory:
    """Makes trials, each once."""

    def __init__(self, config: Config, reading: Reading, workspace: Path, day: str, draft: Draft) -> None:
        self._config, self._reading, self._workspace, self._day, self._draft = config, reading, workspace, day, draft

    def trial(self, settings: Train, highest: float | None) -> Trial:
        """Train with these settings; `highest` is the best recall so far, None for the first trial."""
        name = digest(settings)[:16]
        folder, done = self._draft.path / name, self._draft.path / f"{name}.json"
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):  # torn by a kill or a full disk: made again
            return msgspec.json.decode(done.read_bytes(), type=Trial)
        folder.mkdir(exist_ok=True)
        started = time.monotonic()
        recall, best_epoch = self._train(settings, folder)
        if recall is None:
            raise NothingToTuneError(
                "no user has an interaction in the validation split: nothing can tell settings apart",
                hint="hold out more: split.validation_days or split.validation_per_user",
            )
        trial = Trial(
            settings={knob: getattr(settings, knob) for knob in KNOBS},
            recall=recall,
            best_epoch=best_epoch,
            seconds=round(time.monotonic() - started, 1),
            is_better=highest is None or recall > highest * (1 + WORTH),
        )
        checkpoint.remove(folder)
        done.write_bytes(msgspec.json.encode(trial))
        progress.stage(Report(step="trial", day=self._day, seconds=trial.seconds, details=_told(trial)))
        return trial

    def _train(self, settings: Train, folder: Path) -> tuple[float | None, int]:
        """(recall, its epoch); 0 where the training came to nothing."""
        logs = self._workspace / self._day / "logs" / "tune" / folder.name
        assignment = train.Assignment(
            config=settings,
            reading=self._reading,
            workspace=str(self._workspace),
            day=self._day,
            draft=str(folder),
            logs=str(logs),
        )
        if settings.text == "sentences":
            assignment = train.with_sentences(assignment, find_encoder(), folder)
        try:
            state = train.choose(assignment)
        except TrainingDivergedError:
            return 0.0, 0
        return state.curve[state.best_epoch].recall, state.best_epoch


def _told(trial: Trial) -> dict[str, object]:
    return {"recall": round(trial.recall, 4), "better": trial.is_better, **trial.settings}


def _key(settings: Train) -> tuple[object, ...]:
    return tuple(getattr(settings, knob) for knob in KNOBS)
