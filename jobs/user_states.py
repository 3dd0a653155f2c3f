"""What makes user vectors anew without torch, as far as all users share it: from the towers into `embeddings/tower`,
and from there into a version. The rest stands beside each vector, see `user_histories`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from jobs.towers import TwoTowers, UserTensors
from prediction_store.user_tower import Tower
from schemas.user_tower import TowerFacts

PART = "tower"


def save_tower(folder: Path, towers: TwoTowers) -> None:
    """Write what all users share into `folder`, which is made."""
    user = towers.user
    columns = torch.zeros((1, len(user.columns)), dtype=torch.int64)
    with torch.no_grad():
        parts = {
            "matrix": user.history.weight,
            "stranger": user.base(UserTensors(torch.zeros(1, dtype=torch.int64), columns))[0],
            "recency": user.of_recency(),
        }
    folder.mkdir()
    for name, tensor in parts.items():
        np.save(folder / f"{name}.npy", tensor.detach().to(torch.float32).numpy())


def load_tower(folder: Path, *, is_unit: bool, history_length: int, event_weights: Mapping[str, float]) -> Tower:
    """What `save_tower` has written, with what it does not know."""
    facts = TowerFacts(is_unit=is_unit, history_length=history_length, event_weights=dict(event_weights))
    return Tower(facts, *(np.load(folder / f"{name}.npy") for name in ("matrix", "stranger", "recency")))
