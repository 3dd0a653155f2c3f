"""Train the two towers: on the train split first, where the validation split chooses the epoch; then anew, for as many
epochs, on both. The newest days say most about the days to come, and are the ones a validation split holds back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch.nn import functional

from jobs import checkpoint, datasets, model, progress
from jobs.checkpoint import Epoch, Progress
from jobs.device import choose_device, reproducible
from jobs.encoder import find_encoder
from jobs.errors import TrainingDivergedError
from jobs.examples import TARGETS, Batch
from jobs.factors import factorise
from jobs.losses import same_items, sampled_softmax
from jobs.progress import Bar, Report
from jobs.sentences import read_texts
from jobs.task import Reading, Task, read_task, unmet
from jobs.towers import TwoTowers
from schemas.config import Config, Train

RECENCY_RATE = 30.0
"""Learning rate of the history's recency weights, as a multiple: a dozen numbers that must travel far."""


CHOOSE, REFIT = "choose", "refit"
"""Folders of the checkpoints: of the training that chooses the epoch, and of the one on all but the test split."""


def run(config: Config, day: str) -> Report:
    """Write `model`: towers.safetensors, model.json, and the texts' vectors if it reads any.

    A killed training goes on after its last finished epoch.

    Raises:
        NothingToTrainError: the train split is empty.
        TrainingDivergedError: the loss became NaN, infinite or exactly zero.
        MissingEncoderError: texts are to be read as sentences, and the encoder is not installed.
    """
    started = time.monotonic()
    prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
    reading = Reading(config.retrieve.consumed, config.split.strategy)
    encoder = find_encoder() if config.train.text == "sentences" else None
    with datasets.step(
        config.paths.workspace,
        day,
        "model",
        inputs=[prepared],
        settings=[config.train, reading],
        outside={} if encoder is None else {"encoder": encoder.id},
        resumable=True,
    ) as draft:
        if draft.complete is not None:
            return Report(step="train", day=day, skipped=True, rows=draft.complete.rows)
        device = choose_device(config.train.device)
        made_at = datasets.end_of(day)
        texts = None if encoder is None else read_texts(config.paths.workspace, prepared, encoder)
        with reproducible(config.train.seed, threads=config.train.threads):
            task = read_task(prepared, config.train, reading, made_at=made_at, device=device, texts=texts)
            towers, curve, best = fit(task, config.train, draft.path / CHOOSE)
        if config.train.refit and len(task.validation.users):
            again = msgspec.structs.replace(config.train, max_epochs=max(best, 1))
            with reproducible(config.train.seed, threads=config.train.threads):
                task = read_task(
                    prepared, again, reading, made_at=made_at, device=device, learn_validation=True, texts=texts
                )
                towers, _, _ = fit(task, again, draft.path / REFIT)
        trained = model.save(draft.path, towers, temperature=config.train.temperature, best_epoch=best, curve=curve)
        if texts is not None:
            np.save(draft.path / model.SENTENCES, texts.vectors)
        for phase in (CHOOSE, REFIT):
            checkpoint.remove(draft.path / phase)
        draft.rows["examples"] = task.windows.examples
        recall = curve[best].recall
        draft.extra |= {"space_id": trained.space_id, "best_epoch": best, "recall": recall}
    details = {"best_epoch": best, f"recall@{config.train.recall_at}": None if recall is None else round(recall, 4)}
    return Report(step="train", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=details)


def fit(task: Task, config: Train, folder: Path) -> tuple[TwoTowers, list[Epoch], int]:
    """Train until the last epoch or until patience ends: (the towers of the best epoch, the curve, that epoch).

    After each epoch the state is saved in `folder`, and a state that is there is taken up: the result is the same as
    without the interruption, to the last bit.

    Requires: torch's generator is seeded; the first weights come from it.
    """
    towers = TwoTowers(task.architecture)
    optimiser = _optimiser(towers.to(task.items.ids.device), config)
    folder.mkdir(exist_ok=True)
    state, best = _resume(folder, towers, optimiser)
    with progress.bar("train", config.max_epochs * _steps(task, config)) as bar:
        bar.advance((len(state.curve) - 1) * _steps(task, config) if state.curve else 0)
        if not state.curve:
            _start(task, towers, config)
            first = task.validation.recall(towers, task.items, task.users, config.recall_at)
            state, best = Progress([Epoch(0, None, first)], 0, False), _copy(towers)
        while not state.is_finished:
            epoch = len(state.curve)
            loss = _train_epoch(task, towers, optimiser, config, last=state.curve[-1], bar=bar)
            recall = task.validation.recall(towers, task.items, task.users, config.recall_at)
            state = _advance(state, Epoch(epoch, loss, recall), config)
            if state.best_epoch == epoch:
                best = _copy(towers)
            _save(folder, state, towers, optimiser, best)
    towers.load_state_dict(best)
    towers.forget(*unmet(task))
    return towers.eval(), state.curve, state.best_epoch


