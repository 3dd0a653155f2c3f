"""The loops of an answer, compiled from C when the package was built, if there was a compiler: `is_compiled`.

Each has a definition in numpy beside the place that calls it. That one serves where there is no kernel, some five times
slower, and it is what the tests compare the kernel with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reranker.compiled import _kernel as kernel

    is_compiled: bool
else:
    try:
        from reranker.compiled import _kernel as kernel
    except ImportError:
        kernel = None
    is_compiled = kernel is not None

__all__ = ["is_compiled", "kernel"]
