"""Trains one model of RecBole with RecBole's own loader and trainer; run by .venv-recbole's Python, never imported.

`python -I recbole_peer.py ORDER.json`, in a folder of its own, into which RecBole writes. What happens is told on
stdout, a line of JSON each: `ready` once the data is loaded, then every `epoch`, at last the `steps` that were timed.
The vectors after each epoch in `keep` are users-N.npy and items-N.npy, float32, in the order of the pairs' own numbers.

The order: model, settings (RecBole's), users, items, epochs, keep, steps, warm_up, threads.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def main() -> None:
    """Do what the order says."""
    order = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(order["threads"])
    started = time.monotonic()
    config = Config(model=order["model"], dataset="pairs", config_dict=order["settings"])
    init_seed(config["seed"], config["reproducibility"])
    data = create_dataset(config)
    training = data_preparation(config, data)[0]
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(order["model"])(config, training._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], order["model"])(config, model)
    tell(
        ready=round(time.monotonic() - started, 1),
        batches=len(training),
        recbole=recbole.__version__,
        torch=torch.__version__,
        numpy=np.__version__,
        threads=torch.get_num_threads(),
    )
    seconds = 0.0
    for epoch in range(1, order["epochs"] + 1):
        started = time.monotonic()
        loss = trainer._train_epoch(training, epoch - 1)
        seconds += time.monotonic() - started
        if epoch in order["keep"]:
            keep(epoch, model, data, order)
        tell(epoch=epoch, seconds=seconds, loss=loss)
    if order["steps"]:
        marks: list[float] = []
        trainer._train_epoch(timed(training, order["warm_up"] + order["steps"], marks), 0)
        tell(steps=np.diff(marks)[order["warm_up"] :].tolist())


def timed(batches: Any, steps: int, marks: list[float]) -> Iterator[Any]:
    """The first batches; notes the moment at which each is asked for, and the one after the last step."""
    marks.append(time.monotonic())
    for batch in itertools.islice(batches, steps):
        yield batch
        marks.append(time.monotonic())


@torch.no_grad()
def keep(epoch: int, model: Any, data: Any, order: dict[str, Any]) -> None:
    """Write the vectors; a row that RecBole has no number for stays zero."""
    if order["model"] == "LightGCN":
        found = model.forward()
    else:
        found = model.user_embedding.weight, model.item_embedding.weight
    for side, vectors in zip(("user", "item"), found, strict=True):
        rows = data.field2id_token[f"{side}_id"][1:].astype(np.int64)  # the first is padding
        table = np.zeros((order[f"{side}s"], vectors.shape[1]), np.float32)
        table[rows] = vectors.numpy()[1:]
        np.save(f"{side}s-{epoch}.npy", table)


def tell(**facts: Any) -> None:
    """One line for whoever ordered this."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
