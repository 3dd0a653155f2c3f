"""The errors of the prediction store.

ShortlistError
├── StoreError                     exit 1   the store cannot do what was asked; nothing half-done is visible
│   ├── NoCurrentVersionError               no history record: nobody has made a version current
│   ├── MissingVersionError        exit 2   a version that is named is not there
│   ├── DamagedVersionError                 bytes of a version are not the ones that were sealed
│   ├── DamagedHistoryError                 a history record cannot be read
│   ├── DivergedHistoryError                this host's history is not the one that the hosts share
│   ├── ForeignVersionError                 built for another kind of machine or another embedding space
│   ├── NetworkFileSystemError     exit 2   the store lies on NFS or the like
│   ├── ClosedVersionError                  used after close, or in a process that was forked after opening
│   ├── BuildError                          what is being built cannot be stored: order, duplicates, sizes
│   │   └── ShardConflictError              two attempts at the same shard made different bytes
│   ├── DiskError                           writing or reading failed: no space, no permission, a bad disk
│   ├── LiveItemsError                      the live facts about items cannot be read or written
│   │   └── DamagedFactsError               one item's live facts
│   ├── ShardNotHeldError                   a user whose shard another host holds
│   ├── RemoteError                         object storage refuses, or cannot be reached
│   ├── TransferStoppedError                asked to end in the middle of a transfer
│   └── CheckFailedError                    the checker found something
├── FormatError                    exit 1   (schemas.errors)
│   ├── DamagedRecordError                  (schemas.errors) one user's record
│   └── NewerFormatError                    (schemas.errors) written by a later Shortlist
├── RefusedError                   exit 3   a check said no and nothing was changed
│   ├── GateRefusedError                    a gate did not pass
│   │   └── MissingGateReportError          the gates have not been run on exactly these bytes
│   ├── ConcurrentPublishError              someone else appended to the history first
│   ├── ConcurrentPullError                 another process on this host is pulling the same version
│   ├── PartialVersionError                 a version that is here in part cannot do what was asked
│   ├── PinnedError                         what is served is pinned: no cutover
│   ├── QuarantinedError                    the version, or one of the same inputs, must not be served
│   ├── ServedVersionError                  what is served cannot be quarantined
│   └── NothingToRollBackToError            no earlier version was served, or none is left on disk
└── UnknownOutcomeError            exit 4   (schemas.errors) the last sync failed
"""

from __future__ import annotations

from schemas.errors import (
    DamagedRecordError,
    FormatError,
    NewerFormatError,
    RefusedError,
    ShortlistError,
    UnknownOutcomeError,
)

__all__ = [
    "BuildError",
    "CheckFailedError",
    "ClosedVersionError",
    "ConcurrentPublishError",
    "ConcurrentPullError",
    "DamagedFactsError",
    "DamagedHistoryError",
    "DamagedRecordError",
    "DamagedVersionError",
    "DiskError",
    "DivergedHistoryError",
    "ForeignVersionError",
    "FormatError",
    "GateRefusedError",
    "LiveItemsError",
    "MissingGateReportError",
    "MissingVersionError",
    "NetworkFileSystemError",
    "NewerFormatError",
    "NoCurrentVersionError",
    "NothingToRollBackToError",
    "PartialVersionError",
    "PinnedError",
    "QuarantinedError",
    "RemoteError",
    "ServedVersionError",
    "ShardConflictError",
    "ShardNotHeldError",
    "StoreError",
    "TransferStoppedError",
    "UnknownOutcomeError",
]


class StoreError(ShortlistError):
    """Raised when the store cannot do what was asked."""


class NoCurrentVersionError(StoreError):
    """Raised when no history record says which version is current. It never means "the newest"."""


class MissingVersionError(StoreError):
    """Raised when a version is named that is not in the store, or is going away."""

    exit_code = 2  # whoever named it, named the wrong one


class DamagedVersionError(StoreError):
    """Raised when the bytes of a version are not the ones that its manifest, or the history, says."""


class DamagedHistoryError(StoreError):
    """Raised when a history record that is needed cannot be read."""


class DivergedHistoryError(StoreError):
    """Raised when this host has another history record of the same number than the hosts share."""


class NetworkFileSystemError(StoreError):
    """Raised when the store lies on a network file system: neither LMDB nor the locks hold there."""

    exit_code = 2  # whoever chose the place, chose the wrong one


class ForeignVersionError(StoreError):
    """Raised when a version was built for another page size, byte order, LMDB format or embedding space."""


class ClosedVersionError(StoreError):
    """Raised when a version is used after it was closed, or in a child that was forked after it was opened."""


class BuildError(StoreError):
    """Raised when what is being built cannot be stored as it is."""


class ShardConflictError(BuildError):
    """Raised when two attempts at one shard differ: the step that made them is not deterministic."""


class DiskError(StoreError):
    """Raised when the file system refuses; the attempt is over, and what was visible before still is."""


class LiveItemsError(StoreError):
    """Raised when the live facts about items cannot be read or written; what is served goes on without the change."""


class DamagedFactsError(LiveItemsError):
    """Raised when the live facts of one item are not as they were written."""


class ShardNotHeldError(StoreError):
    """Raised when a user is asked for whose shard is on other hosts only."""


class RemoteError(StoreError):
    """Raised when object storage refuses what was asked of it, or cannot be reached."""


class TransferStoppedError(StoreError):
    """Raised when a transfer ends because it was asked to; the next one goes on from where it was."""


class CheckFailedError(StoreError):
    """Raised when the checker has found something wrong."""


class GateRefusedError(RefusedError):
    """Raised when a version has not passed its gates."""


class MissingGateReportError(GateRefusedError):
    """Raised when a version goes live and the gates were never run on exactly these bytes."""


class ConcurrentPublishError(RefusedError):
    """Raised when someone else has appended to the history since it was read."""


class ConcurrentPullError(RefusedError):
    """Raised when another process on this host is pulling the same version."""


class PartialVersionError(RefusedError):
    """Raised when a version would have to be here whole, or in other shards than it is."""


class PinnedError(RefusedError):
    """Raised when a cutover is asked for while what is served is pinned."""


class QuarantinedError(RefusedError):
    """Raised when a version shall be served that is quarantined, or has the same inputs as one that is."""


class ServedVersionError(RefusedError):
    """Raised when the version that is served shall be quarantined: only a rollback can do that."""


class NothingToRollBackToError(RefusedError):
    """Raised when there is no earlier version to go back to."""
