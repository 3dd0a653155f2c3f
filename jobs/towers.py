"""The two towers: torch modules that turn items and users into vectors of one space.

item = unit(id + category + brand + numbers + mean of title words [+ sentence vector mapped])
user = unit(id + history mapped + user columns), history = weighted mean of the vectors of the last items

With the similarity `dot` nothing is brought to length 1: a longer item is a more popular one.

Both are sums of embeddings: an item that training never saw keeps all but its id, a user who is new keeps the history.
Dropping ids at random in training makes the rest carry its share.

Source: Covington, Adams, Sargin 2016, Deep neural networks for YouTube recommendations (pooled history in the user
tower); Mao et al. 2021, SimpleX (history pooled from the item tower's own embeddings); Volkovs, Yu, Poutanen 2017,
DropoutNet (dropping ids for cold start). Cosine with a temperature against plain dot products and against unit users
with free items: much better on MovieLens 100K and Deskdrop, level on Online Retail. A few steps learn popularity as a
direction, where free lengths overfit it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jobs.features import NUMBERS, Encoding, ItemFeatures, UserFeatures

RECENCY_BUCKETS = 12
"""Weights of the history by distance: 1, 2-3, 4-7, 8-15 and so on; the last one holds all beyond."""

FIRST_DECAY = 0.97
"""Weight of one step into the past before training has learned better."""

SMALL = 0.02


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """All that rebuilds the modules around saved weights. Part of model.json."""

    items: int
    users: int
    dimensions: int
    similarity: Literal["cosine", "dot"] = "cosine"
    history_length: int
    encoding: Encoding


@dataclass(frozen=True)
class ItemTensors:
    """`ItemFeatures` as tensors on one device."""

    ids: torch.Tensor
    categories: torch.Tensor
    brands: torch.Tensor
    numbers: torch.Tensor
    words: torch.Tensor
    sentences: torch.Tensor
    """float16"""

    @staticmethod
    def of(features: ItemFeatures, device: torch.device | str = "cpu") -> ItemTensors:
        arrays = (getattr(features, field.name) for field in dataclasses.fields(ItemTensors))
        return ItemTensors(*(torch.from_numpy(array).to(device) for array in arrays))

    def take(self, rows: torch.Tensor) -> ItemTensors:
        """The items at `rows`, int64[m]."""
        every = (getattr(self, field.name) for field in dataclasses.fields(self))
        return ItemTensors(*(tensor[rows] for tensor in every))


@dataclass(frozen=True)
class UserTensors:
    """`UserFeatures` as tensors on one device."""

    ids: torch.Tensor
    columns: torch.Tensor

    @staticmethod
    def of(features: UserFeatures, device: torch.device | str = "cpu") -> UserTensors:
        return UserTensors(torch.from_numpy(features.ids).to(device), torch.from_numpy(features.columns).to(device))

    def take(self, rows: torch.Tensor) -> UserTensors:
        return UserTensors(self.ids[rows], self.columns[rows])


class ItemTower(nn.Module):
    """Items to vectors."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._is_unit = architecture.similarity == "cosine"
        encoding, d = architecture.encoding, architecture.dimensions
        self.id = _embedding(architecture.items + 1, d)
        self.category = _embedding(len(encoding.categories) + 1, d)
        self.brand = _embedding(len(encoding.brands) + 1, d)
        self.words = nn.EmbeddingBag(encoding.title_buckets + 1, d, mode="mean", padding_idx=0)
        nn.init.normal_(self.words.weight, std=SMALL)
        self.numbers = nn.Linear(NUMBERS, d)
        nn.init.zeros_(self.numbers.weight)
        nn.init.normal_(self.numbers.bias, std=SMALL)
        with torch.no_grad():
            self.words.weight[0] = 0.0
        read = encoding.sentences
        # Zeros: no random number is drawn, so all other weights start as they do without sentences.
        self.sentences = None if read is None else nn.Parameter(torch.zeros(d, read.dimensions))

    def forward(self, items: ItemTensors, keep_id: torch.Tensor | None = None) -> torch.Tensor:
        """float[n, d], rows of length 1 for cosines. `keep_id` bool[n]: items whose id is dropped are False."""
        found = _of_id(self.id, items.ids, keep_id) + self.content(items)
        return functional.normalize(found, dim=-1) if self._is_unit else found

    def content(self, items: ItemTensors) -> torch.Tensor:
        """float[n, d]: what all but the ids say."""
        content = self.category(items.categories) + self.brand(items.brands) + self.words(items.words)
        content = content + self.numbers(items.numbers.to(self.numbers.weight.dtype))
        if self.sentences is not None:
            content = content + functional.linear(items.sentences.to(self.sentences.dtype), self.sentences)
        return content


