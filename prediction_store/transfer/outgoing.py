"""What a host sends: the versions that are asked for, and the history, where the hosts have none yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prediction_store import history
from prediction_store.errors import NoCurrentVersionError
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.push import PushReport, push
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory


def send(
    root: Path, remote: Remote, names: Sequence[str], *, flow: Flow, parallel: int, verify_again: bool = False
) -> Iterator[PushReport]:
    """Push versions, then begin the shared history with this host's, if there is none; one report per version.

    Args:
        names: none: the current version and the one that rollback would go to.

    Raises what `push` raises, and NoCurrentVersionError when nothing is named and nothing is current.
    """
    shared = RemoteHistory(remote)
    wanted = list(names)
    newest = history.current_or_none(root)
    if newest is None and not wanted:
        raise NoCurrentVersionError("no version is current, so one has to be named", hint="shortlist push VERSION")
    if newest is not None and (not wanted or shared.newest_number() == 0):
        wanted += [newest.version, *filter(None, [history.rollback_target(root)])]
    for name in dict.fromkeys(wanted):
        yield push(root, remote, name, flow=flow, parallel=parallel, verify_again=verify_again)
    shared.begin(root)
