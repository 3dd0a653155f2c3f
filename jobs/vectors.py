"""Vectors on their way between Arrow and numpy, and a form of them in which dot products are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from jobs.errors import BadVectorsError, DatasetDamagedError

USER_VECTORS = "user_vectors.npy"
"""What a step's scratch file of float32[users, d], by user_index, is called."""

LARGEST = 1e15
"""Components beyond this are refused like infinity: with 1,024 of them a dot product would leave float32."""

GRID_BITS = 21
"""2 x 21 bits for a product and 10 for a sum of up to 1,024 of them: 52, which float64 adds without rounding."""


def matrix(lists: pa.ListArray | pa.ChunkedArray, dimensions: int) -> np.ndarray:
    """float32[len(lists), dimensions] of a column of equally long lists.

    Raises:
        BadVectorsError: a list is null or has another length.
    """
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    values = lists.flatten()
    lengths = np.diff(lists.offsets.to_numpy())
    if lists.null_count or values.null_count or (lengths != dimensions).any():
        raise BadVectorsError(f"an embedding is missing or does not have {dimensions} numbers")
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(lists), dimensions)


def gather(
    folder: Path,
    what: str,
    rows: int,
    *,
    column: str = "vector",
    file: Path | None = None,
    is_whole: bool = True,
) -> np.ndarray:
    """float32[rows, d]: the vectors of a part of `embeddings`, row = `<what>_index`; read batch by batch.

    Args:
        what: "item" or "user".
        file: is made, and mapped as the array, which may be more than memory holds; None: the array is in memory.
        is_whole: each row has a vector; else the others are zeros.

    Raises:
        DatasetDamagedError: not each row has exactly one vector.
        BadVectorsError: a vector is NaN, infinite or of another length than the first.
    """
    vectors = None
    seen = np.zeros(rows, dtype=np.int64)
    for batch in pa.dataset.dataset(folder, format="parquet").to_batches(columns=[f"{what}_index", column]):
        if batch.num_rows == 0:
            continue
        if vectors is None:
            shape = (rows, len(batch.column(column)[0]))
            vectors = np.lib.format.open_memmap(file, "w+", np.float32, shape) if file else np.zeros(shape, np.float32)
        indexes = batch.column(f"{what}_index").to_numpy()
        found = matrix(batch.column(column), vectors.shape[1])
        refuse_bad(found, indexes, what)
        if not 0 <= indexes.min() <= indexes.max() < rows:
            raise DatasetDamagedError(f"{folder}: {what}_index {indexes.min()} to {indexes.max()}; there are {rows}")
        np.add.at(seen, indexes, 1)
        vectors[indexes] = found
    is_wrong = seen != 1 if is_whole else seen > 1
    if vectors is None or is_wrong.any():
        wrong = np.flatnonzero(is_wrong)
        raise DatasetDamagedError(
            f"{folder}: {len(wrong)} of {rows} {what}s have no vector or several, the first {what}_index {wrong[:1]}",
            hint=f"remove {folder.parent} and run again: shortlist embed",
        )
    if isinstance(vectors, np.memmap):
        vectors.flush()  # for tasks on other machines
    return vectors


def refuse_bad(vectors: np.ndarray, indexes: np.ndarray, what: str) -> None:
    """Raise BadVectorsError when a vector holds NaN or infinity. FAISS would never return such an item."""
    bad = _are_bad(vectors)
    if bad.any():
        raise bad_vectors(int(bad.sum()), what, int(indexes[np.argmax(bad)]))


def bad_rows(column: pa.ListArray, dimensions: int) -> np.ndarray:
    """bool[n]: the vectors that are missing, of another length, or hold a number that is none or too large."""
    lengths = pa.compute.fill_null(pa.compute.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    is_bad = lengths != dimensions
    values = column.filter(pa.array(~is_bad)).flatten().to_numpy(zero_copy_only=False).reshape(-1, dimensions)
    is_bad[~is_bad] = _are_bad(values)
    return is_bad


def bad_vectors(count: int, what: str, index: int) -> BadVectorsError:
    """The error for `count` unusable vectors, the first of which is `index`."""
    return BadVectorsError(
        f"{count} {what} embeddings hold NaN or infinity, the first of {what}_index {index}",
        hint="train again with a lower train.learning_rate, then embed",
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """The rows at length 1; a row of zeros stays as it is."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)


def on_grid(vectors: np.ndarray) -> np.ndarray:
    """The rows rounded to 21 bits below the power of two over their largest component.

    The dot product of two such rows, computed in float64, is exact: it does not depend on the order of the additions,
    so neither on the batch a row is in, nor on threads, nor on the BLAS. A component moves by at most 2^-22 of that
    power of two.
    """
    _, exponents = np.frexp(np.abs(vectors).max(axis=1, initial=0.0, keepdims=True))
    shift = GRID_BITS - exponents
    return np.ldexp(np.rint(np.ldexp(vectors, shift)), -shift)


def _are_bad(vectors: np.ndarray) -> np.ndarray:
    """bool[n]: the rows with NaN, or with a component beyond LARGEST."""
    with np.errstate(invalid="ignore"):
        return ~(np.abs(vectors) <= LARGEST).all(axis=1)
