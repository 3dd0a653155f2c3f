"""Two hosts with versions and a history that they share."""

from __future__ import annotations

from pathlib import Path

from prediction_store import history, layout
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.outgoing import send
from prediction_store.transfer.pull import pull
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory
from schemas.history import HistoryRecord

WHO = "ann@host"


class Pair:
    """A host that has made two versions, `a` current by record 1 and `b` not; another host; what they share."""

    def __init__(self, root: Path, there: Path, folder: Remote, versions: tuple[str, str]) -> None:
        self.root, self.there, self.folder = root, there, folder
        self.a, self.b = versions

    def share(self, *names: str) -> None:
        """Push versions, by default both, and begin the shared history."""
        list(send(self.root, self.folder, names or (self.a, self.b), flow=Flow(), parallel=4))

    def copy(self, *names: str) -> None:
        """Have versions, by default both, on the other host."""
        for name in names or (self.a, self.b):
            pull(self.there, self.folder, name, flow=Flow())

    @property
    def shared(self) -> RemoteHistory:
        """The shared history, as a process sees it that has just begun."""
        return RemoteHistory(self.folder)

    def cut_over(self, root: Path, name: str) -> HistoryRecord:
        return history.cutover(root, name, WHO, "", 5, shared=self.shared)

    def inside(self, number: int) -> Path:
        """The file behind a shared record."""
        return Path(self.folder.url.removeprefix("file://")) / layout.remote_history(number)


def records_of(root: Path) -> dict[int, bytes]:
    return {number: layout.history_path(root, number).read_bytes() for number in layout.history_numbers(root)}
