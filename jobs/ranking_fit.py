"""The weights of the signals that put what came next on top: a linear score, fitted by a listwise loss.

Source: Cao et al. 2007, Learning to rank: from pairwise to listwise approach (ListNet's top-one probability, which with
one wanted item is a softmax over the list).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

ROUNDS = 60
"""Of L-BFGS; the loss is convex, and a few dozen are enough."""


class Lists(NamedTuple):
    """Lists to learn from, each with the wanted candidate first."""

    signals: np.ndarray  # float32[lists, candidates, signals]
    is_there: np.ndarray  # bool[lists, candidates]: shorter lists are filled up
    weights: np.ndarray  # float32[lists]: how much each counts


def fit(lists: Lists, *, penalty: float) -> np.ndarray:
    """float32[signals]: the weights; the same numbers in give the same weights.

    Signals are brought to one scale first, so that the penalty on the squares of their weights means the same for each.
    """
    signals = torch.from_numpy(lists.signals)
    there = torch.from_numpy(lists.is_there)
    counts = torch.from_numpy(lists.weights)
    scale = signals[there].std(dim=0)
    scale = torch.where(scale > 1e-6, scale, torch.inf)  # what is the same everywhere gets no weight
    values = signals / scale
    weights = torch.zeros(signals.shape[2], requires_grad=True)
    found = torch.optim.LBFGS([weights], max_iter=ROUNDS, line_search_fn="strong_wolfe")
    wanted = torch.zeros(len(signals), dtype=torch.int64)

    def loss() -> torch.Tensor:
        found.zero_grad()
        scores = (values @ weights).masked_fill(~there, -torch.inf)
        each = functional.cross_entropy(scores, wanted, reduction="none")
        total = (each * counts).sum() / counts.sum() + penalty * weights.square().sum()
        total.backward()
        return total

    found.step(loss)
    return (weights.detach() / scale).numpy()
