"""What a host says of itself: the document hosts/HOST.json in object storage, which only that host writes."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, field

from schemas import documents
from schemas.documents import Count, Digest, VersionName

HOST_FORMAT: Final = 1

IDLE: Final = "idle"
"""No version is current among the hosts."""
PULLING: Final = "pulling"
WAITING: Final = "waiting"
"""Ready, while another host is not; the limit is not over."""
SERVING: Final = "serving"
"""What the newest record names is what this host's servers are told to serve."""
FAILED: Final = "failed"
"""It could not get ready; what it served before, it still serves. `problem` says why."""
DIVERGED: Final = "diverged"
"""Its history is not the one that the hosts share, so it follows no more."""
STOPPED: Final = "stopped"
"""`follow` has ended; what was served is still served."""

HOST_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"
HOST_EXAMPLE: Final = "host-1.example.org"
HostName = Annotated[str, Meta(pattern=HOST_PATTERN, examples=[HOST_EXAMPLE])]


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one host has reached."""

    format: int = HOST_FORMAT
    host: HostName
    at: Count
    """When it said so, by its own clock."""
    state: str
    """One of the words above; another one, of a later Shortlist, is only shown."""
    problem: str = ""
    """Why it failed or diverged, whom it waits for, what it pulls, or why there is no way back yet."""
    number: Count = 0
    """The newest history record that it has taken: what its servers follow. 0: none."""
    version: str = ""
    """The version that this record names."""
    wanted: Count = 0
    """The newest history record that it knows of."""
    ready: dict[VersionName, Digest] = field(default_factory=dict)
    """Versions that are here and verified, with the SHA-256 of their manifests."""
    shards: str = ""
    """The shards of users that it holds, like 0-15/64; "": all of them."""


def encode_host_status(status: HostStatus) -> bytes:
    """The bytes of hosts/HOST.json."""
    return documents.encode(status)


def decode_host_status(data: bytes) -> HostStatus:
    """The status in the bytes of hosts/HOST.json.

    Raises:
        NewerFormatError: its format is higher than known here.
        FormatError: it is no host's status.
    """
    return documents.decode(data, HostStatus, "host status", HOST_FORMAT)
