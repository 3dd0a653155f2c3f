"""A training's state on disk after each epoch: one safetensors file, replaced in one step, never a pickle.

The weights and the optimiser's numbers are tensors; the rest, see `Progress`, is JSON in the file's metadata.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

NAME = "checkpoint.safetensors"


class Epoch(msgspec.Struct, frozen=True):
    """One point of the curve. Epoch 0 is the state before the first step."""

    epoch: int
    loss: float | None
    """Mean over the epoch; None for epoch 0."""
    recall: float | None
    """Candidate recall on the validation slice; None when there is no such slice."""


class Progress(msgspec.Struct, frozen=True):
    """Where a training stands, beside its tensors."""

    curve: list[Epoch]
    best_epoch: int
    is_finished: bool
    refined: int = 0
    """Epochs of refinement that the start took, see `start`."""


def save(folder: Path, progress: Progress, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace the checkpoint in `folder`: after a kill there is the old one or the new one, whole."""
    aside = folder / f".{NAME}"
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(on_cpu, aside, metadata={"progress": msgspec.json.encode(progress).decode()})
    with aside.open("rb") as handle:
        os.fsync(handle.fileno())
    aside.replace(folder / NAME)


def load(folder: Path) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """The last checkpoint, or None when there is none that can be read: then training starts from the beginning."""
    try:
        with safe_open(folder / NAME, framework="pt") as file:
            progress = msgspec.json.decode(file.metadata()["progress"], type=Progress)
            return progress, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, msgspec.MsgspecError):
        return None


def save_training(
    folder: Path,
    progress: Progress,
    towers: nn.Module,
    optimiser: torch.optim.Optimizer,
    best: Mapping[str, torch.Tensor],
) -> None:
    """Save all that `resume` needs; `best` are the weights of the best epoch."""
    parts = {"towers": towers.state_dict(), "best": best, "optimiser": _optimiser_tensors(optimiser)}
    save(folder, progress, {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()})


def resume(
    folder: Path, towers: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Progress, dict[str, torch.Tensor]]:
    """The state of the checkpoint, put back into towers and optimiser; an empty curve when there is none."""
    found = load(folder)
    if found is None:
        return Progress([], 0, False), {}
    progress, tensors = found
    towers.load_state_dict(_under("towers", tensors))
    _restore_optimiser(optimiser, _under("optimiser", tensors))
    return progress, _under("best", tensors)


def copy(towers: nn.Module) -> dict[str, torch.Tensor]:
    """The weights as they are now."""
    return {name: tensor.detach().clone() for name, tensor in towers.state_dict().items()}


def advance(progress: Progress, epoch: Epoch, *, max_epochs: int, patience: int, by_recall: bool = True) -> Progress:
    """The state after one more epoch. Without a validation slice, or not `by_recall`, the last epoch is the best."""
    best = progress.curve[progress.best_epoch].recall
    is_better = not by_recall or epoch.recall is None or best is None or epoch.recall > best
    best_epoch = epoch.epoch if is_better else progress.best_epoch
    is_over = epoch.epoch >= max_epochs or epoch.epoch - best_epoch >= patience
    return Progress([*progress.curve, epoch], best_epoch, is_over, progress.refined)


def remove(folder: Path) -> None:
    """Remove the folder of checkpoints, with what a kill may have left in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as named tensors: `<parameter number>.<name of the number>`."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `_optimiser_tensors` took out."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors named `<prefix>/…`, without the prefix."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
