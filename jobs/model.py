"""A trained model on disk: towers.safetensors holds the weights, model.json all else that rebuilds the towers.

Where the item tower reads sentence vectors, sentences.npy has those of the catalogue it was trained with.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from jobs.checkpoint import Epoch, Progress
from jobs.datasets import write_json
from jobs.errors import DatasetDamagedError
from jobs.list_order import BY_PRODUCTS, Order
from jobs.towers import Architecture, TwoTowers, load_weights

WEIGHTS, CARD, SENTENCES = "towers.safetensors", "model.json", "sentences.npy"
ROWS = {"item": "item_rows.npy", "user": "user_rows.npy"}
"""Only where the model is kept from another day, see `kept_model`."""
FORMAT = 2


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """model.json"""

    format: int
    architecture: Architecture
    temperature: float
    refined: int
    """Epochs of refinement before the first of the curve."""
    best_epoch: int
    curve: list[Epoch]
    space_id: str
    """First 16 hex digits of the SHA-256 of the weights: vectors of two spaces are never mixed."""
    order: Order = BY_PRODUCTS
    """What lists are put in order by."""


def save(
    folder: Path, towers: TwoTowers, progress: Progress, *, temperature: float, order: Order = BY_PRODUCTS
) -> Model:
    """Write both files into `folder`."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in towers.state_dict().items()}, folder / WEIGHTS)
    model = Model(
        format=FORMAT,
        architecture=towers.architecture,
        temperature=temperature,
        refined=progress.refined,
        best_epoch=progress.best_epoch,
        curve=progress.curve,
        space_id=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:16],
        order=order,
    )
    write_json(folder / CARD, model)
    return model


def load(folder: Path) -> tuple[TwoTowers, Model]:
    """The towers in evaluation mode, and what model.json says.

    Raises:
        DatasetDamagedError: a file is missing, torn, or does not fit the other.
    """
    hint = f"remove {folder} and run again: shortlist train"
    try:
        model = msgspec.json.decode((folder / CARD).read_bytes(), type=Model)
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DatasetDamagedError(f"the model in {folder} cannot be read: {error}", hint=hint) from error
    if model.format != FORMAT:
        raise DatasetDamagedError(f"{folder} has format {model.format}, this release reads {FORMAT}", hint=hint)
    try:
        return load_weights(model.architecture, weights), model
    except RuntimeError as error:
        raise DatasetDamagedError(f"the weights in {folder} do not fit its {CARD}: {error}", hint=hint) from error


def open_rows(folder: Path, noun: str) -> np.ndarray | None:
    """int32[items or users]: the model's row of each index of the day, -1 for unknown; None where they are the same."""
    path = folder / ROWS[noun]
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None


def count_items(folder: Path, architecture: Architecture) -> int:
    """The items of the day that the model in `folder` is for."""
    rows = open_rows(folder, "item")
    return architecture.items if rows is None else len(rows)


def open_sentences(folder: Path, architecture: Architecture) -> np.ndarray | None:
    """float16[items, dimensions] by item_index, mapped into memory; None where the model reads words only.

    Raises:
        DatasetDamagedError: the file is missing, torn, or does not fit the model.
    """
    read = architecture.encoding.sentences
    if read is None:
        return None
    hint = f"remove {folder} and run again: shortlist train"
    try:
        found: np.ndarray = np.load(folder / SENTENCES, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise DatasetDamagedError(f"{folder / SENTENCES} cannot be read: {error}", hint=hint) from error
    if found.shape != (count_items(folder, architecture), read.dimensions) or found.dtype != np.float16:
        raise DatasetDamagedError(
            f"{folder / SENTENCES} does not fit its {CARD}: {found.dtype}{found.shape}", hint=hint
        )
    return found