def _start(task: Task, towers: TwoTowers, config: Train) -> None:
    if config.initialise == "random":
        return
    shape = task.architecture
    users = np.repeat(np.arange(shape.users), np.diff(task.known.starts))
    pairs = users, task.known.items
    factors = factorise(*pairs, shape=(shape.users, shape.items), dimensions=shape.dimensions, seed=config.seed)
    towers.start_from(*factors, user_share=config.user_id_share)
    if towers.item.sentences is not None:
        towers.item.explain_ids(task.items, np.bincount(task.known.items, minlength=shape.items))


def _train_epoch(
    task: Task, towers: TwoTowers, optimiser: torch.optim.Optimizer, config: Train, *, last: Epoch, bar: Bar
) -> float:
    """One pass over the examples of the epoch after `last`; the mean loss.

    All randomness of an epoch comes from the seed and its number, so that a resumed training draws the same.
    """
    epoch = last.epoch + 1
    rng = np.random.default_rng([config.seed, epoch])
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    steps = _steps(task, config)
    losses, sizes = [], []
    batches = task.windows.batches(rng, batch_size=config.batch_size, limit=config.examples_per_epoch)
    started, seen = time.monotonic(), 0
    towers.train()
    for step, batch in enumerate(batches):
        left = 1.0 - (epoch - 1 + step / steps) / config.max_epochs
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * group["rate"] * left
        loss = batch_loss(task, towers, batch, config, generator)
        value = loss.item()
        _refuse_divergence(value, epoch, step, config)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(value)
        sizes.append(len(batch.targets))
        seen += len(batch.targets)
        speed = seen / (time.monotonic() - started)
        bar.advance(1, f"epoch {epoch}  loss {value:.3f}  recall {last.recall or 0:.4f}  {speed:,.0f} examples/s")
    towers.eval()
    return float(np.average(losses, weights=sizes))


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
        temperature=config.temperature,
        catalogue=catalogue,
    )


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


def _steps(task: Task, config: Train) -> int:
    return task.windows.steps(batch_size=config.batch_size, limit=config.examples_per_epoch)


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


def _advance(state: Progress, epoch: Epoch, config: Train) -> Progress:
    """The state after one more epoch. Without a validation slice the last epoch is the best."""
    best = state.curve[state.best_epoch].recall
    is_better = epoch.recall is None or best is None or epoch.recall > best
    best_epoch = epoch.epoch if is_better else state.best_epoch
    is_over = epoch.epoch >= config.max_epochs or epoch.epoch - best_epoch >= config.patience
    return Progress([*state.curve, epoch], best_epoch, is_over)


def _copy(towers: TwoTowers) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in towers.state_dict().items()}


def _save(
    folder: Path,
    state: Progress,
    towers: TwoTowers,
    optimiser: torch.optim.Optimizer,
    best: Mapping[str, torch.Tensor],
) -> None:
    parts = {"towers": towers.state_dict(), "best": best, "optimiser": checkpoint.optimiser_tensors(optimiser)}
    checkpoint.save(folder, state, {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()})


def _resume(
    folder: Path, towers: TwoTowers, optimiser: torch.optim.Optimizer
) -> tuple[Progress, dict[str, torch.Tensor]]:
    """The state of the checkpoint, put back into towers and optimiser; an empty curve when there is none."""
    found = checkpoint.load(folder)
    if found is None:
        return Progress([], 0, False), {}
    state, tensors = found
    towers.load_state_dict(checkpoint.under("towers", tensors))
    checkpoint.restore_optimiser(optimiser, checkpoint.under("optimiser", tensors))
    return state, checkpoint.under("best", tensors)
