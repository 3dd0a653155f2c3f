"""The item index on disk: the vectors in dense order, and what is known of each list of them.

A list is a cluster of items. The dense order follows the clusters, so that a list is a slice of the vectors. Its
readers map the files into memory, and all of a machine share one copy.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from jobs.vectors import on_grid


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ItemIndex:
    """What a search needs. Nothing here may be written to."""

    vectors: np.ndarray  # float32[n, d], on the grid
    starts: np.ndarray  # int64[lists + 1]: list i is the slice starts[i]:starts[i + 1] of the dense indexes
    means: np.ndarray  # float32[lists, d], on the grid: the mean of each list's vectors
    spreads: np.ndarray  # float64[lists]: standard deviation of a component of a list's vectors about the mean
    item_of: np.ndarray  # int32[n]: dense index to item_index
    dense_of: np.ndarray  # int32[n]: item_index to dense index
    longest: float  # length of the longest vector
    folder: Path

    @property
    def lists(self) -> int:
        """How many lists there are."""
        return len(self.means)


def build(folder: Path, vectors: np.ndarray, order: np.ndarray, list_of: np.ndarray) -> None:
    """Write the index of float32[n, d] `vectors` (row = item_index) into a folder, order.npy among its files.

    Args:
        order: int32[n], the item of each dense index.
        list_of: int32[n], the list of each dense index, ascending. Numbers that no item has are left out.
    """
    dense = on_grid(vectors[order])
    starts = np.concatenate([np.flatnonzero(np.diff(list_of, prepend=-1)), [len(dense)]]).astype(np.int64)
    lengths = np.diff(starts)
    # Along the rows of one list after the other: the same sums whatever the number of threads.
    means = on_grid(
        (np.add.reduceat(dense, starts[:-1], axis=0, dtype=np.float64) / lengths[:, None]).astype(np.float32)
    )
    squares = np.empty(len(dense), dtype=np.float64)
    for first, last, mean in zip(starts[:-1], starts[1:], means, strict=True):
        np.square(dense[first:last] - mean, dtype=np.float64).sum(axis=1, out=squares[first:last])
    spreads = np.sqrt(np.add.reduceat(squares, starts[:-1]) / (lengths * vectors.shape[1]))
    longest = np.sqrt(np.square(dense, dtype=np.float64).sum(axis=1).max())
    np.save(folder / "order.npy", order)
    np.save(folder / "vectors.npy", dense)
    np.save(folder / "starts.npy", starts)
    np.save(folder / "means.npy", means)
    np.save(folder / "spreads.npy", np.append(spreads, longest))


@functools.lru_cache(maxsize=2)
def open_index(folder: str, token: str) -> ItemIndex:
    """The index in `folder`, opened once per process. `token` tells it from others that were in that folder before."""
    path = Path(folder)
    spreads = np.load(path / "spreads.npy")
    order = np.load(path / "order.npy")
    return ItemIndex(
        vectors=_mapped(path / "vectors.npy"),
        starts=np.load(path / "starts.npy"),
        means=_mapped(path / "means.npy"),
        spreads=spreads[:-1],
        item_of=order,
        dense_of=inverse(order),
        longest=float(spreads[-1]),
        folder=path,
    )


def token_of(folder: Path) -> str:
    """What tells the index now in `folder` from any other there: the identity of its file on disk."""
    facts = (folder / "vectors.npy").stat()
    return f"{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}"


def list_of(starts: np.ndarray) -> np.ndarray:
    """int32[n]: the list of each dense index."""
    return np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))


def inverse(order: np.ndarray) -> np.ndarray:
    """int32[n]: item_index to dense index, from dense index to item_index."""
    dense_of = np.empty_like(order)
    dense_of[order] = np.arange(len(order), dtype=order.dtype)
    return dense_of


def _mapped(path: Path) -> np.ndarray:
    # A plain view: a slice of a numpy.memmap costs as much as a small matrix product.
    return np.asarray(np.load(path, mmap_mode="r"))
