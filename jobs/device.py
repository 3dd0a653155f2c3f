"""Where torch computes, and under which conditions the same seed gives the same numbers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch.utils import deterministic


def choose_device(wanted: str) -> torch.device:
    """The device to train on; `auto` takes CUDA where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


@contextlib.contextmanager
def reproducible(seed: int, *, threads: int) -> Iterator[None]:
    """Inside the block torch is seeded, deterministic and has so many threads, 0: one per core; then it is as it was.

    On a CPU the same seed and number of threads give the same bits. On CUDA the last bits may differ.
    """
    were_threads, was_strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    was_filled, deterministic.fill_uninitialized_memory = deterministic.fill_uninitialized_memory, False
    torch.set_num_threads(threads or os.cpu_count() or 1)
    # Where an operation has no deterministic form on a device, it says so and goes on.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(was_strict)
        deterministic.fill_uninitialized_memory = was_filled
        torch.set_num_threads(were_threads)
