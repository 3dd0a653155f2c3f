"""Training on a GPU, where there is one: the same blocks are learned, and the model is one for every host."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from blocks_shop import DAY, small_config, write_prepared

from jobs import datasets, model, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")
RECALL_NOISE = 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {"similarity": "cosine"},
        {"similarity": "dot", "max_epochs": 0, "teachers": 2},
        {"similarity": "dot", "max_epochs": 1},
        {"similarity": "dot", "popularity_debias": 0.5},
    ],
    ids=["cosine", "two teachers", "one epoch more", "debiased"],
)
@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation")
def test_a_gpu_learns_what_a_cpu_learns(tmp_path: Path, settings: dict[str, object]) -> None:
    recalls = {}
    for device in ("cpu", "cuda"):
        config = small_config(tmp_path / device, device=device, **settings)
        write_prepared(config)
        train.run(config, DAY)
        towers, card = model.load(datasets.open_dataset(config.paths.workspace, DAY, "model").path)
        assert {weights.device.type for weights in towers.parameters()} == {"cpu"}
        recalls[device] = card.curve[-1].recall
    assert recalls["cuda"] == pytest.approx(recalls["cpu"], abs=RECALL_NOISE)
