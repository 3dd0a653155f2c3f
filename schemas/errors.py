"""The root of every error that Shortlist raises on purpose.

ShortlistError                 exit 1   something failed; nothing half-done is visible
├── UsageError                 exit 2   the request itself is wrong: arguments or configuration
│   └── ConfigError                     a key of the configuration is unknown, mistyped or out of range
├── FormatError                exit 1   stored bytes are not what the format says
│   ├── DamagedRecordError              one user's record: the checksum or the layout is wrong
│   └── NewerFormatError                written by a later Shortlist than this one
├── RefusedError               exit 3   a check said no, on purpose: a gate, a pin, a version that moved on
└── UnknownOutcomeError        exit 4   the last durable step failed: it may or may not have happened
"""

from __future__ import annotations


class ShortlistError(Exception):
    """Raised when Shortlist cannot do what was asked; carries what failed and what to do next.

    `message` says what failed, which thing, found and wanted. `hint` is the next command to run.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(ShortlistError):
    """Raised when the arguments of a command cannot be meant."""

    exit_code = 2


class ConfigError(UsageError):
    """Raised when a configuration key is unknown, has the wrong type or is out of range."""


class FormatError(ShortlistError):
    """Raised when stored bytes are not what the format says they should be."""


class DamagedRecordError(FormatError):
    """Raised when a user's record is damaged, or is not the record of that user in that version."""


class NewerFormatError(FormatError):
    """Raised when a format number is higher than the ones that this Shortlist knows."""


class RefusedError(ShortlistError):
    """Raised when a check refuses on purpose and nothing was changed."""

    exit_code = 3


class UnknownOutcomeError(ShortlistError):
    """Raised when the final sync failed, so that the change may or may not be visible.

    The hint says which command to repeat: it finds the change made, or makes it.
    """

    exit_code = 4
