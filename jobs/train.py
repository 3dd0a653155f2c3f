"""Train the two towers: on the train split first, where the validation split chooses the epoch; then anew, for as many
epochs, on both. The newest days say most about the days to come, and are the ones a validation split holds back.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from torch.nn import functional

from jobs import checkpoint, datasets, model, progress
from jobs.checkpoint import Epoch, Progress
from jobs.device import choose_device, reproducible
from jobs.errors import TrainingDivergedError
from jobs.examples import TARGETS, Batch
from jobs.losses import same_items, sampled_softmax
from jobs.progress import Bar, Report
from jobs.start import start
from jobs.task import Reading, Task, read_task, unmet
from jobs.team import ALONE, Team
from jobs.towers import TwoTowers
from jobs.training_log import TrainingLog
from schemas.config import Config, Train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RECENCY_RATE = 30.0
"""Learning rate of the history's recency weights, as a multiple: a dozen numbers that must travel far."""


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


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a training; the model lies in the draft."""

    examples: int
    space_id: str
    best_epoch: int
    recall: float | None


def run(config: Config, day: str, spark: SparkSession | None = None) -> Report:
    """Write `model`: towers.safetensors and model.json. A killed training goes on after its last finished epoch.

    Args:
        spark: needed where `train.workers` is more than 1.

    Raises:
        NothingToTrainError: the train split is empty.
        TrainingDivergedError: the loss became NaN, infinite or exactly zero.
        JobError: a worker stopped.
    """
    started = time.monotonic()
    workspace = Path(config.paths.workspace).resolve()
    prepared = datasets.open_dataset(workspace, day, "prepared")
    reading = Reading(config.retrieve.consumed, config.split.strategy)
    with datasets.step(
        workspace, day, "model", inputs=[prepared], settings=[config.train, reading], resumable=True
    ) as draft:
        if draft.complete is not None:
            return Report(step="train", day=day, skipped=True, rows=draft.complete.rows)
        assignment = Assignment(
            config=config.train,
            reading=reading,
            workspace=str(workspace),
            day=day,
            draft=str(draft.path),
            logs=str(workspace / day / "logs" / "train" / draft.fingerprint[:8]),
        )
        if config.train.workers == 1 or spark is None:
            outcome = learn(assignment)
        else:
            from jobs.workers import train_together

            outcome = train_together(spark, assignment)
        for phase in (CHOOSE, REFIT):
            checkpoint.remove(draft.path / phase)
        draft.rows["examples"] = outcome.examples
        draft.extra |= {name: getattr(outcome, name) for name in ("space_id", "best_epoch", "recall")}
    recall = None if outcome.recall is None else round(outcome.recall, 4)
    details = {"best_epoch": outcome.best_epoch, f"recall@{config.train.recall_at}": recall}
    return Report(step="train", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=details)


def learn(assignment: Assignment, team: Team = ALONE) -> Outcome:
    """Train and, in the first process of the team, write the model into the draft."""
    config = assignment.config
    towers, chosen, examples = _phase(assignment, config, CHOOSE, team)
    if config.refit and chosen.curve[0].recall is not None:
        again = msgspec.structs.replace(config, max_epochs=chosen.best_epoch, factor_epochs=chosen.refined)
        towers, _, examples = _phase(assignment, again, REFIT, team)
    space_id = ""
    if team.rank == 0:
        space_id = model.save(Path(assignment.draft), towers, chosen, temperature=temperature(config)).space_id
    recall = chosen.curve[chosen.best_epoch].recall
    return Outcome(examples=examples, space_id=space_id, best_epoch=chosen.best_epoch, recall=recall)


def choose(assignment: Assignment) -> Progress:
    """Train on the train split alone and tell how it went; nothing but the checkpoint is written."""
    return _phase(assignment, assignment.config, CHOOSE, ALONE)[1]


def _phase(assignment: Assignment, config: Train, phase: str, team: Team) -> tuple[TwoTowers, Progress, int]:
    """What `fit` returns, and the number of examples."""
    prepared = datasets.open_dataset(assignment.workspace, assignment.day, "prepared")
    threads = config.threads if team.size == 1 else config.threads or torch.get_num_threads()
    with reproducible(config.seed, threads=threads):
        task = read_task(
            prepared,
            config,
            assignment.reading,
            made_at=datasets.end_of(assignment.day),
            device=choose_device(config.device),
            learn_validation=phase == REFIT,
            team=team,
        )
        logs = Path(f"{assignment.logs}-{phase}") if team.rank == 0 else None
        return *fit(task, config, Path(assignment.draft) / phase, logs, team), task.epochs.examples


def fit(
    task: Task, config: Train, folder: Path, logs: Path | None = None, team: Team = ALONE
) -> tuple[TwoTowers, Progress]:
    """Train until the last epoch or until patience ends: (the towers of the best epoch, how it went).

    After each epoch the state is saved in `folder`, and a state that is there is taken up: the result is the same as
    without the interruption, to the last bit. Event files for TensorBoard go into `logs`.

    Requires: torch's generator is seeded; the first weights come from it.
    """
    towers = TwoTowers(task.architecture)
    optimiser = _optimiser(towers.to(task.items.ids.device), config)
    folder.mkdir(exist_ok=True)
    state, best = checkpoint.resume(folder, towers, optimiser)
    done = max(len(state.curve) - 1, 0)
    with (
        progress.bar("train", config.max_epochs * task.epochs.per_epoch, is_silent=team.rank > 0) as bar,
        TrainingLog(logs, per_epoch=task.epochs.per_epoch, epochs=done) as log,
    ):
        bar.advance(done * task.epochs.per_epoch)
        if not state.curve:
            refined = start(task, towers, config, team)
            team.spread(towers.state_dict().values())
            first = Epoch(0, None, _recall(task, towers, config, team))
            state, best = Progress([first], 0, config.max_epochs == 0, refined), checkpoint.copy(towers)
            if team.rank == 0:
                checkpoint.save_training(folder, state, towers, optimiser, best)
            log.end(first)
        while not state.is_finished:
            epoch = len(state.curve)
            loss, speed = _train_epoch(
                task, towers, optimiser, config, last=state.curve[-1], bar=bar, log=log, team=team
            )
            ended = Epoch(epoch, loss, _recall(task, towers, config, team))
            state = checkpoint.advance(
                state,
                ended,
                max_epochs=config.max_epochs,
                patience=config.patience,
                by_recall=not config.popularity_debias,
            )
            if state.best_epoch == epoch:
                best = checkpoint.copy(towers)
            if team.rank == 0:
                checkpoint.save_training(folder, state, towers, optimiser, best)
            log.end(ended)
            recall = None if ended.recall is None else round(ended.recall, 4)
            bar.milestone(epoch=epoch, loss=round(loss, 4), recall=recall, examples_per_second=round(speed))
    towers.load_state_dict(best)
    towers.forget(*unmet(task))
    return towers.eval(), state


def _recall(task: Task, towers: TwoTowers, config: Train, team: Team) -> float | None:
    """Candidate recall on the validation slice, found by the first process and told to all."""
    slice_ = task.validation
    return team.tell(None if slice_ is None else slice_.recall(towers, task.items, task.users, config.recall_at))


def _train_epoch(
    task: Task,
    towers: TwoTowers,
    optimiser: torch.optim.Optimizer,
    config: Train,
    *,
    last: Epoch,
    bar: Bar,
    log: TrainingLog,
    team: Team,
) -> tuple[float, float]:
    """One pass over the examples of the epoch after `last`; (the mean loss, examples per second).

    All randomness of an epoch comes from the seed, its number and the process's place in the team, so that a resumed
    training draws the same.
    """
    epoch = last.epoch + 1
    rng = np.random.default_rng([config.seed, epoch, team.rank])
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    plan = task.epochs.plan(rng)
    steps = team.largest(sum(visit.steps for visit in plan))
    losses, sizes, speed = [], [], 0.0
    parameters = list(towers.parameters())
    towers.train()
    log.begin(epoch)
    with contextlib.closing(task.epochs.batches(plan, rng)) as batches:
        for step in range(steps):
            batch = next(batches, None)  # None: this process has run out, and others may have not
            rate = config.learning_rate * (1.0 - (epoch - 1 + step / steps) / config.max_epochs)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["rate"]
            optimiser.zero_grad()
            loss = None if batch is None else batch_loss(task, towers, batch, config, generator)
            if loss is not None:
                loss.backward()
            weight, examples = (0.0, 0) if batch is None else (float(batch.importance.sum()), len(batch.targets))
            value, examples = team.average(parameters, loss, weight, examples)
            if not examples:
                continue
            _refuse_divergence(value, epoch, step, config)
            optimiser.step()
            losses.append(value)
            sizes.append(examples)
            speed = log.step(value, examples, rate)
            note = f"epoch {epoch}  loss {value:.3f}  recall {last.recall or 0:.4f}  {speed:,.0f} examples/s"
            bar.advance(examples, note)
    towers.eval()
    return float(np.average(losses, weights=sizes)), speed


def batch_loss(task: Task, towers: TwoTowers, batch: Batch, config: Train, generator: torch.Generator) -> torch.Tensor:
    """The sampled softmax loss of one batch, ids dropped at random; a scalar that can be differentiated."""
    device = task.items.ids.device
    catalogue = task.architecture.items
    negatives = torch.randint(catalogue, (config.negatives,), generator=generator)
    rows, in_window, drawn = _rows_of(batch, negatives, catalogue)
    keep_item = torch.rand(len(rows), generator=generator) >= config.id_dropout
    keep_user = torch.rand(len(batch.users), generator=generator) >= config.id_dropout
    vectors = towers.item(task.items.take(rows.to(device)), keep_item.to(device))
    pooled = pool_windows(towers, functional.embedding(in_window.to(device), vectors), batch)
    found = towers.user(task.users.take(batch.users.to(device)), pooled, keep_user.to(device))
    target = in_window[:, -TARGETS:][batch.is_example]
    return sampled_softmax(
        found,
        functional.embedding(target.to(device), vectors),
        functional.embedding(drawn.to(device), vectors),
        same_items(batch.targets.to(device), negatives.to(device)),
        batch.importance.to(device),
        temperature=temperature(config),
        catalogue=catalogue,
        offsets=None if task.offsets is None else (task.offsets[batch.targets], task.offsets[negatives]),
    )


def temperature(config: Train) -> float:
    """What divides the dot products before the softmax; free vectors find their own length."""
    return config.temperature if config.similarity == "cosine" else 1.0


def _rows_of(batch: Batch, negatives: torch.Tensor, catalogue: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(items that go through the tower, places of the windows' items among them, places of the negatives)."""
    if catalogue <= batch.items.numel():  # sorting would cost more than it saves
        return torch.arange(catalogue), batch.items, negatives
    rows, places = torch.unique(torch.cat([batch.items.flatten(), negatives]), return_inverse=True)
    return rows, places[: batch.items.numel()].view_as(batch.items), places[batch.items.numel() :]


