"""The HTTP surface: every way a request can be wrong, and what the other paths say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec
import pytest
import structlog
from asgi_client import JSON_HEADERS, STALL, AsgiClient
from malformed_bodies import MALFORMED
from serving_shop import MADE_AT, Shop

from prediction_store import layout
from reranker.app import create_app
from reranker.errors import STATUS, NotReadyError
from reranker.recommend import open_reranker
from schemas.messages import ErrorAnswer, RecommendAnswer, RecommendRequest, VersionAnswer

PATH = "/v1/recommend"


@pytest.fixture(scope="module")
def client(stocked_shop: Shop) -> Iterator[AsgiClient]:
    with AsgiClient(create_app(stocked_shop.config("serve.body_seconds=0.05"))) as client:
        yield client


def post(client: AsgiClient, *parts: bytes | None, **headers: str) -> tuple[int, ErrorAnswer]:
    given = {**JSON_HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    reply = client.request("POST", PATH, parts, given)
    assert reply.headers["content-type"] == "application/json"
    return reply.status, msgspec.json.decode(reply.body, type=ErrorAnswer)


def test_why_a_version_cannot_be_opened_is_told_to_the_log_and_to_no_client(shop: Shop) -> None:
    shop.publish("a")
    record = next(layout.history_folder(shop.root).glob("*.json"))
    record.chmod(0o644)
    record.write_bytes(b"rubbish")
    with structlog.testing.capture_logs() as logged, AsgiClient(create_app(shop.config())) as client:
        replies = [client.get("/readyz"), client.get("/v1/version"), client.post(PATH, {"user": "u0"})]
    for reply in replies:
        assert (reply.status, reply.json()["error"]) == (503, "not_ready")
        assert reply.json()["message"] == "the current version cannot be opened; the server's log says why"
        assert reply.headers["retry-after"] == "1"
    assert [str(record) in str(line["reason"]) for line in logged] == [True]
    with open_reranker(shop.config()) as reranker, pytest.raises(NotReadyError, match=str(record)):
        reranker.recommend(RecommendRequest(user="u0"))


def test_an_answer_has_all_its_parts(client: AsgiClient, stocked_shop: Shop) -> None:
    reply = client.post(PATH, {"user": "u0", "k": 3})
    assert reply.status == 200
    answer = msgspec.json.decode(reply.body, type=RecommendAnswer, strict=True)
    assert [item.rank for item in answer.items] == [1, 2, 3]
    assert (answer.version, answer.rung, answer.stale) == (stocked_shop.current(), "personal", False)
    assert set(reply.json()["items"][0]) == {"item", "rank", "score", "base_score", "base_rank", "rung"}
    assert len(answer.request_id) == 32


def test_explain_adds_the_signals_of_every_item(client: AsgiClient) -> None:
    reply = client.post(PATH, {"user": "u0", "k": 3, "explain": True, "session": [{"item": "a01"}]})
    for item in reply.json()["items"]:
        assert item["why"]
        assert "session_similarity" in item["signals"]
        assert sum(item["contributions"].values()) == pytest.approx(item["score"], abs=1e-5)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_body_gets_a_4xx_that_names_the_field(client: AsgiClient, kind: str) -> None:
    body, status, field = MALFORMED[kind]
    found, error = post(client, body)
    assert (found, error.field) == (status, field)
    assert error.message


def test_a_body_that_is_declared_too_large_is_refused_before_it_is_read(client: AsgiClient) -> None:
    status, error = post(client, STALL, content_length="70000")
    assert (status, error.error) == (413, "body_too_large")


def test_a_length_in_digits_that_are_none_is_no_length(client: AsgiClient) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"\xb2")]
    statuses: list[int] = []

    async def send() -> None:
        statuses.append((await client.send("POST", PATH, b"", headers, [b'{"user": "u0"}']))[0])

    client.run(send())
    assert statuses == [200]


def test_a_body_that_turns_out_too_large_is_refused(client: AsgiClient) -> None:
    status, error = post(client, *[b" " * 20_000] * 4, STALL)
    assert (status, error.error) == (413, "body_too_large")


def test_a_body_that_stalls_is_given_up(client: AsgiClient) -> None:
    status, error = post(client, b'{"user":', STALL)
    assert (status, error.error) == (408, "body_too_slow")
    assert 'shortlist_closed_connections_total{reason="slow"} 1.0' in client.get("/metrics").body.decode()


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_body_of_another_type_is_refused(client: AsgiClient, kind: str) -> None:
    status, error = post(client, b'{"user": "u0"}', content_type=kind)
    assert (status, error.error) == (415, "unsupported_media_type")


def test_a_compressed_body_is_refused(client: AsgiClient) -> None:
    assert post(client, b"\x1f\x8b", content_encoding="gzip")[0] == 415


def test_json_in_another_charset_is_refused_and_in_utf8_accepted(client: AsgiClient) -> None:
    assert post(client, b"{}", content_type="application/json; charset=latin-1")[0] == 415
    reply = client.request("POST", PATH, [b'{"user": "u0"}'], {"content-type": 'Application/JSON; charset="UTF-8"'})
    assert reply.status == 200


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("PUT", PATH), ("DELETE", PATH), ("POST", "/healthz")])
def test_a_wrong_method_is_405_and_names_the_right_ones(client: AsgiClient, method: str, path: str) -> None:
    reply = client.request(method, path)
    assert (reply.status, reply.json()["error"]) == (405, "method_not_allowed")
    assert reply.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/recommend/", "/v2/recommend", "/../etc/passwd", "/v1/%2e%2e"])
def test_an_unknown_path_is_404(client: AsgiClient, path: str) -> None:
    reply = client.get(path)
    assert (reply.status, reply.json()["error"]) == (404, "not_found")


def test_the_version_is_told(client: AsgiClient, stocked_shop: Shop) -> None:
    found = msgspec.json.decode(client.get("/v1/version").body, type=VersionAnswer)
    assert (found.version, found.number, found.stale) == (stocked_shop.current(), 1, False)
    assert (found.items, found.users) == (len(stocked_shop.items), len(stocked_shop.users))


def test_the_counters_know_rungs_reasons_and_statuses(stocked_shop: Shop) -> None:
    with AsgiClient(create_app(stocked_shop.config())) as client:
        client.post(PATH, {"user": "u0"})
        client.post(PATH, {"user": "nobody", "session": [{"item": "unheard of"}]})
        client.post(PATH, {"user": ""})
        client.get("/nowhere")
        page = client.get("/metrics").body.decode()
    for line in (
        'shortlist_requests_total{path="/v1/recommend",status="200"} 2.0',
        'shortlist_requests_total{path="/v1/recommend",status="422"} 1.0',
        'shortlist_requests_total{path="other",status="404"} 1.0',
        'shortlist_answers_total{rung="personal",stale="no"} 1.0',
        'shortlist_answers_total{rung="popular",stale="no"} 1.0',
        'shortlist_fallbacks_total{reason="unknown_user"} 1.0',
        "shortlist_ignored_events_total 1.0",
        'shortlist_request_seconds_count{path="/v1/recommend"} 3.0',
        f'shortlist_version{{version="{stocked_shop.current()}"}} 1.0',
        "shortlist_ready 1.0",
    ):
        assert line in page


@pytest.mark.parametrize(
    ("hours", "age", "expired", "from_future"),
    [(1, 3600, 0, 0), (71, 255_600, 0, 0), (72, 259_200, 1, 0), (-1, 0, 0, 1)],
)
def test_the_metrics_say_how_old_the_version_is_and_what_that_means(
    stocked_shop: Shop, hours: int, age: int, expired: int, from_future: int
) -> None:
    with AsgiClient(create_app(stocked_shop.config(), now=lambda: MADE_AT + 3600.0 * hours)) as client:
        lines = client.get("/metrics").body.decode().splitlines()
    told = {name: float(number) for name, number in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}
    names = ("version_age_seconds", "version_expired", "version_from_future", "ready", "behind")
    assert [told[f"shortlist_{name}"] for name in names] == [age, expired, from_future, 1, 0]


def test_the_openapi_document_describes_what_is_served_with_this_servers_limits(client: AsgiClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        PATH, "/v1/events", "/v1/items", "/v1/items/{item}", "/v1/version", "/healthz", "/readyz", "/metrics",
        "/openapi.json", "/docs", "/v1/recommend/batch", "/v1/similar/{item}", "/v1/popular", "/v1/trending",
        "/v1/users/{user}/candidates",
    }  # fmt: skip
    assert document["components"]["schemas"]["ItemChanges"]["properties"]["items"]["maxItems"] == 1000
    wanted = document["components"]["schemas"]["RecommendRequest"]
    assert wanted["required"] == ["user"]
    assert wanted["additionalProperties"] is False
    assert wanted["properties"]["k"]["anyOf"][0]["maximum"] == 200
    assert wanted["properties"]["session"]["maxItems"] == 200


@pytest.mark.parametrize(
    ("path", "limit"), [(PATH, 65_536), (f"{PATH}/batch", 409_600), ("/v1/events", 262_144), ("/v1/items", 5_120_000)]
)
def test_the_openapi_document_says_how_long_a_body_may_be(client: AsgiClient, path: str, limit: int) -> None:
    told = client.get("/openapi.json").json()["paths"][path]["post"]["responses"]["413"]["description"]
    assert told == f"The body is longer than {limit:,} bytes."
    replies = [client.request("POST", path, [b" " * size], JSON_HEADERS) for size in (limit, limit + 1)]
    assert [reply.status for reply in replies] == [400, 413]


def test_the_openapi_document_names_every_error(client: AsgiClient) -> None:
    field = client.get("/openapi.json").json()["components"]["schemas"]["ErrorAnswer"]["properties"]["error"]
    for status, name in {(status, name) for _, status, name in STATUS} | {(404, "not_found"), (431, "head_too_large")}:
        assert re.search(rf"{status} [a-z_, ]*{name}", field["description"]), name


def test_every_reference_of_the_openapi_document_leads_somewhere(client: AsgiClient) -> None:
    document = client.get("/openapi.json").json()

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            for entry in node.values():
                yield from references(entry)
        elif isinstance(node, list):
            for entry in node:
                yield from references(entry)

    found = set(references(document))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_an_unforeseen_fault_is_a_500_without_a_word_about_its_insides(
    stocked_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret insides")

    with AsgiClient(create_app(stocked_shop.config())) as client:
        monkeypatch.setattr("reranker.recommend.answer", fail)
        reply = client.post(PATH, {"user": "u0"})
    assert (reply.status, reply.json()["error"]) == (500, "internal_error")
    assert b"secret" not in reply.body


def test_scores_are_finite_numbers_in_every_answer(client: AsgiClient) -> None:
    for user in ("u0", "u1", "nobody"):
        text = client.post(PATH, {"user": user, "k": 50, "session": [{"item": "a02"}], "explain": True}).body
        assert b"null" not in text.replace(b'"reason":null', b"")
        json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/v1/popular?k=x", 422, "k"),
        ("/v1/popular?k=1.5", 422, "k"),
        ("/v1/popular?k=%C2%B2", 422, "k"),
        ("/v1/popular?k=201", 422, "k"),
        ("/v1/popular?k=1&k=1", 422, "k"),
        ("/v1/popular?color=red", 422, "color"),
        ("/v1/similar/a11?segment=DE", 422, "segment"),
        ("/v1/similar/nothing", 404, "item"),
        ("/v1/users/nobody/candidates", 404, "user"),
        ("/v1/users/u0", 404, None),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(
    client: AsgiClient, path: str, status: int, field: str | None
) -> None:
    reply = client.get(path)
    assert reply.status == status
    assert reply.json().get("field") == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [{"user": "u0"}] * 101}, "requests"),
        ({"requests": [{"user": "u0"}, {"user": "u0", "k": 500}]}, "requests[1].k"),
        ({"requests": [{"user": "u0", "x": 1}]}, "requests[0].x"),
    ],
)
def test_a_batch_that_cannot_be_answered_says_which_field_is_wrong(
    client: AsgiClient, body: object, field: str
) -> None:
    reply = client.post("/v1/recommend/batch", body)
    assert (reply.status, reply.json()["field"]) == (422, field)
