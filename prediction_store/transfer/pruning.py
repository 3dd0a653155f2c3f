"""Retention in object storage: which versions may go there, and their going. Each host keeps copies of its own."""

from __future__ import annotations

from prediction_store import layout
from prediction_store.errors import NewerFormatError
from prediction_store.retention import last_of_days
from prediction_store.succession import way_back
from prediction_store.transfer.copies import names_there, sizes_of
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory

ABANDONED_SECONDS = 86_400.0
"""What a push has left and nobody has gone on with for so long is not gone on with any more."""


def prune(remote: Remote, *, keep: int, grace_seconds: float, now: float) -> list[str]:
    """Remove the versions that nothing needs any more, and what abandoned pushes have left; their names.

    Kept are the current version, the one that rollback would go to, as many of the newest as make `keep` in all, first
    the last of each day, and what was built less than `grace_seconds` ago. Without a shared history nothing goes: what
    is needed is not known.

    Raises:
        DamagedHistoryError: the newest record cannot be read; nothing was removed.
        RemoteError: object storage does not answer.
    """
    shared = RemoteHistory(remote)
    there = names_there(remote)
    complete = [name for name, is_complete in there.items() if is_complete]
    needed = _protected(shared, complete)
    if not needed:
        return []
    by_day = last_of_days(complete, [*needed], lambda name: _made_at(shared, name))
    for name in [*by_day, *complete] if len(complete) > keep else complete:
        if len(needed) < keep:
            needed.add(name)
    removed = []
    for name, is_complete in there.items():
        if name in needed or now - layout.built_at(name) < grace_seconds:
            continue
        if is_complete:
            is_gone = _remove(shared, name, complete)
        else:
            is_gone = now - remote.changed_at(layout.remote_file(name, "")) >= ABANDONED_SECONDS
            if is_gone:
                _remove_files(remote, name)
        if is_gone:
            removed.append(name)
    return removed


def _protected(shared: RemoteHistory, complete: list[str]) -> set[str]:
    """The current version and the rollback target; none: the hosts have no history."""
    newest = shared.newest()
    return set() if newest is None else {newest.version, *way_back(newest, complete)[:1]}


def _made_at(shared: RemoteHistory, name: str) -> int | None:
    try:
        return shared.made_at(name)
    except NewerFormatError:
        return None


def _remove(shared: RemoteHistory, name: str, complete: list[str]) -> bool:
    """Remove a version, the manifest first; False: it was made current in the meantime, and stays."""
    key = layout.remote_file(name, layout.MANIFEST)
    manifest = shared.remote.read(key)
    shared.remote.delete([key])
    # From here on no decision can name it; one that did so a moment ago is seen now.
    if name in _protected(shared, complete):
        if manifest is not None:
            shared.remote.put(key, manifest)
            shared.remote.settle([key])
        return False
    _remove_files(shared.remote, name)
    return True


def _remove_files(remote: Remote, name: str) -> None:
    remote.delete([*(layout.remote_file(name, file) for file in sizes_of(remote, name)), layout.remote_gate(name)])
