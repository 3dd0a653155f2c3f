"""What can go wrong with one request, and the HTTP status of each: the only such table.

ShortlistError
├── RequestError                 4xx  the request cannot be answered as it is
│   ├── MalformedBodyError       400  the body is not JSON text
│   ├── NoTokenError             401  a token is wanted, and none that is known was given
│   ├── RoleError                403  the token's role may not do this
│   ├── UnknownItemError         404  nothing is known of the item that is asked for
│   ├── UnknownUserError         404  there is no list of the user who is asked for
│   ├── BodyTooSlowError         408  the body did not arrive in time
│   ├── BodyTooLargeError        413  the body is longer than allowed
│   ├── MediaTypeError           415  the body is not declared as plain JSON
│   └── InvalidFieldError        422  a field is missing, unknown, given twice, of the wrong type or out of bounds
├── ConditionError               (exit 2) the condition of a rule cannot be read, or does not fit the columns
├── TokensFileError              (exit 2) the tokens file cannot be read, or a line of it is no token
├── TracesError                  (exit 2) traces are configured, and what makes them is not installed
├── NotReadyError                503  no verified version is served
│   └── UnopenedVersionError          one is current, and cannot be opened
├── NotRecordedError             503  events could not be made durable, or not be brought to the session
├── OverloadedError              503  too many requests wait in the worker
├── SessionsError                     the session state cannot be read or written
├── ReplayDiffersError           (exit 1) an answer of the log comes out otherwise now
├── SkewError                    (exit 1) signals are not computed as they were served
├── NotInLogError                (exit 2) the log has no such answer
├── LogBusyError                 (exit 1) another process works on the log
├── VersionRetiredError          (exit 3) the version that gave an answer is gone
├── ShardNotHeldError            421  (prediction_store.errors) the user's list is on other hosts
├── DamagedRecordError           503  (schemas.errors) the user's list is not as it was written
├── LiveItemsError               503  (prediction_store.errors) live facts cannot be written, or one item's not be read
├── NewerFormatError             503  (schemas.errors) a later Shortlist has written the live facts
├── NoAnswerError                     a client got no answer, or none of ours
└── ServeError                   (exit 1) the server could not start
"""

from __future__ import annotations

from prediction_store.errors import LiveItemsError, ShardNotHeldError
from schemas.errors import DamagedRecordError, NewerFormatError, RefusedError, ShortlistError, UsageError


class RequestError(UsageError):
    """Raised when a request cannot be answered as it is; `field` names what is wrong, where one thing is."""

    def __init__(self, message: str, *, field: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class MalformedBodyError(RequestError):
    """Raised when a body is not JSON in UTF-8; `field` names the value that is not, where it is only one."""


class NoTokenError(RequestError):
    """Raised when a server wants a token, and none that it knows was given."""


class RoleError(RequestError):
    """Raised when a token's role is not enough for what is asked."""


class UnknownItemError(RequestError):
    """Raised when nothing is known of the item that is asked for."""


class UnknownUserError(RequestError):
    """Raised when the version has no list of a user."""


class BodyTooSlowError(RequestError):
    """Raised when a body has not arrived within `serve.body_seconds`."""


class BodyTooLargeError(RequestError):
    """Raised when a body is longer than its route allows, see `serve.max_body_bytes`."""


class MediaTypeError(RequestError):
    """Raised when a body is not declared as uncompressed application/json."""


class InvalidFieldError(RequestError):
    """Raised when a field is missing, unknown, given twice, of the wrong type or out of bounds."""


class ConditionError(UsageError):
    """Raised when the condition of a rule cannot be read, or compares a column with what it cannot be compared with."""

    def __init__(self, message: str, *, text: str, at: int = 0) -> None:
        """`at`: the character where it goes wrong, from 1; 0: it is not one place."""
        where = f", character {at}" if at else ""
        super().__init__(
            f"condition {text[:200]!r}{where}: {message}", hint='for example: category == "shoes" and price < 50'
        )


class TokensFileError(UsageError):
    """Raised when the file that `serve.tokens_file` names cannot be read, or a line of it is not a token."""


class TracesError(UsageError):
    """Raised when `serve.traces_endpoint` is set and the extra `traces` is not installed."""


class NotReadyError(ShortlistError):
    """Raised when no verified version is there to answer from."""


class UnopenedVersionError(NotReadyError):
    """Raised when a version is current and cannot be opened; its message may name files."""


class NotRecordedError(ShortlistError):
    """Raised when events are not certain to be on disk and in the session; sending them again is safe."""


class OverloadedError(ShortlistError):
    """Raised when so many requests wait in a worker that another one would wait longer than `serve.max_wait_ms`."""


class SessionsError(ShortlistError):
    """Raised when the session state cannot be read or written."""


class ReplayDiffersError(ShortlistError):
    """Raised when an answer of the log, made again from its version, is not the same bit for bit."""


class SkewError(ShortlistError):
    """Raised when signals of logged answers differ by more than allowed from the same ones made again."""


class NotInLogError(UsageError):
    """Raised when the log does not hold the answer that is asked for."""


class LogBusyError(ShortlistError):
    """Raised when another process works on the log, so that what is asked for has to be done again later."""


class VersionRetiredError(RefusedError):
    """Raised when an answer cannot be made again, because its version is not in the store any more."""


class ServeError(ShortlistError):
    """Raised when the server cannot start: the address is taken, or its workers fail at once."""


class NoAnswerError(ShortlistError):
    """Raised by the client when the server cannot be reached, or when an answer does not come from Shortlist."""


STATUS: tuple[tuple[type[ShortlistError], int, str], ...] = (
    (MalformedBodyError, 400, "malformed_body"),
    (NoTokenError, 401, "no_token"),
    (RoleError, 403, "role"),
    (UnknownItemError, 404, "unknown_item"),
    (UnknownUserError, 404, "unknown_user"),
    (BodyTooSlowError, 408, "body_too_slow"),
    (BodyTooLargeError, 413, "body_too_large"),
    (MediaTypeError, 415, "unsupported_media_type"),
    (ShardNotHeldError, 421, "other_host"),
    (InvalidFieldError, 422, "invalid_field"),
    (NotReadyError, 503, "not_ready"),
    (DamagedRecordError, 503, "damaged_record"),
    (NotRecordedError, 503, "not_recorded"),
    (OverloadedError, 503, "overloaded"),
    (LiveItemsError, 503, "live_items"),
    (NewerFormatError, 503, "newer_format"),
)


def status_of(error: Exception) -> tuple[int, str]:
    """HTTP status and short name of an error; 500 for what nobody foresaw."""
    for kind, status, name in STATUS:
        if isinstance(error, kind):
            return status, name
    return 500, "internal_error"
