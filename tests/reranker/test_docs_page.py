"""The page of the API: nothing from elsewhere, all that the document has, and examples that work as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from asgi_client import AsgiClient, Reply
from serving_shop import Shop

from reranker.app import create_app
from reranker.docs_page import ORIGIN
from reranker.tokens import add_token


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiClient]:
    """A shop that may be changed, for the examples change it."""
    shop = Shop(tmp_path_factory.mktemp("docs") / "store")
    shop.publish("a")
    with AsgiClient(create_app(shop.config())) as client:
        yield client


@pytest.fixture
def page(client: AsgiClient) -> str:
    reply = client.get("/docs")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return reply.body.decode()


def test_nothing_is_loaded_from_elsewhere(client: AsgiClient, page: str) -> None:
    assert not re.findall(r"<(?:link|img|iframe|object|embed|base)\b|\bsrc=|@import|url\(", page)
    assert set(re.findall(r"https?://[^\s'\"<]+", page.replace("</", " </"))) <= {
        f"{ORIGIN}{path}" for path in re.findall(rf"{ORIGIN}([^\s'\"<]*)", page)
    }
    policy = client.get("/docs").headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy and "http" not in policy


def test_every_operation_status_and_field_is_on_it(client: AsgiClient, page: str) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            section = page.partition(f"<section id='{operation['operationId']}'>")[2].partition("</section>")[0]
            section = unescape(section)
            assert re.sub(r"</?i>", "", section).find(f"<code>{path}</code>") > 0
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description", "") in section
            for status, response in operation["responses"].items():
                assert re.search(rf">{status}</b><td>{re.escape(response['description'][:20])}", section), (
                    path,
                    status,
                )
    for name, schema in document["components"]["schemas"].items():
        section = page.partition(f"<h3 id='{name}'>")[2].partition("</section>")[0]
        assert page.count(f"<li><a href='#{name}'>") == 1, "it is in the menu"
        for field in schema["properties"]:
            assert f"<code>{field}</code>" in section, (name, field)
    assert "at most 1,000 entries" in page and "1 to 200" in page


def test_without_its_script_nothing_on_it_promises_to_copy(page: str) -> None:
    assert set(re.findall(r"<button[^>]*>", page)) == {"<button hidden>"}


def test_every_link_on_it_leads_somewhere(page: str) -> None:
    links = set(re.findall(r"href='#([^']+)'", page))
    assert len(links) > 20
    assert links <= set(re.findall(r"id='?([\w-]+)", page))


def test_every_example_works_as_it_stands(client: AsgiClient, page: str) -> None:
    examples = [unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]
    assert len(examples) == len(re.findall(r"<section id='", page))
    for example in examples:
        reply = run(client, example)
        # The ids are those of the demo's shop, which this one does not have.
        assert reply.status == 200 or reply.json()["error"] in ("unknown_item", "unknown_user"), example


def run(client: AsgiClient, example: str) -> Reply:
    """What curl would get."""
    words = shlex.split(example.replace("\\\n", " "))
    assert words[:2] == ["curl", "-s"]
    path = words[2].removeprefix(ORIGIN)
    headers = dict(words[at + 1].split(": ") for at, word in enumerate(words) if word == "-H")
    body = next((words[at + 1].encode() for at, word in enumerate(words) if word == "-d"), b"")
    return client.request("POST" if body else "GET", path, [body], headers)


def test_with_tokens_it_says_so_and_each_example_carries_one(stocked_shop: Shop, tmp_path: Path) -> None:
    token = add_token(tmp_path / "tokens", "reader", "read")
    with AsgiClient(create_app(stocked_shop.config(f"serve.tokens_file={tmp_path / 'tokens'}"))) as client:
        page = client.request("GET", "/docs", headers={"authorization": f"Bearer {token}"}).body.decode()
    assert "This server wants a token" in page
    assert "role: operate" in page
    examples = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    without = [example for example in examples if "Bearer $TOKEN" not in example]
    assert [example.rpartition("/")[2] for example in without] == ["healthz", "readyz"]
