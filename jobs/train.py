"""Train the two towers: on the train split first, where the validation split chooses the epoch; then anew, for as many
epochs, on both. The newest days say most about the days to come, and are the ones a validation split holds back.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import torch

from jobs import checkpoint, datasets, kept_model, known, model, order_fit
from jobs.checkpoint import Progress
from jobs.device import choose_device, reproducible
from jobs.encoder import find_encoder
from jobs.fit import fit, temperature
from jobs.list_order import BY_PRODUCTS, Order
from jobs.progress import Report
from jobs.sentences import Texts, read_texts
from jobs.task import Reading, Task, read_task
from jobs.team import ALONE, Team
from jobs.towers import TwoTowers
from schemas.config import Config
from schemas.tables import VALIDATION
from schemas.train_config import Train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.datasets import Dataset, Draft
    from jobs.encoder import Encoder

CHOOSE, REFIT = "choose", "refit"
"""The training that chooses the epoch, and the one on all but the test split: folders of checkpoints and of logs."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """All that a process needs to know to take part in a training. Paths are absolute."""

    config: Train
    reading: Reading
    workspace: str
    day: str
    draft: str
    """Folder of the dataset being written."""
    logs: str
    """Start of the names of the folders of event files."""
    encoder: str = ""
    """Id of the sentence encoder; empty: the titles are read as words only."""
    sentences: str = ""
    """The file of the sentence vectors."""


class Trained(NamedTuple):
    """What comes of a phase."""

    towers: TwoTowers
    progress: Progress
    examples: int
    order: Order


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a training; the model lies in the draft."""

    examples: int
    space_id: str
    best_epoch: int
    recall: float | None
    order: Order


def run(config: Config, day: str, spark: SparkSession | None = None) -> Report:
    """Write `model`: towers.safetensors, model.json, the ids of its rows, and the texts' vectors if it reads any.

    A killed training goes on after its last finished epoch. With `train.keep_days` a model that is there is kept.

    Args:
        spark: needed where `train.workers` is more than 1.

    Raises:
        NothingToTrainError: the train split is empty.
        TrainingDivergedError: the loss became NaN, infinite or exactly zero.
        MissingEncoderError: texts are to be read as sentences, and the encoder is not installed.
        JobError: a worker stopped.
    """
    started = time.monotonic()
    workspace = Path(config.paths.workspace).absolute()
    prepared = datasets.open_dataset(workspace, day, "prepared")
    reading = Reading(config.retrieve.consumed, config.split.strategy)
    encoder = find_encoder() if config.train.text == "sentences" else None
    outside = {} if encoder is None else {"encoder": encoder.id}
    made_with = kept_model.settings_digest(config, reading, outside.get("encoder", ""))
    kept, why = kept_model.find(config, day, made_with, prepared)
    if kept is not None:
        outside["kept"] = str(kept.extra("trained"))
    with datasets.step(
        workspace,
        day,
        "model",
        inputs=[prepared],
        settings=[kept_model.deciding(config.train), reading],
        outside=outside,
        resumable=True,
    ) as draft:
        if draft.is_complete:
            return Report(step="train", day=day, skipped=True, rows=draft.rows)
        assignment = Assignment(
            config=config.train,
            reading=reading,
            workspace=str(workspace),
            day=day,
            draft=str(draft.path),
            logs=str(workspace / day / "logs" / "train" / draft.fingerprint[:8]),
        )
        if encoder is not None:
            assignment = with_sentences(assignment, encoder, draft.path)
        if kept is not None:
            details = kept_model.keep(kept, prepared, draft)
        else:
            details = _train(assignment, spark, draft) | ({"not_kept": why} if why else {})
            kept_model.write_ids(prepared, draft.path)
            draft.extra |= {"trained": draft.fingerprint, "trained_on": day, "settings": made_with}
    return Report(step="train", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=details)