class UserTower(nn.Module):
    """Users with their pooled history to vectors."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._is_unit = architecture.similarity == "cosine"
        d = architecture.dimensions
        self.id = _embedding(architecture.users + 1, d)
        self.columns = nn.ModuleList(_embedding(len(values) + 1, d) for values in architecture.encoding.user_columns)
        self.history = nn.Linear(d, d)
        nn.init.eye_(self.history.weight)
        nn.init.normal_(self.history.bias, std=SMALL)
        middles = torch.tensor([1.5 * 2**k if k else 1.0 for k in range(RECENCY_BUCKETS)])
        self.recency = nn.Parameter((math.log(FIRST_DECAY) * middles).clamp(min=-5.0))

    def weights(self, event_weights: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        """How much an interaction of a history counts before the mean is taken; same shape as the arguments.

        The square root of its event weight, times what training learned of its distance: 1 for the last interaction
        of the history, 2 for the one before. Weight 0 stays 0.
        """
        bucket = distances.clamp(min=1).to(torch.float32).log2().floor().long().clamp(max=RECENCY_BUCKETS - 1)
        recency = self.of_recency()
        return event_weights.to(recency.dtype).sqrt() * recency[bucket]

    def of_recency(self) -> torch.Tensor:
        """float[RECENCY_BUCKETS]: how much a distance counts, by its bucket."""
        # Only ratios count: the largest is 1, so that no learning rate makes an infinity of it.
        return (self.recency - self.recency.max()).clamp(min=-20.0).exp()

    def forward(self, users: UserTensors, pooled: torch.Tensor, keep_id: torch.Tensor | None = None) -> torch.Tensor:
        """float[n, d], of length 1 for cosines; `pooled` [n, d] is each history's weighted mean, zeros for none."""
        found = self._with_columns(_of_id(self.id, users.ids, keep_id) + self.history(pooled), users)
        return functional.normalize(found, dim=-1) if self._is_unit else found

    def base(self, users: UserTensors) -> torch.Tensor:
        """float[n, d]: what is said of each user without a history, before anything is brought to length 1."""
        return self._with_columns(self.id(users.ids) + self.history.bias, users)

    def pool(
        self, item_vectors: torch.Tensor, items: torch.Tensor, event_weights: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """float[n, d]: weighted mean of each user's history.

        Histories lie end to end, oldest interaction first: `items` int64[total] are rows of `item_vectors`, and user k
        has the next `lengths[k]` of them.
        """
        ends = lengths.cumsum(0)
        user = torch.repeat_interleave(torch.arange(len(lengths), device=items.device), lengths)
        distances = ends[user] - torch.arange(len(items), device=items.device)
        weights = self.weights(event_weights, distances)
        total = torch.zeros(len(lengths), dtype=weights.dtype, device=items.device).index_add_(0, user, weights)
        sums = functional.embedding_bag(items, item_vectors, ends - lengths, mode="sum", per_sample_weights=weights)
        return sums / total.clamp(min=torch.finfo(total.dtype).tiny)[:, None]

    def _with_columns(self, found: torch.Tensor, users: UserTensors) -> torch.Tensor:
        for k, embedding in enumerate(self.columns):
            found = found + embedding(users.columns[:, k])
        return found


class TwoTowers(nn.Module):
    """Both towers. The score of a pair is the dot product of their vectors; with unit vectors a cosine."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.item = ItemTower(architecture)
        self.user = UserTower(architecture)

    def start_from(self, user_factors: np.ndarray, item_factors: np.ndarray, user_share: float) -> None:
        """Replace the id embeddings by the factors of a matrix factorisation, each scaled to a mean length of 1.

        Users get `user_share` of that length: what their history already says need not be learned twice, and a large
        id overfits small data.
        """
        for embedding, factors, share in (
            (self.user.id, user_factors, user_share),
            (self.item.id, item_factors, 1.0),
        ):
            length = math.sqrt(float((factors.astype(np.float64) ** 2).sum(axis=1).mean())) or 1.0
            d = min(factors.shape[1], embedding.weight.shape[1])
            with torch.no_grad():
                embedding.weight[1:, :d] = torch.from_numpy(factors[:, :d] * np.float32(share / length))

    def start_exactly(
        self,
        user_ids: torch.Tensor,
        history: torch.Tensor,
        history_bias: torch.Tensor,
        items: torch.Tensor,
        met: torch.Tensor,
    ) -> None:
        """Let ids and history alone speak at first; an item that is not met is the mean of those that are.

        Args:
            user_ids: float32[users, d]
            history: float32[d, d], what a pooled history is multiplied by; history_bias: float32[d].
            items: float32[items, d], the vectors of the items; met: bool[items].
        """
        mean = items[met].mean(dim=0)
        tables = self.item.category, self.item.brand, self.item.words, self.item.numbers, *self.user.columns
        with torch.no_grad():
            for module in tables:
                module.weight.zero_()
            self.item.id.weight[1:] = (items - mean) * met[:, None]
            self.item.numbers.bias.copy_(mean)
            self.user.id.weight[1:] = user_ids
            self.user.history.weight.copy_(history.T)
            self.user.history.bias.copy_(history_bias)

    def forget(self, users: np.ndarray, items: np.ndarray) -> None:
        """Make the ids of some users and items unknown: their content and history speak for them.

        Args:
            users, items: bool[users], bool[items], True for those that training has not met.
        """
        for embedding, unmet in ((self.user.id, users), (self.item.id, items)):
            with torch.no_grad():
                embedding.weight[1:][torch.from_numpy(unmet).to(embedding.weight.device)] = 0.0


def load_weights(architecture: Architecture, weights: Mapping[str, torch.Tensor]) -> TwoTowers:
    """The towers with saved weights, in evaluation mode. Raises RuntimeError when the weights are not theirs."""
    towers = TwoTowers(architecture)
    towers.load_state_dict(dict(weights))
    return towers.eval()


def _embedding(rows: int, dimensions: int) -> nn.Embedding:
    """Row 0, "unknown", is zero and gets no gradient."""
    embedding = nn.Embedding(rows, dimensions, padding_idx=0)
    nn.init.normal_(embedding.weight, std=SMALL)
    with torch.no_grad():
        embedding.weight[0] = 0.0
    return embedding


def _of_id(embedding: nn.Embedding, ids: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """The id's embedding; the row of the unknown where `keep` is False."""
    return embedding(ids if keep is None else torch.where(keep, ids, 0))
