"""JSON documents with a format number: how every one of them is written and read.

Fields that this Shortlist does not know are ignored, and so are unknown words in fields such as `action`: a later
Shortlist may write them and an older one keeps serving. What may not be ignored raises the format number, and a higher
number than the one known here is refused.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from schemas.errors import FormatError, NewerFormatError

VERSION_NAME: Final = r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}\Z"
"""UTC build time and the head of the inputs' digest. `\\Z`: `$` would let a line feed follow."""

Count = Annotated[int, Meta(ge=0)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
VersionName = Annotated[str, Meta(pattern=VERSION_NAME)]
Document = TypeVar("Document", bound=msgspec.Struct)


class _FormatOnly(msgspec.Struct, frozen=True):
    format: int


def encode(document: msgspec.Struct) -> bytes:
    """The document as JSON for people and programs; equal documents give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"


def decode(data: bytes, kind: type[Document], what: str, newest: int) -> Document:
    """The document in some bytes. The format number is looked at first: a newer document need not fit the struct.

    Raises:
        NewerFormatError: its format is higher than `newest`.
        FormatError: it is no document of that kind.
    """
    try:
        number = msgspec.json.decode(data, type=_FormatOnly).format
        if number > newest:
            raise NewerFormatError(
                f"{what} has format {number}; this Shortlist reads up to {newest}", hint="upgrade this host"
            )
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"{what}: {error}") from error
