"""Epochs: every shard of the interactions once, in random order, as batches of examples."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np

from jobs.ahead import ahead
from jobs.examples import Batch, Histories, Windows
from jobs.shards import Counts, Shards

Cutter = Callable[[Histories], Windows]

BATCHES_AHEAD = 2
"""Batches cut while one is trained on."""


@dataclass(frozen=True)
class Visit:
    """What an epoch takes of a shard."""

    shard: int
    examples: int
    steps: int


class Epochs:
    """The examples of a training, however many shards they lie in. With one shard it is read and cut once."""

    def __init__(self, shards: Shards, counts: Counts, cut: Cutter, *, batch_size: int, limit: int) -> None:
        """`limit` bounds the examples of an epoch, taken of each shard in proportion; 0: all there are.

        `examples` and `per_epoch` are those of the whole team, batches those of this process's shards.

        Requires: there is an example.
        """
        self._shards, self._cut, self._in_shard = shards, cut, counts.examples
        self.examples = counts.all_examples
        self.per_epoch = min(limit, self.examples) if limit else self.examples
        self.batch_size = batch_size
        self._only: Windows | None = None

    def plan(self, rng: np.random.Generator) -> list[Visit]:
        """The shards of one epoch in their order; a shard is never visited for nothing."""
        order = rng.permutation(len(self._in_shard))
        until = np.rint(np.cumsum(self._in_shard[order]) * (self.per_epoch / self.examples)).astype(np.int64)
        parts = np.diff(until, prepend=0)
        return [
            Visit(int(shard), int(part), -(-int(part) // self.batch_size))
            for shard, part in zip(order, parts, strict=True)
            if part
        ]

    def batches(self, plan: list[Visit], rng: np.random.Generator) -> Generator[Batch, None, None]:
        """The batches of a plan, cut in a thread while the one before is in use; all randomness is from `rng`."""
        return ahead(self._batches(plan, rng), BATCHES_AHEAD)

    def _batches(self, plan: list[Visit], rng: np.random.Generator) -> Iterator[Batch]:
        for visit, windows in zip(plan, ahead(self._windows(visit.shard) for visit in plan), strict=True):
            yield from windows.batches(rng, batch_size=self.batch_size, limit=visit.examples)
            del windows

    def _windows(self, shard: int) -> Windows:
        if self._only is not None:
            return self._only
        windows = self._cut(self._shards.known(self._shards.read(shard)))
        if len(self._shards) == 1:
            self._only = windows
        return windows
