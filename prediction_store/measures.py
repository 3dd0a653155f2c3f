"""Measures of lists and of scores. Plain functions of arrays; each says where it comes from."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.floating[Any]]
Items = npt.NDArray[np.integer[Any]]

PERSISTENCE: Final = 0.98
"""Of rank-biased overlap: a reader who goes on to the next item with this probability sees 50 items on average."""
BINS: Final = 10
"""Of the population stability index."""
EMPTY_SHARE: Final = 1e-4
"""What stands for an empty bin: the logarithm of nothing would outweigh all the rest."""


def overlap(first: Items, second: Items) -> float:
    """The share of the longer list that is in the other one too; 0 when one is empty. Requires: not both are.

    Args:
        first, second: int[n] each: items, none of them twice.
    """
    return len(np.intersect1d(first, second, assume_unique=True)) / max(len(first), len(second))


def rank_biased_overlap(first: Items, second: Items, persistence: float = PERSISTENCE) -> float:
    """How well two rankings agree, 0 to 1, the top counting more; what is beyond their ends agrees as their ends do.

    Requires: not both lists are empty.
    Source: Webber, Moffat and Zobel, "A Similarity Measure for Indefinite Rankings", 2010, equation 32.
    """
    short, long = sorted((len(first), len(second)))
    _, places, others = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    met = np.bincount(np.maximum(places, others), minlength=long)  # [long] common items that depth d + 1 adds
    common = np.cumsum(met)  # [long] items in both at depth d + 1
    depth = np.arange(1, long + 1)
    weight = (1 - persistence) / persistence * persistence**depth
    total = float((common / depth * weight).sum())
    if short == 0:
        return total
    at_short = common[short - 1]
    beyond = depth[short:]
    total += float((at_short * (beyond - short) / (short * beyond) * weight[short:]).sum())
    tail = (common[-1] - at_short) / long + at_short / short
    return total + float(tail * persistence**long)


def gini(counts: Items, catalogue: int) -> float:
    """How unevenly items are shown: 0 all equally often, towards 1 as ever fewer of them.

    Args:
        counts: int[n]: how often each item was shown that was shown at all; at least one.
        catalogue: how many items there are; those without a count were never shown.

    Source: Gini coefficient by ranks, as in Fleder and Hosanagar, "Blockbuster Culture's Next Rise or Fall", 2009.
    """
    ordered = np.sort(counts).astype(np.float64)
    ranks = np.arange(catalogue - len(ordered) + 1, catalogue + 1)
    return float(((2 * ranks - catalogue - 1) * ordered).sum() / (catalogue * ordered.sum()))


def population_stability(expected: Numbers, found: Numbers) -> float:
    """How far numbers have moved: 0 not at all, above 0.1 somewhat, above 0.25 much.

    The `BINS` bins hold equally many of the `expected`.

    Source: the population stability index and its rule of thumb in Siddiqi, "Credit Risk Scorecards", 2006, chapter 8.
    """
    edges = np.quantile(expected, np.arange(1, BINS) / BINS)
    shares = []
    for numbers in (expected, found):
        counts = np.bincount(np.searchsorted(edges, numbers, side="right"), minlength=BINS)
        shares.append(np.maximum(counts / len(numbers), EMPTY_SHARE))
    before, after = shares
    return float(((after - before) * np.log(after / before)).sum())


def standardised(numbers: Numbers) -> npt.NDArray[np.float64]:
    """The numbers with their median at 0 and half of them within a range of 1: what is left is their shape."""
    low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75))
    shape: npt.NDArray[np.float64] = (numbers - middle) / ((high - low) or 1.0)
    return shape
