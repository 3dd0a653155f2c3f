"""From bytes to a request: what is accepted, and what each refusal names."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed_bodies import MALFORMED

from reranker.errors import InvalidFieldError, MalformedBodyError, RequestError
from reranker.requests import MOST_SEARCHED_BYTES, check_limits, convert_request, decode_request
from schemas.messages import Context, SessionEvent
from schemas.serving_config import Serve

SERVE = Serve()


def read(body: bytes) -> None:
    check_limits(decode_request(body), SERVE)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_body_is_refused_and_the_field_is_named(kind: str) -> None:
    body, status, field = MALFORMED[kind]
    with pytest.raises(MalformedBodyError if status == 400 else InvalidFieldError) as caught:
        read(body)
    assert caught.value.field == field
    if field is not None:
        assert f"`{field}`" in caught.value.message


def test_a_full_request_is_read_as_it_was_meant() -> None:
    request = decode_request(
        b'{"user": "u1", "k": 5, "session": [{"item": "i1"}, {"item": "i2", "event": "cart", "time": 12.5}],'
        b' "context": {"device": "phone", "time": 99, "segment": "DE"}, "exclude": ["i3"], "explain": true}'
    )
    assert (request.user, request.k, request.exclude, request.explain) == ("u1", 5, ["i3"], True)
    assert request.session == [SessionEvent(item="i1"), SessionEvent(item="i2", event="cart", time=12.5)]
    assert request.context == Context(device="phone", time=99.0, segment="DE")


def test_the_longest_id_is_511_bytes_whatever_its_characters() -> None:
    read(json.dumps({"user": "u" * 511, "exclude": ["ü" * 255 + "x"]}).encode())


def test_as_much_may_be_asked_for_as_the_limits_say() -> None:
    for k in (1, SERVE.max_k):
        read(json.dumps({"user": "u1", "k": k}).encode())
    session = [{"item": "i1"}] * SERVE.max_session_events
    read(json.dumps({"user": "u1", "session": session, "exclude": ["i1"] * SERVE.max_exclusions}).encode())


def test_a_long_body_that_is_no_json_gets_no_time_to_find_the_field() -> None:
    """Some 20 ms for each 64 KB, of the one thread that answers all others, would be an invitation."""
    for length, field in ((9_000, "exclude[1000]"), (MOST_SEARCHED_BYTES, None)):
        body = b'{"user": "u1", "exclude": [' + b'"i01",' * 1_000 + b"NaN]" + b" " * (length - 6_000) + b"}"
        with pytest.raises(MalformedBodyError, match="is not valid JSON") as caught:
            read(body)
        assert caught.value.field == field


def test_a_string_that_looks_like_a_key_is_no_second_key() -> None:
    request = decode_request(b'{"user": ":u", "exclude": ["\\"user\\":", ":", "user\\": "]}')
    assert request.exclude == ['"user":', ":", 'user": ']


text = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from([":", '":', '\\":', "user", '"user":'])


@given(
    values=st.lists(text.filter(len), max_size=5),
    events=st.lists(st.tuples(text.filter(len), text.filter(len)), max_size=4),
    is_repeated=st.booleans(),
)
def test_a_repeated_key_is_found_whatever_the_strings_hold(
    values: list[str], events: list[tuple[str, str]], is_repeated: bool
) -> None:
    session = [{"item": item, "event": event} for item, event in events]
    body = json.dumps({"user": "u", "exclude": values, "session": session}, separators=(",", " \t:\n"))
    if is_repeated:
        with pytest.raises(InvalidFieldError, match="`exclude` is given twice"):
            decode_request(('{"exclude":[],' + body[1:]).encode())
    else:
        decode_request(body.encode())


@given(st.binary(max_size=200))
def test_no_bytes_are_anything_but_a_request_or_a_refusal(body: bytes) -> None:
    with contextlib.suppress(RequestError):
        read(body)


def test_plain_values_are_checked_like_a_body() -> None:
    with pytest.raises(InvalidFieldError, match="`k`"):
        convert_request({"user": "u1", "k": 0})
