"""From the bytes of a body to a valid request, or an error that names the field."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import msgspec

from reranker.deadline import HEADER, MAX_DEADLINE_MS
from reranker.errors import InvalidFieldError, MalformedBodyError
from reranker.faults import Fault, fault_in, fault_of
from schemas.messages import MAX_ID_BYTES, RecommendManyRequest, RecommendRequest
from schemas.serving_config import Serve

T = TypeVar("T")
SHORT = MAX_ID_BYTES // 4
"""An id of at most so many characters fits whatever they are: four bytes each at most."""
MAX_FIELD = 200
"""Characters of a field's name in an error."""
MOST_SEARCHED_BYTES = 16_384
"""Of a body that is no JSON: finding the field takes up to some milliseconds, which a longer one does not get."""
BYTES_PER_REQUEST = 4096
"""Of a batch."""
_DECODER = msgspec.json.Decoder(RecommendRequest)
_DECODER_OF_MANY = msgspec.json.Decoder(RecommendManyRequest)
_UNTYPED = msgspec.json.Decoder()
_KEY = re.compile(rb'"[ \t\r\n]*:')
_PATH = re.compile(r"(?P<message>.*?) - at `(?P<path>[^`]*)`", re.DOTALL)
_MISSING_OR_UNKNOWN = re.compile(r"(?:missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)


def decode_request(body: bytes) -> RecommendRequest:
    """The request in a body; raises MalformedBodyError or InvalidFieldError.

    The limits of this server are a second step: `check_limits`.
    """
    return decode_body(body, _DECODER)


def max_batch_bytes(serve: Serve) -> int:
    """How long the body of a batch may be."""
    return max(serve.max_body_bytes, serve.max_batch * BYTES_PER_REQUEST)


def decode_many(body: bytes, serve: Serve) -> list[RecommendRequest]:
    """The requests in the body of a batch; raises MalformedBodyError or InvalidFieldError, also beyond the limits."""
    requests = decode_body(body, _DECODER_OF_MANY).requests
    check_limits_of_many(requests, serve)
    return requests


def decode_query(query: Sequence[tuple[str, str]], known: Collection[str]) -> dict[str, str]:
    """The fields of a query, each once; raises InvalidFieldError for one that is not known, or there twice."""
    fields: dict[str, str] = {}
    for name, value in query:
        if name not in known:
            raise InvalidFieldError(
                f"`{name[:100]}` is no field of this query; wanted {', '.join(known)}", field=name[:100]
            )
        if name in fields:
            raise InvalidFieldError(f"`{name}` is given twice", field=name)
        fields[name] = value
    return fields


def decode_deadline(text: str | None) -> int | None:
    """The milliseconds in the header `X-Deadline-Ms`; None: it is not there. Raises InvalidFieldError."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and 1 <= int(text) <= MAX_DEADLINE_MS):
        raise InvalidFieldError(f"`{HEADER}` is {text[:20]!r}, wanted 1 to {MAX_DEADLINE_MS}", field=HEADER)
    return int(text)


def decode_body(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The message in a body, of the decoder's type; raises MalformedBodyError or InvalidFieldError."""
    try:
        message = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(fault_in(body) if len(body) <= MOST_SEARCHED_BYTES else None, str(error)) from error
    _refuse_duplicate_keys(body)
    return message


def convert_request(fields: dict[str, Any]) -> RecommendRequest:
    """The request that plain Python values make; raises InvalidFieldError."""
    try:
        return msgspec.convert(fields, RecommendRequest)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error


def checked(message: T) -> T:
    """A message that was made in this process, as it comes out of a decoder: within the bounds of its fields.

    Costs some microseconds; raises MalformedBodyError or InvalidFieldError, as for a body.
    """
    try:
        # Not by JSON, which has no word for what is not a number: it would come out as absent.
        return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except UnicodeEncodeError as error:
        raise _malformed(fault_of(msgspec.to_builtins(message, enc_hook=repr)), str(error)) from error
    except (TypeError, OverflowError) as error:  # what no message can hold, by whatever name
        raise _invalid(str(error)) from error


def check_limits(request: RecommendRequest, serve: Serve) -> None:
    """Raise InvalidFieldError when a request goes beyond what this server allows."""
    if request.k is not None and not 1 <= request.k <= serve.max_k:
        raise InvalidFieldError(f"`k` is {request.k}, wanted 1 to {serve.max_k}", field="k")
    at_most("session", len(request.session), serve.max_session_events)
    at_most("exclude", len(request.exclude), serve.max_exclusions)
    check_id("user", request.user)
    # The name of a field is made when it is needed: never, as a rule.
    for place, event in enumerate(request.session):
        if len(event.item) > SHORT:
            check_id(f"session[{place}].item", event.item)
    for place, item in enumerate(request.exclude):
        if len(item) > SHORT:
            check_id(f"exclude[{place}]", item)


def check_limits_of_many(requests: Sequence[RecommendRequest], serve: Serve) -> None:
    """Raise InvalidFieldError when a batch goes beyond what this server allows, or a request of it does."""
    at_most("requests", len(requests), serve.max_batch)
    for place, request in enumerate(requests):
        try:
            check_limits(request, serve)
        except InvalidFieldError as error:
            raise InvalidFieldError(
                f"request {place} of the batch: {error.message}", field=f"requests[{place}].{error.field}"
            ) from None


def check_id(field: str, value: str) -> None:
    """Raise InvalidFieldError when an id is longer than a key of the store may be."""
    if len(value) > SHORT and len(value.encode()) > MAX_ID_BYTES:
        raise InvalidFieldError(f"`{field}` is longer than {MAX_ID_BYTES} bytes in UTF-8", field=field)


def at_most(field: str, found: int, wanted: int) -> None:
    """Raise InvalidFieldError when a list has too many entries."""
    if found > wanted:
        raise InvalidFieldError(f"`{field}` has {found} entries, wanted at most {wanted}", field=field)


def _malformed(fault: Fault | None, text: str) -> MalformedBodyError:
    """With the field that a fault is in; without one, in the words of the parser."""
    if fault is None:
        return MalformedBodyError(f"the body is not valid JSON in UTF-8: {text}")
    field = fault.field[:MAX_FIELD]
    where = f"`{field}`" if field else "the body"
    return MalformedBodyError(f"the body is not valid JSON in UTF-8: {where} {fault.problem}", field=field or None)


def _invalid(text: str) -> InvalidFieldError:
    """msgspec's message, with the field it is about in front."""
    match = _PATH.fullmatch(text)
    message, path = (match["message"], match["path"]) if match else (text, "$")
    field = path.removeprefix("$").removeprefix(".")
    name = _MISSING_OR_UNKNOWN.search(message)
    if name:
        field = f"{field}.{name['name']}" if field else name["name"]
    field = field[:MAX_FIELD]
    # A field may have the empty name.
    is_named = bool(field or name)
    where = f"`{field}`" if is_named else "the body"
    return InvalidFieldError(f"{where}: {message[:500]}", field=field if is_named else None)


def _refuse_duplicate_keys(body: bytes) -> None:
    """msgspec keeps the last of two equal keys; a client that sends both means something we cannot know.

    Counting is cheap: every key ends in a quote and a colon. A string that begins with a colon is counted too, so a
    surplus is only a suspicion, and the exact, slower parser decides.
    Requires: the body has been decoded, so that it is valid JSON of known depth.
    """
    if len(_KEY.findall(body)) != _keys(_UNTYPED.decode(body)) and (fault := fault_in(body)) is not None:
        raise InvalidFieldError(f"`{fault.field[:MAX_FIELD]}` {fault.problem}", field=fault.field[:MAX_FIELD])


def _keys(value: Any) -> int:
    # Loops, and no sums of generators: they take half the time, and every request waits for this.
    if type(value) is dict:
        found = len(value)
        for entry in value.values():
            if type(entry) is dict or type(entry) is list:
                found += _keys(entry)
        return found
    found = 0
    for entry in value if type(value) is list else ():
        if type(entry) is dict:
            found += _keys(entry)
    return found
