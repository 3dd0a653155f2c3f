"""The loops of an answer, compiled from C when the package was built, if there was a compiler: `is_compiled`.

Each has a definition in numpy beside the place that calls it. That one serves where there is no kernel, some five times
slower, and it is what the tests compare the kernel with. A kernel that was compiled from other sources than lie beside
it is as good as none: after an update without a build it would be called as the new one is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reranker.compiled import digest

if TYPE_CHECKING:
    from reranker.compiled import _kernel as kernel

    is_compiled: bool
else:
    try:
        from reranker.compiled import _kernel as kernel
    except ImportError:
        kernel = None
    if kernel is not None and digest.of_sources() not in (None, getattr(kernel, "SOURCES", "")):
        kernel = None
    is_compiled = kernel is not None

__all__ = ["is_compiled", "kernel"]
