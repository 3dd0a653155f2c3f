"""Arrays in files: written once, in NumPy's own .npy format, and read by mapping them."""

from __future__ import annotations

import mmap
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from prediction_store import contents, durable
from prediction_store.errors import BuildError, DamagedVersionError

AnyArray = npt.NDArray[Any]
WRITE_BYTES: Final = 16 << 20
NUMBER_TYPES: Final = ("<f4", "<f8", "<i4", "<i8", "<u4", "|u1", "|b1")
"""Element types an array in a version may have."""


def write_array(path: Path, array: AnyArray) -> None:
    """Write an array as .npy, in pieces, so that a mapped array larger than memory can be copied.

    Equal arrays give equal bytes.

    Raises:
        BuildError: its type is not one of `NUMBER_TYPES`, or a number is not finite.
    """
    with durable.create(path) as file:
        write_array_to(file, array, str(path))


def write_array_to(file: BinaryIO, array: AnyArray, what: str, *, nan_is_missing: bool = False) -> None:
    """Write an array as .npy into an open file. `nan_is_missing` lets NaN through, infinity never."""
    if array.dtype.str not in NUMBER_TYPES:
        raise BuildError(f"{what}: numbers of type {array.dtype.str}; wanted one of {', '.join(NUMBER_TYPES)}")
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    row_bytes = max(1, array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))
    rows = max(1, WRITE_BYTES // row_bytes)
    for start in range(0, array.shape[0], rows):
        part = np.ascontiguousarray(array[start : start + rows])
        if part.dtype.kind == "f" and not bool((np.isfinite(part) | (nan_is_missing & np.isnan(part))).all()):
            raise BuildError(f"{what}: a number is not finite, in or after row {start}")
        file.write(part.data if part.size else b"")


def map_array(path: Path, kind: str, shape: tuple[int | None, ...]) -> AnyArray:
    """Map an array of one version, read-only. Stays valid for as long as the array or a view of it lives.

    Args:
        kind: element types allowed, like "<f4", separated by spaces.
        shape: wanted length of each dimension; None: any.

    Raises:
        DamagedVersionError: the file is not such an array.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version} of the .npy format; wanted (1, 0)")
            found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        except (ValueError, SyntaxError, TokenError) as error:  # NumPy reads the header as a piece of Python
            raise DamagedVersionError(f"{path}: {error}") from error
        start = file.tell()
        if (
            fortran
            or dtype.str not in kind.split()
            or len(found) != len(shape)
            or any(want is not None and want != have for want, have in zip(shape, found, strict=True))
        ):
            raise DamagedVersionError(f"{path}: an array {found} of {dtype.str}; wanted {shape} of {kind}")
        count = int(np.prod(found, dtype=np.int64))
        if contents.size_of(path) != start + count * dtype.itemsize:
            raise DamagedVersionError(f"{path}: its size does not fit an array {found} of {dtype.str}")
        if count == 0:
            return np.empty(found, dtype)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype, count, start).reshape(found)


def map_bytes(path: Path) -> mmap.mmap | bytes:
    """Map the bytes of a file, read-only; a slice is a copy, in half the time that a view of a view takes."""
    with path.open("rb") as file:
        if contents.size_of(path) == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
