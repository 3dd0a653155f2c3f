"""Let the content of items say what it can of their ids, before the first step; the ids keep the rest.

By ridge regression of the id embeddings on what else the item tower reads. An item that training meets stays where it
is, and one that it does not meet comes to where its words, its category or its sentence vector point. Where no item has
any of these nothing is explained: who is not met would come to the mean of all, and head every list.

Source: Gantner et al. 2010, Learning attribute-to-feature mappings for cold-start recommendations.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from jobs.towers import ItemTensors, ItemTower

RIDGE, MOST_WEIGHT = 3.0, 100
"""The penalty, in mean weights of an item; and the interactions from which on an item weighs no more. A weight is the
square root of an item's interactions."""

MOST_COLUMNS = 8192
"""Words, categories and brands of which the regression can be solved in seconds; with more nothing is explained."""

CHUNK = 8192

MISSING = [1, 3]
"""Columns of `ItemFeatures.numbers` that say that a number is missing."""


@torch.no_grad()
def explain_ids(tower: ItemTower, items: ItemTensors, counts: np.ndarray) -> None:
    """Move what the content explains from the ids to the weights that read it: sentence vectors, or else all the rest.

    Args:
        items: the whole catalogue; row k has the id k + 1.
        counts: int64[items], interactions that training meets.
    """
    if not _tell_anything(items):
        return
    before = tower.id.weight[1:] + tower.content(items)
    if tower.sentences is not None:
        _fit_sentences(tower, items, counts)
    else:
        widths = [len(tower.category.weight), len(tower.brand.weight), len(tower.words.weight)]
        if sum(widths) > MOST_COLUMNS:
            return
        _fit_columns(tower, items, before.cpu().double(), counts, widths)
    met = torch.from_numpy(counts > 0)[:, None].to(before.device)
    tower.id.weight[1:] = torch.where(met, before - tower.content(items), tower.id.weight[1:])


def _tell_anything(items: ItemTensors) -> bool:
    """Whether any item has a word, a category, a brand, a price, an age or a sentence vector."""
    codes = (items.words, items.categories, items.brands, items.sentences)
    return any(bool((side != 0).any()) for side in codes) or not bool((items.numbers[:, MISSING] > 0).all())


def _fit_sentences(tower: ItemTower, items: ItemTensors, counts: np.ndarray) -> None:
    assert tower.sentences is not None
    weights = _weights(counts)
    read = items.sentences.cpu()
    ids = tower.id.weight[1:].cpu().double()
    gram = torch.eye(read.shape[1], dtype=torch.float64) * (RIDGE * weights.mean())
    moments = torch.zeros(read.shape[1], ids.shape[1], dtype=torch.float64)
    for part in _parts(len(ids)):
        weighted = read[part].double() * weights[part, None]
        gram += weighted.T @ read[part].double()
        moments += weighted.T @ ids[part]
    tower.sentences.copy_(torch.linalg.solve(gram, moments).T.float())  # [d, dimensions of the sentence vectors]


def _fit_columns(
    tower: ItemTower, items: ItemTensors, vectors: torch.Tensor, counts: np.ndarray, widths: list[int]
) -> None:
    """Let categories, brands, words and numbers say what they can of float64[items, d] `vectors`.

    Each item is a row of a sparse matrix, of which only the products are ever dense.
    """
    weights = _weights(counts)
    numbers = items.numbers.shape[1]
    width = sum(widths) + numbers + 1  # the last column finds the mean
    gram = np.zeros(width * width)
    moments = torch.zeros(width, vectors.shape[1], dtype=torch.float64)
    for part in _parts(len(vectors)):
        columns, values = _entries(items, part, widths)  # [n, entries]
        weighted = values * weights[part, None]
        cells = columns[:, :, None] * width + columns[:, None, :]
        products = weighted[:, :, None] * values[:, None, :]
        gram += np.bincount(cells.flatten().numpy(), products.flatten().numpy(), minlength=width * width)
        spread = weighted[:, :, None] * vectors[part, None, :]  # [n, entries, d]
        moments.index_add_(0, columns.flatten(), spread.flatten(0, 1))
    penalties = torch.full((width,), float(RIDGE * weights.mean()), dtype=torch.float64)
    found = torch.linalg.solve(torch.from_numpy(gram).view(width, width) + torch.diag(penalties), moments).float()
    of_category, of_brand, of_words, of_numbers, mean = found.split([*widths, numbers, 1])
    for embedding, rows in ((tower.category, of_category), (tower.brand, of_brand), (tower.words, of_words)):
        embedding.weight[1:] = rows[1:].to(embedding.weight.device)  # row 0 is the unknown's, and stays zero
    tower.numbers.weight.copy_(of_numbers.T)
    tower.numbers.bias.copy_(mean[0])


def _entries(items: ItemTensors, part: slice, widths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(int64[n, entries] columns, float64[n, entries] values) of some rows; a value of 0 stands for no entry."""
    categories, brands, words = (side[part].cpu() for side in (items.categories, items.brands, items.words))
    numbers = items.numbers[part].cpu().double()
    first = np.cumsum([0, *widths])
    share = (words > 0) / (words > 0).sum(dim=1, keepdim=True).clamp(min=1)
    columns = [categories[:, None], brands[:, None] + first[1], words + first[2]]
    values = [(categories > 0)[:, None].double(), (brands > 0)[:, None].double(), share.double()]
    columns.append((first[3] + torch.arange(numbers.shape[1] + 1)).expand(len(numbers), -1))
    values += [numbers, torch.ones(len(numbers), 1, dtype=torch.float64)]
    return torch.cat(columns, dim=1), torch.cat(values, dim=1)


def _weights(counts: np.ndarray) -> torch.Tensor:
    """float64[items]"""
    return torch.from_numpy(np.sqrt(np.minimum(counts, MOST_WEIGHT)))


def _parts(rows: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, rows, CHUNK))
