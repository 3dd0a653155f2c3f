"""Bodies that no server may answer with 200 or 5xx: one of each kind, with the status and the field they must name."""

from __future__ import annotations

import json


def body(**fields: object) -> bytes:
    return json.dumps({"user": "u1", **fields}).encode()


EVENT = {"item": "i1"}
DEEP = b"[" * 30_000 + b"]" * 30_000
DIGITS = b"9" * 5_000

MALFORMED: dict[str, tuple[bytes, int, str | None]] = {
    "nothing": (b"", 400, None),
    "white space": (b" \n", 400, None),
    "half an object": (b'{"user": "u1"', 400, None),
    "two objects": (b'{"user": "u1"} {}', 400, None),
    "a trailing comma": (b'{"user": "u1",}', 400, None),
    "single quotes": (b"{'user': 'u1'}", 400, None),
    "a comment": (b'{"user": "u1"} // me', 400, None),
    "a byte order mark": (b'\xef\xbb\xbf{"user": "u1"}', 400, None),
    "UTF-16": ('{"user": "u1"}'.encode("utf-16"), 400, None),
    "bytes that are not UTF-8": (b'{"user": "\xff\xfe"}', 400, "user"),
    "a surrogate in UTF-8": (b'{"user": "\xed\xa0\x80"}', 400, "user"),
    "a lone high surrogate": (b'{"user": "\\ud800"}', 400, "user"),
    "a lone low surrogate": (b'{"user": "\\udc00 and more text"}', 400, "user"),
    "a lone surrogate in an exclusion": (b'{"user": "u1", "exclude": ["i1", "\\udfff"]}', 400, "exclude[1]"),
    "a key that is no text": (b'{"user": "u1", "context": {"\\ud800": 1}}', 400, "context.\\ud800"),
    "a raw control character": (b'{"user": "u\x001"}', 400, None),
    "NaN": (b'{"user": "u1", "context": {"time": NaN}}', 400, "context.time"),
    "Infinity": (b'{"user": "u1", "context": {"time": Infinity}}', 400, "context.time"),
    "deep nesting": (DEEP, 422, None),
    "deep nesting in a field": (b'{"user": "u1", "session": ' + DEEP + b"}", 422, "session[0]"),
    "deep nesting in an unknown field": (b'{"user": "u1", "other": ' + DEEP + b"}", 422, "other"),
    "an array": (b"[]", 422, None),
    "a string": (b'"u1"', 422, None),
    "null": (b"null", 422, None),
    "an empty object": (b"{}", 422, "user"),
    "no user": (b'{"k": 5}', 422, "user"),
    "an empty user": (body(user=""), 422, "user"),
    "a user that is a number": (body(user=7), 422, "user"),
    "a user that is null": (body(user=None), 422, "user"),
    "a user of too many characters": (body(user="u" * 512), 422, "user"),
    "a user of too many bytes": (body(user="ü" * 300), 422, "user"),
    "an unknown field": (body(users="u1"), 422, "users"),
    "an unknown field without a name": (body(**{"": 1}), 422, ""),
    "an unknown field of an event": (body(session=[EVENT, {"item": "i1", "kind": "view"}]), 422, "session[1].kind"),
    "an unknown field of the context": (body(context={"phone": "x"}), 422, "context.phone"),
    "a field given twice": (b'{"user": "u1", "k": 3, "user": "u2"}', 422, "user"),
    "a field given twice, once escaped": (b'{"user": "u1", "us\\u0065r": "u2"}', 422, "user"),
    "a field of an event given twice": (
        b'{"user": "u1", "session": [{"item": "a", "item" : "b"}]}',
        422,
        "session[0].item",
    ),
    "k of zero": (body(k=0), 422, "k"),
    "k below zero": (body(k=-1), 422, "k"),
    "k beyond this server's limit": (body(k=201), 422, "k"),
    "k of a billion": (body(k=10**9), 422, "k"),
    "k of 5,000 digits": (b'{"user": "u1", "k": ' + DIGITS + b"}", 422, "k"),
    "k that is no whole number": (body(k=1.5), 422, "k"),
    "k that is text": (body(k="10"), 422, "k"),
    "k that is a truth": (body(k=True), 422, "k"),
    "a session that is an object": (body(session=EVENT), 422, "session"),
    "a session of strings": (body(session=["i1"]), 422, "session[0]"),
    "a session that is too long": (body(session=[EVENT] * 201), 422, "session"),
    "an event without an item": (body(session=[{"event": "view"}]), 422, "session[0].item"),
    "an event with an empty item": (body(session=[{"item": ""}]), 422, "session[0].item"),
    "an item of too many bytes": (body(session=[EVENT, {"item": "ü" * 300}]), 422, "session[1].item"),
    "an empty event type": (body(session=[{"item": "i1", "event": ""}]), 422, "session[0].event"),
    "an event type that is too long": (body(session=[{"item": "i1", "event": "v" * 65}]), 422, "session[0].event"),
    "a time that is text": (body(session=[{"item": "i1", "time": "now"}]), 422, "session[0].time"),
    "a time before 1970": (body(session=[{"item": "i1", "time": -1}]), 422, "session[0].time"),
    "a time in milliseconds": (body(session=[{"item": "i1", "time": 1_795_000_000_000}]), 422, "session[0].time"),
    "a time beyond all numbers": (b'{"user": "u1", "context": {"time": 1e400}}', 422, "context.time"),
    "a time of 5,000 digits": (b'{"user": "u1", "context": {"time": ' + DIGITS + b"}}", 422, "context.time"),
    "a context that is a list": (body(context=[]), 422, "context"),
    "a context that is null": (body(context=None), 422, "context"),
    "a device that is too long": (body(context={"device": "d" * 65}), 422, "context.device"),
    "a segment that is a number": (body(context={"segment": 1}), 422, "context.segment"),
    "exclusions that are one string": (body(exclude="i1"), 422, "exclude"),
    "an exclusion that is a number": (body(exclude=["i1", 2]), 422, "exclude[1]"),
    "an empty exclusion": (body(exclude=[""]), 422, "exclude[0]"),
    "too many exclusions": (body(exclude=["i1"] * 1_001), 422, "exclude"),
    "explain that is a number": (body(explain=1), 422, "explain"),
}
