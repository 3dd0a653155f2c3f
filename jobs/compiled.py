"""How loops over numbers are compiled: by numba, at the first call, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at the first call. Floating-point sums may be reordered: those of products on the grid are exact."""
    return _kept(function, fastmath={"reassoc", "contract", "nsz"})


def strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled to what is written, operation by operation: the same on every machine."""
    return _kept(function, fastmath=False)


def _kept(function: Callable[..., Any], **options: object) -> Callable[..., Any]:
    """Compiled once per machine: kept on disk, unless there is nowhere to write."""
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # "no locator available": neither this folder nor the user's cache can be written
        return numba.njit(nogil=True, **options)(function)
