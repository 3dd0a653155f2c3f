"""Traces by the real exporter, to a collector on loopback; and nothing of OpenTelemetry where they are off."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from asgi_client import JSON_HEADERS, AsgiClient
from otlp_collector import Collector, attributes, collector
from serving_shop import LIST_LENGTH, Shop
from shop_server import Server

import shortlist
from reranker import Client
from reranker.app import create_app
from reranker.errors import TracesError
from reranker.log import hash_user
from reranker.spans import route_of
from reranker.traces import open_traces
from schemas.config_file import load_config
from schemas.errors import ConfigError
from schemas.messages import RecommendRequest
from schemas.serving_config import Serve

KEY = b"sixteen bytes!!!"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KINDS = {"server": 2}


@pytest.fixture(scope="module")
def found(stocked_shop: Shop) -> Collector:
    """What a collector has after some requests to an application that has ended."""
    with collector() as running:
        config = stocked_shop.config(f"serve.traces_endpoint={running.endpoint}")
        with AsgiClient(create_app(config, log_key=KEY)) as client:
            given = {**JSON_HEADERS, "traceparent": f"00-{TRACE}-{PARENT}-01"}
            assert client.request("POST", "/v1/recommend", [b'{"user":', b'"u0", "k": 3}'], given).status == 200
            given["traceparent"] = f"00-{TRACE[::-1]}-{PARENT}-00"
            assert client.request("POST", "/v1/recommend", [b'{"user": "u0"}'], given).status == 200
            given["traceparent"] = "00-nonsense"
            assert client.request("POST", "/v1/recommend", [b'{"user": ""}'], given).status == 422
            client.post("/v1/recommend/batch", {"requests": [{"user": "u1", "k": 2}, {"user": "nobody"}]})
            client.get("/v1/users/u1/candidates?k=4")
            client.get("/v1/similar/a01")
            client.get("/nowhere/secret")
    return running


def test_a_request_is_one_span_that_says_how_it_was_answered(found: Collector, stocked_shop: Shop) -> None:
    span = next(span for span in found.named("POST /v1/recommend") if span.trace_id.hex() == TRACE)
    told = attributes(span)
    assert len(told.pop("shortlist.request_id")) == 32
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/recommend",
        "http.response.status_code": 200,
        "shortlist.version": stocked_shop.current(),
        "shortlist.rung": "personal",
        "shortlist.k": 3,
        "shortlist.items": 3,
        "shortlist.candidates": LIST_LENGTH,
        "shortlist.stale": False,
        "shortlist.user": hash_user("u0", KEY),
    }
    assert span.kind == KINDS["server"]
    assert found.resource["service.name"] == "shortlist"


def test_a_traceparent_is_the_parent_and_its_word_on_sampling_holds(found: Collector) -> None:
    spans = found.named("POST /v1/recommend")
    assert [span.parent_span_id.hex() for span in spans if span.trace_id.hex() == TRACE] == [PARENT]
    assert TRACE[::-1] not in {span.trace_id.hex() for span in found.spans}, "its caller does not sample it"
    (alone,) = [span for span in spans if span.trace_id.hex() != TRACE]
    assert (alone.parent_span_id, attributes(alone)["http.response.status_code"]) == (b"", 422)


def test_the_stages_are_spans_within(found: Collector) -> None:
    (parent,) = [span for span in found.named("POST /v1/recommend") if span.trace_id.hex() == TRACE]
    stages = {span.name: span for span in found.spans if span.parent_span_id == parent.span_id}
    assert stages.keys() == {"read body", "rank"}
    for stage in stages.values():
        assert parent.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= parent.end_time_unix_nano
    assert stages["read body"].end_time_unix_nano <= stages["rank"].start_time_unix_nano


def test_each_answer_of_a_batch_is_a_span(found: Collector) -> None:
    (parent,) = found.named("POST /v1/recommend/batch")
    ranked = [attributes(span) for span in found.named("rank") if span.parent_span_id == parent.span_id]
    assert [told["shortlist.rung"] for told in ranked] == ["personal", "popular"]
    assert "shortlist.user" not in attributes(parent)


def test_what_is_told_of_requests_that_wait_in_one_line_is_told_in_the_span_of_each(stocked_shop: Shop) -> None:
    users = {"u0": 1, "u1": 2, "nobody": 3}
    with collector() as running:
        app = create_app(stocked_shop.config(f"serve.traces_endpoint={running.endpoint}"), log_key=KEY)
        with AsgiClient(app) as client:

            async def at_once() -> None:
                headers = [(b"content-type", b"application/json")]
                bodies = [json.dumps({"user": user, "k": k}).encode() for user, k in users.items()]
                await asyncio.gather(
                    *(client.send("POST", "/v1/recommend", b"", headers, [body]) for body in bodies),
                    client.send("GET", "/v1/popular", b"k=4", [], [b""]),
                )

            client.run(at_once())
    spans = {span.span_id: attributes(span) for span in running.named("POST /v1/recommend")}
    assert {told["shortlist.user"]: told["shortlist.k"] for told in spans.values()} == {
        hash_user(user, KEY): k for user, k in users.items()
    }
    for rank in running.named("rank"):
        assert attributes(rank)["shortlist.request_id"] == spans[rank.parent_span_id]["shortlist.request_id"]
    (popular,) = running.named("GET /v1/popular")
    assert attributes(popular)["shortlist.items"] == 4


def test_no_id_stands_in_a_span(found: Collector) -> None:
    names = {span.name for span in found.spans}
    assert {"GET /v1/users/{user}/candidates", "GET /v1/similar/{item}", "GET other"} <= names
    text = " ".join(f"{span.name} {attributes(span)}" for span in found.spans)
    # A number of a request is hexadecimal, and may well have the letters of an item in it.
    for word in ("u0", "'u1'", "/u1", "nobody", "'a01'", "/a01", "secret"):
        assert word not in text, word


def test_every_path_of_the_document_is_a_route(stocked_shop: Shop) -> None:
    with AsgiClient(create_app(stocked_shop.config())) as client:
        for path in client.get("/openapi.json").json()["paths"]:
            assert route_of(path) == path
    assert route_of("/v1/items/a/b") == "/v1/items/{item}"
    assert route_of("/v1/items") == "/v1/items"


def test_a_share_of_the_requests_is_traced(stocked_shop: Shop) -> None:
    with collector() as running:
        config = stocked_shop.config(f"serve.traces_endpoint={running.endpoint}", "serve.traces_share=0")
        with AsgiClient(create_app(config)) as client:
            assert client.post("/v1/recommend", {"user": "u0"}).status == 200
    assert running.spans == []


def test_a_collector_that_is_down_fails_no_request(stocked_shop: Shop) -> None:
    config = stocked_shop.config("serve.traces_endpoint=http://127.0.0.1:9/v1/traces")
    with AsgiClient(create_app(config)) as client:
        assert client.post("/v1/recommend", {"user": "u0"}).status == 200


def test_a_real_server_sends_its_spans_before_it_ends(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store")
    shop.publish("a")
    with collector() as running:
        server = Server(shop.root, tmp_path, 1, f"serve.traces_endpoint={running.endpoint}")
        try:
            with Client(server.url, timeout_seconds=60.0) as client:
                client.recommend(RecommendRequest(user="u0"))
            assert server.stop() == 0
        finally:
            server.end()
    assert len(running.named("POST /v1/recommend")) == 1
    assert not [line for line in server.lines() if "opentelemetry" in str(line["logger"]) or line["level"] == "error"]


def test_nothing_of_opentelemetry_is_loaded_where_traces_are_off(stocked_shop: Shop) -> None:
    code = (
        "import sys, reranker.app, reranker.worker, reranker.cli\n"
        "from schemas.config import Config\n"
        "reranker.app.create_app(Config())\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_extra_the_server_says_which_one_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "reranker.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(TracesError):
        open_traces(Serve(traces_endpoint="http://127.0.0.1:4318/v1/traces"))
    monkeypatch.chdir(tmp_path)
    assert shortlist.run(["serve", "--set", "serve.traces_endpoint=http://127.0.0.1:4318/v1/traces"]) == 2
    assert "pip install 'shortlist-recommender[traces]'" in capsys.readouterr().err


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"serve\.traces_endpoint"):
        load_config(None, ["serve.traces_endpoint=localhost:4318"], environ={})
