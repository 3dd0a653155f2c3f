"""Object storage as the configuration names it. Imports nothing of it before it is named: a host may be alone."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from schemas.errors import ConfigError, ShortlistError
from schemas.hosts import HOST_PATTERN

if TYPE_CHECKING:
    from prediction_store.retention import RetireReport
    from prediction_store.transfer.flow import Flow, Meter
    from prediction_store.transfer.remote import Remote
    from prediction_store.transfer.shared import RemoteHistory
    from schemas.config import Config, Follow, Transfer

BYTES_PER_MB = 1_000_000


def remote_of(config: Config, *, make: bool = False) -> Remote:
    """The object storage that hosts share.

    Args:
        make: make the folder of a file:// URL, if it is not there.

    Raises:
        ConfigError: there is none.
    """
    from prediction_store.transfer.remote import Remote

    if not config.store.remote:
        raise ConfigError(
            "store.remote is not set: there is no object storage to talk to",
            hint="--set store.remote=s3://BUCKET/PREFIX, or file:///FOLDER",
        )
    return Remote(config.store.remote, make=make)


def shared_history(config: Config, *, make: bool = False) -> RemoteHistory | None:
    """The history that the hosts share; None: this host is alone."""
    if not config.store.remote:
        return None
    from prediction_store.transfer.shared import RemoteHistory

    waits = bool(config.follow.hosts) and name_of_host(config.follow) in config.follow.hosts
    return RemoteHistory(remote_of(config, make=make), waits=waits)


def prune_remote(config: Config, report: RetireReport, *, keep: int, now: float) -> RetireReport:
    """Retire in object storage as well, if there is any: the report with what went there, or why nothing did."""
    if not config.store.remote:
        return report
    from msgspec.structs import replace

    from prediction_store.transfer.pruning import prune

    grace_seconds = config.store.grace_hours * 3600
    try:
        pruned = prune(remote_of(config), keep=keep, grace_seconds=grace_seconds, now=now)
    except ShortlistError as error:  # what went here is to be told all the same
        return replace(report, failed=report.failed | {config.store.remote: error.message})
    return replace(report, pruned=pruned)


def flow_of(transfer: Transfer, meter: Meter | None = None) -> Flow:
    """A transfer as fast as the configuration allows."""
    from prediction_store.transfer.flow import Flow

    return Flow(transfer.max_mb_per_second * BYTES_PER_MB, meter=meter)


def name_of_host(settings: Follow) -> str:
    """What this host is called among the hosts. Raises ConfigError when the operating system's name cannot be that."""
    if settings.host:
        return settings.host
    name = socket.gethostname()
    if not re.match(HOST_PATTERN, name):
        raise ConfigError(f"this host is called {name!r}, which cannot be its name among the hosts: set follow.host")
    return name
