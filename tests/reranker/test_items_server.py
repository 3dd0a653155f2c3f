"""The real server: a change of an item through one worker is seen by all at the next request, and lasts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serving_shop import Shop
from shop_server import PATIENCE_SECONDS, SHORTLIST, Server, eventually


@pytest.fixture
def server(shop: Shop, tmp_path: Path) -> Iterator[Server]:
    """A server of two workers."""
    shop.publish("a")
    started = Server(shop.root, tmp_path)
    try:
        yield started
    finally:
        started.end()


@contextmanager
def a_client_of_each_worker(server: Server) -> Iterator[list[httpx.Client]]:
    """Clients whose connections stay: while a worker is stopped, the others accept."""
    eventually(lambda: len(server.workers()) == server.n_workers)
    with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as one:
        assert one.get("/readyz").status_code == 200
    clients = []
    for worker in sorted(server.workers()):
        others = server.workers() - {worker}
        for other in others:
            os.kill(other, signal.SIGSTOP)
        client = httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS)
        clients.append(client)
        assert client.get("/readyz").status_code == 200
        for other in others:
            os.kill(other, signal.SIGCONT)
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def shown(client: httpx.Client) -> list[str]:
    reply = client.post("/v1/recommend", json={"user": "u0", "k": 5})
    assert reply.status_code == 200
    return [item["item"] for item in reply.json()["items"]]


def shortlist(*argv: str) -> str:
    return subprocess.run([*SHORTLIST, *argv], capture_output=True, text=True, check=True).stdout


def test_a_change_through_one_worker_is_seen_by_all_at_the_next_request(server: Server, shop: Shop) -> None:
    with a_client_of_each_worker(server) as clients:
        before = shown(clients[0])
        for place, item in enumerate(before):
            through = clients[place % 2]
            assert through.post("/v1/items", json={"items": [{"item": item, "hidden": True}]}).json()["changed"] == 1
            assert [item in shown(client) for client in clients] == [False, False]
        for client in clients:
            reply = client.post("/v1/items", json={"items": [{"item": item, "hidden": None} for item in before]})
            assert [shown(client) for client in clients] == [before, before]
        assert reply.json() == {"changed": 0, "unknown": []}
    assert server.stop() == 0


def test_a_change_at_the_terminal_is_seen_by_all_at_the_next_request_and_after_a_restart(
    server: Server, shop: Shop, tmp_path: Path
) -> None:
    settings = f"--set=paths.store={shop.root}"
    with a_client_of_each_worker(server) as clients:
        before = shown(clients[1])
        shortlist("items", "set", before[0], "--hide", settings)
        assert [shown(client)[0] for client in clients] == [before[1], before[1]]
        clients[0].post("/v1/items", json={"items": [{"item": before[1], "in_stock": False}]})
        assert [shown(client)[0] for client in clients] == [before[2], before[2]]
    server.process.kill()
    server.process.wait()
    again = Server(shop.root, tmp_path)
    try:
        with httpx.Client(base_url=again.url, timeout=PATIENCE_SECONDS) as client:
            assert shown(client)[0] == before[2]
        shortlist("items", "clear", before[0], before[1], settings)
        with a_client_of_each_worker(again) as clients:
            assert [shown(client) for client in clients] == [before, before]
        assert again.stop() == 0
    finally:
        again.end()


def test_live_facts_outlast_a_cutover(server: Server, shop: Shop) -> None:
    name = shop.publish("b", cutover=False)
    with a_client_of_each_worker(server) as clients:
        before = shown(clients[0])
        twin = "b" + before[0][1:]
        answer = clients[0].post("/v1/items", json={"items": [{"item": twin, "hidden": True}]}).json()
        assert answer == {"changed": 1, "unknown": [twin]}
        shop.cut_over(name)
        for client in clients:
            eventually(lambda client=client: client.get("/v1/version").json()["version"] == name)  # type: ignore[misc]
            assert shown(client)[0] == "b" + before[1][1:]
    assert server.stop() == 0
