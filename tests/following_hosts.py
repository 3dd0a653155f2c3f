"""Several serving hosts in one process, and a clock that passes when it is told to."""

from __future__ import annotations

from pathlib import Path

from shop_store import MakeVersion

from prediction_store import history
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.follow import Agent, Clocks
from prediction_store.transfer.hosts import read_status
from prediction_store.transfer.outgoing import send
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory
from prediction_store.transfer.stop import Stop
from schemas.config import Follow, Store, Transfer
from schemas.errors import ShortlistError
from schemas.history import HistoryRecord
from schemas.hosts import HostStatus

WHO = "ann@batch"
LIMIT_SECONDS = 100.0


class Host:
    """One serving host: its store, its agent, what the agent has said."""

    def __init__(self, name: str, cluster: Cluster, **settings: object) -> None:
        self.name, self._cluster = name, cluster
        self.root = cluster.folder / name
        self.said: list[str] = []
        self._settings = {"hosts": cluster.names, "limit_seconds": LIMIT_SECONDS, **settings}
        self.start()

    def start(self) -> None:
        """Run the agent, as a process does that has just begun."""
        self.stopping = Stop()
        self.agent = Agent(
            self.root, RemoteHistory(self._cluster.remote), self.name,
            follow=Follow(host=self.name, **self._settings),  # type: ignore[arg-type]
            store=Store(keep_versions=2, grace_hours=0.0), transfer=Transfer(),
            say=self.said.append, stopping=self.stopping,
            clocks=Clocks(now=lambda: 2e9 + self._cluster.at, monotonic=lambda: self._cluster.at),
        )  # fmt: skip

    def look(self) -> ShortlistError | None:
        return self.agent.round()

    @property
    def serves(self) -> str | None:
        """The version that this host's servers are told to serve."""
        record = history.current_or_none(self.root)
        return record.version if record else None

    @property
    def status(self) -> HostStatus:
        found = read_status(self._cluster.remote, self.name)
        assert found is not None
        return found


class Cluster:
    """A batch host, which makes versions and decides, and the hosts that serve."""

    def __init__(self, batch: Path, folder: Path, remote: Remote, make_version: MakeVersion) -> None:
        self.batch, self.folder, self.remote, self._make_version = batch, folder, remote, make_version
        self.names: list[str] = []
        self.at = 0.0

    def hosts(self, *names: str, **settings: object) -> list[Host]:
        """Serving hosts that flip together."""
        self.names = list(names)
        return [Host(name, self, **settings) for name in names]

    @property
    def shared(self) -> RemoteHistory:
        return RemoteHistory(self.remote)

    def make(self, inputs: str, **settings: object) -> str:
        """A version in object storage."""
        name = self._make_version(inputs, **settings)
        list(send(self.batch, self.remote, [name], flow=Flow(), parallel=4))
        return name

    def cut_over(self, name: str) -> HistoryRecord:
        return history.cutover(self.batch, name, WHO, "a test", 5, force=True, shared=self.shared)

    def publish(self, inputs: str, **settings: object) -> str:
        name = self.make(inputs, **settings)
        self.cut_over(name)
        return name

    def roll_back(self) -> str:
        return history.rollback(self.batch, WHO, "bad", 6, shared=self.shared).version

    def object_path(self, key: str) -> Path:
        return Path(self.remote.url.removeprefix("file://")) / key