def _train(assignment: Assignment, spark: SparkSession | None, draft: Draft) -> dict[str, object]:
    """Train in as many processes as wanted; what is to be said of it."""
    if assignment.config.workers == 1:
        outcome = learn(assignment)
    else:
        from jobs.workers import train_together

        assert spark is not None
        outcome = train_together(spark, assignment)
    for phase in (CHOOSE, REFIT):
        checkpoint.remove(draft.path / phase)
    draft.rows["examples"] = outcome.examples
    draft.extra |= {name: getattr(outcome, name) for name in ("space_id", "best_epoch", "recall")}
    recall = None if outcome.recall is None else round(outcome.recall, 4)
    order = "products" if outcome.order == BY_PRODUCTS else "learned"
    return {"best_epoch": outcome.best_epoch, f"recall@{assignment.config.recall_at}": recall, "order": order}


def with_sentences(assignment: Assignment, encoder: Encoder, folder: Path) -> Assignment:
    """The assignment with the sentence vectors of the catalogue, written into `folder` for all who train."""
    prepared = datasets.open_dataset(assignment.workspace, assignment.day, "prepared")
    texts, file = read_texts(assignment.workspace, prepared, encoder), folder / model.SENTENCES
    np.save(file, texts.vectors)
    return msgspec.structs.replace(assignment, encoder=texts.encoder, sentences=str(file))


def learn(assignment: Assignment, team: Team = ALONE) -> Outcome:
    """Train and, in the first process of the team, write the model into the draft."""
    config = assignment.config
    chosen = _phase(assignment, config, CHOOSE, team)
    last, progress = chosen, chosen.progress
    if config.refit and progress.curve[0].recall is not None:
        again = msgspec.structs.replace(config, max_epochs=progress.best_epoch, factor_epochs=progress.refined)
        last = _phase(assignment, again, REFIT, team)
    space_id = ""
    if team.rank == 0:
        saved = model.save(
            Path(assignment.draft), last.towers, progress, temperature=temperature(config), order=chosen.order
        )
        space_id = saved.space_id
    recall = progress.curve[progress.best_epoch].recall
    return Outcome(
        examples=last.examples, space_id=space_id, best_epoch=progress.best_epoch, recall=recall, order=chosen.order
    )


def choose(assignment: Assignment) -> Progress:
    """Train on the train split alone and tell how it went; nothing but the checkpoint is written."""
    return _phase(assignment, msgspec.structs.replace(assignment.config, order="products"), CHOOSE, ALONE).progress


def _phase(assignment: Assignment, config: Train, phase: str, team: Team) -> Trained:
    prepared = datasets.open_dataset(assignment.workspace, assignment.day, "prepared")
    texts = None
    if assignment.encoder:
        texts = Texts(assignment.encoder, np.load(assignment.sentences, mmap_mode="r"))
    threads = config.threads if team.size == 1 else config.threads or torch.get_num_threads()
    with reproducible(config.seed, threads=threads):
        task = read_task(
            prepared,
            config,
            assignment.reading,
            made_at=datasets.known_until(prepared),
            device=choose_device(config.device),
            learn_validation=phase == REFIT,
            team=team,
            texts=texts,
        )
        logs = Path(f"{assignment.logs}-{phase}") if team.rank == 0 else None
        towers, progress = fit(task, config, Path(assignment.draft) / phase, logs, team)
        return Trained(towers, progress, task.epochs.examples, _order(task, towers, assignment, config, prepared))


def _order(task: Task, towers: TwoTowers, assignment: Assignment, config: Train, prepared: Dataset) -> Order:
    """What the validation slice says of the order of lists, if it is wanted and this process has the slice."""
    if config.order == "products" or assignment.reading.strategy != "time":
        return BY_PRODUCTS
    if task.validation is None or not len(task.validation.users):
        return BY_PRODUCTS
    folder = Path(assignment.draft) / known.FOLDER
    of_train = known.write_known(prepared, np.arange(task.architecture.items), folder, before=VALIDATION)
    lists = task.validation.lists(towers, task.items, task.users, of_train, order_fit.LENGTH)
    shutil.rmtree(folder)
    return order_fit.learn_order(lists, with_recent=not config.popularity_debias)
