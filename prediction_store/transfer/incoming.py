"""What a host fetches when asked to: versions by name, or what the hosts' history needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prediction_store.errors import NoCurrentVersionError
from prediction_store.succession import way_back
from prediction_store.transfer.copies import names_there
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.pull import PullReport, pull
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory
from schemas.held import parse_shards


def fetch(
    root: Path, remote: Remote, names: Sequence[str], *, flow: Flow, parallel: int, shards: str
) -> Iterator[PullReport]:
    """Pull versions; one report per version.

    Args:
        names: none: the version that the hosts have made current and the one that rollback would go to.
        shards: FIRST-LAST/ALL, or "" for all.

    Raises what `pull` raises, and NoCurrentVersionError when nothing is named and the hosts have no history.
    """
    wanted: dict[str, str | None] = dict.fromkeys(names)
    if not wanted:
        newest = RemoteHistory(remote).newest()
        if newest is None:
            raise NoCurrentVersionError(
                f"{remote.url} has no history yet", hint="shortlist push, on the host that built the versions"
            )
        there = [name for name, is_complete in names_there(remote).items() if is_complete]
        ways = way_back(newest, there)
        wanted = {newest.version: newest.manifest_sha256} | dict.fromkeys(ways[:1])
    for name, manifest_sha256 in wanted.items():
        yield pull(
            root, remote, name, flow=flow, parallel=parallel, manifest_sha256=manifest_sha256,
            shards=parse_shards(shards),
        )  # fmt: skip
