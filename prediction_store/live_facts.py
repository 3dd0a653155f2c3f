"""The stored form of an item's live facts: a checksum, then msgpack. LMDB itself notices no flipped bit."""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

import msgspec

from prediction_store.errors import DamagedFactsError
from schemas.live_items import ItemFacts

_CRC: Final = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ItemFacts)


def encode_facts(key: bytes, facts: ItemFacts) -> bytes:
    """The value under an item's key: CRC-32 of key and msgpack, little-endian, and the msgpack."""
    packed = _encoder.encode(facts)
    return _CRC.pack(crc32(packed, crc32(key))) + packed


def decode_facts(key: bytes, value: bytes | memoryview) -> ItemFacts:
    """The facts in a value. Raises DamagedFactsError when it is not what was written under this key."""
    packed = value[_CRC.size :]
    if len(value) < _CRC.size or _CRC.unpack_from(value)[0] != crc32(packed, crc32(key)):
        raise damaged(key, "its checksum is wrong")
    try:
        return _decoder.decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise damaged(key, str(error)) from error


def damaged(key: bytes, why: str) -> DamagedFactsError:
    """The error that an item's stored facts are not as they were written."""
    item = key.decode("utf-8", "replace")
    message = f"the live facts of item {item[:64]!r} are damaged: {why}"
    return DamagedFactsError(message, hint="shortlist items clear ITEM")
