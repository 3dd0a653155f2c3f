"""What a store must be, kept in a dictionary and a few lists: slow, obvious, and nothing of the store's own."""

from __future__ import annotations

from prediction_store.errors import (
    DamagedVersionError,
    MissingVersionError,
    NoCurrentVersionError,
    NothingToRollBackToError,
    PinnedError,
    QuarantinedError,
    ServedVersionError,
)
from prediction_store.layout import built_at, version_name
from promises.tiny_store import digest_of


class Ledger:
    """The versions on disk, what is served, and what is forbidden. Each command raises what the store must raise."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        """What is on disk: the inputs of each version."""
        self.damaged: set[str] = set()
        self.served: list[str] = []
        """What was served, oldest first; the last one is current. A rollback takes from the end."""
        self.pinned = False
        self.quarantined: dict[str, str] = {}
        """The inputs that each forbidden version forbids along with itself; "": none."""

    @property
    def current(self) -> str | None:
        return self.served[-1] if self.served else None

    @property
    def way_back(self) -> list[str]:
        """Where a rollback may go, nearest first."""
        before = list(dict.fromkeys(reversed(self.served[:-1])))
        return [name for name in before if name != self.current and name in self.versions and self._is_free(name)]

    def name_of(self, inputs: str, now: int) -> str:
        """The version that a build of these inputs ends with: the one that is there, or a new one."""
        there = [name for name, its in self.versions.items() if its == inputs]
        if there:
            return max(there)
        while version_name(now, digest_of(inputs)) in self.versions:
            now += 1
        return version_name(now, digest_of(inputs))

    def build(self, inputs: str, now: int) -> str:
        name = self.name_of(inputs, now)
        self.versions[name] = inputs
        return name

    def judge(self, name: str) -> None:
        """The gates look at the lists, so that they have to be those that were sealed."""
        if name in self.damaged:
            raise DamagedVersionError("damaged")

    def cut_over(self, name: str) -> None:
        self._require(name)
        if name == self.current:
            return
        if self.pinned:
            raise PinnedError("pinned")
        self._require_servable(name)
        self.served = [*(other for other in self.served if other != name), name]

    def roll_back(self) -> None:
        if self.current is None:
            raise NoCurrentVersionError("nothing was ever current")
        if not self.way_back:
            raise NothingToRollBackToError("nowhere to go")
        target, left = self.way_back[0], self.current
        self._require_servable(target)
        inputs = self.versions.get(left, "")
        self.quarantined[left] = "" if inputs == self.versions[target] else inputs
        self.served = self.served[: self.served.index(target) + 1]

    def pin(self, *, is_pinned: bool) -> None:
        if self.current is None:
            raise NoCurrentVersionError("nothing to hold")
        self.pinned = is_pinned

    def quarantine(self, name: str) -> None:
        self._require(name)
        if self.current is None:
            raise NoCurrentVersionError("nothing to hold")
        if name == self.current:
            raise ServedVersionError("current")
        self.quarantined.setdefault(name, self.versions[name])

    def release(self, name: str) -> None:
        if self.current is None:
            raise NoCurrentVersionError("nothing to hold")
        self.quarantined.pop(name, None)

    def retire(self, keep: int, grace_seconds: int, now: float, in_use: set[str]) -> set[str]:
        """What goes; every version has passed its gates, so that the newest by name are the newest."""
        kept = {name for name in [self.current, *self.way_back[:1]] if name in self.versions}
        for name in sorted(self.versions, reverse=True):
            if len(kept) < keep or now - built_at(name) < grace_seconds:
                kept.add(name)
        gone = self.versions.keys() - kept - in_use
        for name in gone:
            del self.versions[name]
        self.damaged -= gone
        return set(gone)

    def _require(self, name: str) -> None:
        if name not in self.versions:
            raise MissingVersionError("not there")

    def _is_free(self, name: str) -> bool:
        return name not in self.quarantined and self.versions[name] not in self.quarantined.values()

    def _require_servable(self, name: str) -> None:
        if not self._is_free(name):
            raise QuarantinedError("quarantined")
        if name in self.damaged:
            raise DamagedVersionError("damaged")
