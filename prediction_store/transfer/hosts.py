"""What the hosts say of themselves in object storage, and whether one of them still has to be waited for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prediction_store import layout
from prediction_store.errors import FormatError
from prediction_store.transfer.remote import Remote
from schemas.history import HistoryRecord
from schemas.hosts import HostStatus, decode_host_status, encode_host_status


def write_status(remote: Remote, status: HostStatus) -> None:
    """Say how far this host has come. Requires: no other host has its name."""
    remote.put(layout.remote_host(status.host), encode_host_status(status))


def read_status(remote: Remote, host: str) -> HostStatus | None:
    """What a host last said; None: nothing, or nothing that can be read."""
    data = remote.read(layout.remote_host(host))
    try:
        return None if data is None else decode_host_status(data)
    except FormatError:
        return None


def read_statuses(remote: Remote, hosts: Iterable[str] | None = None) -> dict[str, HostStatus]:
    """What some hosts last said, or all that ever said anything, by host in the order of their names."""
    if hosts is None:
        keys = remote.sizes(layout.REMOTE_HOSTS)
        hosts = (key.removeprefix(layout.REMOTE_HOSTS).removesuffix(".json") for key in keys)
    found = {host: read_status(remote, host) for host in sorted(hosts)}
    return {host: status for host, status in found.items() if status is not None}


def waited_for(record: HistoryRecord, host: str, hosts: Iterable[str], statuses: Mapping[str, HostStatus]) -> list[str]:
    """The hosts that have not got ready for a record; none when one of them serves it: then nobody waits any more.

    Args:
        host: the one that asks.
        hosts: those that flip together.
        statuses: what these last said.
    """
    others = [other for other in hosts if other != host]
    if any(_has_flipped(statuses.get(other), record) for other in others):
        return []
    return [other for other in others if not _is_ready(statuses.get(other), record)]


def _has_flipped(status: HostStatus | None, record: HistoryRecord) -> bool:
    # By the record that made the version current: a pin that follows on it is no second flip.
    return status is not None and status.version == record.version and status.number >= (record.since or record.number)


def _is_ready(status: HostStatus | None, record: HistoryRecord) -> bool:
    return status is not None and status.ready.get(record.version) == record.manifest_sha256
