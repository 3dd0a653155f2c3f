"""Following the store: what keeps a worker from the newest version is told once, and in the metrics."""

from __future__ import annotations

import io

import pytest
from asgi_client import AsgiClient
from server_log import logged_as_by_a_server
from serving_shop import Shop
from shop_server import eventually

from prediction_store import current, layout
from prediction_store.reader import Version
from reranker.app import create_app
from reranker.recommend import Reranker


def behind(client: AsgiClient) -> str:
    lines = client.get("/metrics").body.decode().splitlines()
    return next(line for line in lines if line.startswith("shortlist_behind ")).split()[1]


def test_a_fault_that_nobody_foresaw_is_told_once_and_counts_as_behind(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.publish("a")
    first, tries, prepare = shop.current(), list[str](), Reranker.prepare

    def fail(self: Reranker, version: Version) -> None:
        if version.name == first:
            return prepare(self, version)
        tries.append(version.name)
        raise ValueError("nobody foresaw this")

    monkeypatch.setattr(Reranker, "prepare", fail)
    monkeypatch.setattr(current, "RETRY_SECONDS", 0.05)
    stream = io.StringIO()
    with logged_as_by_a_server(stream), AsgiClient(create_app(shop.config("serve.poll_seconds=0.01"))) as client:
        assert behind(client) == "0.0"
        shop.publish("b")
        eventually(lambda: len(tries) > 4)
        assert (behind(client), client.get("/v1/version").json()["version"]) == ("1.0", first)
    assert stream.getvalue().count("ValueError: nobody foresaw this") == 1
    assert "version not taken" not in stream.getvalue()


def test_a_record_that_cannot_be_read_counts_as_behind_for_as_long_as_it_is_the_newest(shop: Shop) -> None:
    shop.publish("a")
    with AsgiClient(create_app(shop.config("serve.poll_seconds=0.01"))) as client:
        damaged = layout.history_path(shop.root, 2)
        damaged.write_bytes(b"{")
        eventually(lambda: behind(client) == "1.0")
        damaged.unlink()
        eventually(lambda: behind(client) == "0.0")
