"""What a training writes down for TensorBoard: event files with scalars over the number of examples seen.

`loss`, `learning_rate` and `examples_per_second` come about a hundred times an epoch, `recall` and `epoch_loss` once.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import TracebackType

import numpy as np

from jobs.checkpoint import Epoch

POINTS_PER_EPOCH = 100


class TrainingLog:
    """The event file of one training, closed when the block ends."""

    def __init__(self, folder: Path | None, *, per_epoch: int, epochs: int | None) -> None:
        """Append to the log of a training that goes on after so many `epochs`; None begins it anew.

        Args:
            folder: of the event files; None: nothing is written.
            per_epoch: examples of an epoch.
        """
        self._per_epoch = per_epoch
        self._losses: list[float] = []
        self._counts: list[int] = []
        self._writer = None
        if folder is None:
            return
        from tensorboardX import SummaryWriter

        if epochs is None:
            shutil.rmtree(folder, ignore_errors=True)
        # TensorBoard forgets what a killed training had written after its last checkpoint: it is written again.
        again = None if epochs is None else epochs * per_epoch + 1
        number = len(list(folder.iterdir())) if folder.is_dir() else 0  # the name tells seconds only
        self._writer = SummaryWriter(str(folder), purge_step=again, flush_secs=10, filename_suffix=f".{number:04d}")

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def begin(self, epoch: int) -> None:
        """The first step of an epoch comes now."""
        self._began = self._marked = time.monotonic()
        self._seen = 0
        self._first = (epoch - 1) * self._per_epoch

    def step(self, loss: float, examples: int, learning_rate: float) -> float:
        """Note a step of so many examples; examples per second of this epoch until now."""
        now = time.monotonic()
        self._losses.append(loss)
        self._counts.append(examples)
        self._seen += examples
        if (noted := sum(self._counts)) * POINTS_PER_EPOCH >= self._per_epoch:
            self._write("loss", float(np.average(self._losses, weights=self._counts)))
            self._write("learning_rate", learning_rate)
            self._write("examples_per_second", noted / max(now - self._marked, 1e-9))
            self._losses, self._counts, self._marked = [], [], now
        return self._seen / max(now - self._began, 1e-9)

    def end(self, epoch: Epoch) -> None:
        """Note what came of an epoch, of the state before the first one too."""
        self._first, self._seen = epoch.epoch * self._per_epoch, 0
        if epoch.loss is not None:
            self._write("epoch_loss", epoch.loss)
        if epoch.recall is not None:
            self._write("recall", epoch.recall)

    def _write(self, name: str, value: float) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, self._first + self._seen)
