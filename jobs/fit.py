"""The training of the towers: epochs of batches, a checkpoint after each, the best epoch kept."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from jobs import checkpoint, progress
from jobs.checkpoint import Epoch, Progress
from jobs.errors import TrainingDivergedError
from jobs.examples import TARGETS, Batch
from jobs.losses import same_items, sampled_softmax
from jobs.progress import Bar
from jobs.start import start
from jobs.task import Task, unmet
from jobs.team import ALONE, Team
from jobs.towers import TwoTowers
from jobs.training_log import TrainingLog
from schemas.train_config import Train

RECENCY_RATE = 30.0
"""Learning rate of the history's recency weights, as a multiple: a dozen numbers that must travel far."""


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
        TrainingLog(logs, per_epoch=task.epochs.per_epoch, epochs=done if state.curve else None) as log,
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
    [steps] = team.largest([sum(visit.steps for visit in plan)])
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
    total = weights.sum(dim=2, keepdim=True)
    total = total.masked_fill(total == 0, 1.0)  # without a history; by a tiny number a slope would become infinite
    return torch.bmm(weights / total, vectors)[batch.is_example.to(device)]


def _optimiser(towers: TwoTowers, config: Train) -> torch.optim.Adam:
    recency = towers.user.recency
    rest = [parameter for parameter in towers.parameters() if parameter is not recency]
    groups = [
        {"params": rest, "rate": 1.0, "weight_decay": config.weight_decay},
        {"params": [recency], "rate": RECENCY_RATE},
    ]
    # In one pass over each table: of hundreds of thousands of users the usual loop took most of a step.
    return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)


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
