"""What the gates look at: the version, the current one, and some users' lists. Read once, when a gate first asks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from prediction_store import contents, layout
from prediction_store.comparison import Comparison
from prediction_store.errors import DamagedVersionError
from prediction_store.sample import Sampled, read_lists, sample_users
from prediction_store.version import Version
from schemas.gate_config import Gates


class Side:
    """A version that is open, with its evaluation."""

    def __init__(self, root: Path, version: Version) -> None:
        """Requires: the version's bytes are verified.

        Raises:
            DamagedVersionError: it has no evaluation report, or one that is no JSON.
        """
        self.version = version
        self.counts = version.manifest.counts
        if layout.REPORT not in version.manifest.files:
            raise DamagedVersionError(f"version {version.name} has no {layout.REPORT}")
        try:
            data = contents.read_document(layout.version_path(root, version.name) / layout.REPORT)
            self._evaluation = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DamagedVersionError(f"version {version.name}: {layout.REPORT}: {error}") from error

    def measured(self, *keys: str) -> float | None:
        """A number of the evaluation, by its place; None: it is not there, or not a number."""
        value: Any = self._evaluation
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number else None


class Judged:
    """What the gates look at; what several of them share is read once."""

    def __init__(
        self, side: Side, current: Side | None, alone: str, settings: Gates, *, candidates: int,
        known_signals: Collection[str], timer: Callable[[], float],
    ) -> None:  # fmt: skip
        self.side = side
        self.version = side.version
        self.counts = side.counts
        self.current = current
        self.alone = alone
        """Why there is no version to compare with."""
        self.settings = settings
        self.full_list = min(candidates, side.counts.items)
        """Items in a list that lacks nothing."""
        self.known_signals = known_signals
        self.timer = timer

    @cached_property
    def sample(self) -> list[Sampled]:
        """Some users' lists."""
        return read_lists(self.version, sample_users(self.version, self.settings.sample_users))

    @cached_property
    def comparison(self) -> Comparison | None:
        """The sampled users' lists beside those of the current version; None: there is no such version."""
        if self.current is None:
            return None
        users = [sampled.user for sampled in self.sample]
        return Comparison(self.current.version, self.version, users, self.settings.depth)

    @cached_property
    def shown(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """(items uint32[n], counts int64[n]): what is in the first places of sampled lists, and in how many."""
        first = [sampled.candidates.items[: self.settings.depth] for sampled in self.sample]
        items, counts = np.unique(np.concatenate([*first, np.empty(0, np.uint32)]), return_counts=True)
        return items, counts

    def before(self, *keys: str) -> float | None:
        """A number of the current version's evaluation; None: not there, or no such version."""
        return self.current.measured(*keys) if self.current else None

    @property
    def alone_or_unmeasured(self) -> str:
        """Why a number of the current version's evaluation is not there."""
        return self.alone or "the current version's evaluation does not have it"
