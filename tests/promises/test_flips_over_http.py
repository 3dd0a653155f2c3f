"""Promise 3: no answer mixes versions and no request fails through cutover and rollback."""

from __future__ import annotations

from pathlib import Path

from promises import flips_over_http
from promises.http_load import wrong_with


def test_requests_through_flips_and_rollbacks_all_succeed_and_none_is_mixed(folder: Path) -> None:
    outcome = flips_over_http.run(5, 12, folder, workers=2)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.counts["flips"] >= 12
    assert outcome.tried == outcome.counts["requests"] >= 1_200


def test_a_mixed_answer_would_be_noticed() -> None:
    kind_of = {"one": "a", "other": "b"}
    right = b'{"items":[{"item":"a01"},{"item":"a02"}],"version":"one"}'
    assert wrong_with((b"200", right), kind_of) is None
    for status, body in [
        (b"200", right.replace(b"a02", b"b02")),
        (b"200", right.replace(b"one", b"other")),
        (b"200", right.replace(b"one", b"unheard of")),
        (b"200", b'{"items":[],"version":"one"}'),
        (b"503", right),
        (b"500", b"Internal Server Error"),
    ]:
        assert wrong_with((status, body), kind_of) is not None
