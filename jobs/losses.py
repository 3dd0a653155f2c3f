"""The training loss: softmax over one positive and a set of negatives that all examples of a batch share.

Negatives are drawn uniformly from the catalogue. With uniform draws the correction for how they were drawn (logQ) is
one constant, and so the model learns the whole of an item's probability, popularity included, which is what the
recall of a candidate list asks for. Half or nine tenths of the negatives drawn by popularity, corrected for it (Yi et
al. 2019, Sampling-bias-corrected neural modeling), were level at recall@100 on MovieLens 100K and Online Retail and
lower on Deskdrop; recall@1000 fell on all three with nine tenths.

Source: Bengio, Senecal 2008, Adaptive importance sampling to accelerate training of a neural probabilistic language
model; Wu et al. 2022, On the effectiveness of sampled softmax loss for item recommendation.
"""

from __future__ import annotations

import math

import numpy as np
import torch


def sampled_softmax(
    users: torch.Tensor,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    same: tuple[torch.Tensor, torch.Tensor],
    importance: torch.Tensor,
    *,
    temperature: float,
    catalogue: int,
    offsets: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Weighted mean cross-entropy of each user's positive item against the shared negatives; a scalar.

    Args:
        users: [batch, d]
        positives: [batch, d], the item each user took.
        negatives: [n, d], shared by the batch.
        same: (rows, columns) in [batch, n] where the negative is the row's own positive: these do not count.
        importance: [batch], the weights of the mean.
        temperature: divides the dot products.
        catalogue: items that the negatives were drawn from; each negative stands for catalogue / n of them.
        offsets: [batch] and [n], added to the scores of positives and negatives, see `popularity_offsets`.
    """
    scaled = users / temperature
    positive = (scaled * positives).sum(dim=1)  # [batch]
    if offsets is not None:
        positive = positive + offsets[0]
    # [batch, n] is the largest array of a step: one product, one write in place, one reduction.
    negative = (scaled @ negatives.T).index_put_(same, users.new_tensor(-math.inf))
    if offsets is not None:
        negative += offsets[1]
    others = torch.logsumexp(negative, dim=1) + math.log(max(catalogue - 1, 1) / len(negatives))
    losses = torch.nn.functional.softplus(others - positive)  # [batch]
    return (losses * importance).sum() / importance.sum()


def popularity_offsets(takers: np.ndarray, share: float) -> torch.Tensor:
    """float32[items]: `share` of the logarithm of each item's popularity, to be added to its scores in training only.

    What the offset says need not be learned: served without it, an item's popularity counts by so much less.

    Args:
        takers: int64[items], users who met each item.

    Source: Menon et al. 2021, Long-tail learning via logit adjustment.
    """
    popularity = (takers + 1.0) / (takers.sum() + len(takers))
    return torch.from_numpy((share * np.log(popularity)).astype(np.float32))


def same_items(positives: torch.Tensor, negatives: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, columns), int64 each: the pairs of equal items, found without comparing all pairs.

    Args:
        positives: int64[batch]
        negatives: int64[n]
    """
    ordered, column = negatives.sort(stable=True)
    first = torch.searchsorted(ordered, positives)
    counts = torch.searchsorted(ordered, positives, right=True) - first
    rows = torch.repeat_interleave(torch.arange(len(positives), device=positives.device), counts)
    offsets = torch.arange(len(rows), device=positives.device) - (counts.cumsum(0) - counts)[rows]
    return rows, column[first[rows] + offsets]