def pool_windows(towers: TwoTowers, vectors: torch.Tensor, batch: Batch) -> torch.Tensor:
    """float[E, d]: the pooled history of each example, from `vectors` [windows, P, d] of the windows' items."""
    device = vectors.device
    by_distance = towers.user.weights(batch.weights.to(device)[:, None, :], batch.distances.to(device))
    weights = by_distance * batch.is_known.to(device)  # [windows, TARGETS, P]
    total = weights.sum(dim=2, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.bmm(weights / total, vectors)[batch.is_example.to(device)]


def _optimiser(towers: TwoTowers, config: Train) -> torch.optim.Adam:
    recency = towers.user.recency
    rest = [parameter for parameter in towers.parameters() if parameter is not recency]
    groups = [
        {"params": rest, "rate": 1.0, "weight_decay": config.weight_decay},
        {"params": [recency], "rate": RECENCY_RATE},
    ]
    return torch.optim.Adam(groups, lr=config.learning_rate)


def _refuse_divergence(loss: float, epoch: int, step: int, config: Train) -> None:
    if math.isfinite(loss) and loss != 0.0:
        return
    if loss == 0.0:
        raise TrainingDivergedError(
            f"the loss is exactly 0 in epoch {epoch}, step {step}: there is nothing left to tell apart",
            hint=f"raise train.temperature ({config.temperature}), or check that the catalogue has several items",
        )
    raise TrainingDivergedError(
        f"the loss is {loss} in epoch {epoch}, step {step}",
        hint=f"lower train.learning_rate ({config.learning_rate}) or raise train.temperature ({config.temperature})",
    )
