"""The real server: several worker processes over a store that changes under them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving_shop import Shop
from shop_server import PATIENCE_SECONDS, SERVE, Server, Visitors, eventually

from reranker.assignment import STARTUP_FAILURE
from reranker.errors import ServeError
from reranker.serve import serve
from schemas.config import Config
from schemas.serving_config import Serve


@pytest.fixture
def server(shop: Shop, tmp_path: Path) -> Iterator[Server]:
    """A server over a store that has one version, `a`."""
    shop.publish("a")
    yield from _running(shop, tmp_path)


@pytest.fixture
def empty_server(shop: Shop, tmp_path: Path) -> Iterator[Server]:
    """A server over a store that has none."""
    yield from _running(shop, tmp_path)


def _running(shop: Shop, folder: Path) -> Iterator[Server]:
    started = Server(shop.root, folder)
    try:
        yield started
    finally:
        started.end()


def ask(client: httpx.Client, **fields: object) -> httpx.Response:
    return client.post("/v1/recommend", json={"user": "u0", "k": 5, **fields})


def test_a_running_server_follows_cutover_and_rollback_without_an_error_or_a_mixed_answer(
    server: Server, shop: Shop
) -> None:
    first, second = shop.current(), shop.publish("b", cutover=False)
    with Visitors(server.url, clients=3) as visitors:
        eventually(lambda: visitors.see_only(first))
        for _ in range(3):
            shop.release(second)
            shop.cut_over(second)
            eventually(lambda: visitors.see_only(second))
            shop.roll_back()
            eventually(lambda: visitors.see_only(first))
    assert visitors.failures == []
    own_items = {first: "a", second: "b"}
    for answer in visitors.answers:
        kinds = {item["item"][0] for item in answer["items"]}  # type: ignore[attr-defined]
        assert kinds == {own_items[str(answer["version"])]}
    assert server.stop() == 0


def test_a_server_without_a_version_is_alive_and_becomes_ready_when_one_is_published(
    empty_server: Server, shop: Shop
) -> None:
    with httpx.Client(base_url=empty_server.url, timeout=PATIENCE_SECONDS) as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["error"]) == (503, "not_ready")
        refused = ask(client)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        name = shop.publish("a")
        eventually(lambda: client.get("/readyz").status_code == 200)
        eventually(lambda: ask(client).status_code == 200)
        assert ask(client).json()["version"] == name
    assert empty_server.stop() == 0


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
        assert ask(client).status_code == 200
    before = server.workers()
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(server.workers() - {victim}) == 2)
    with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
        assert ask(client).status_code == 200
        counted = client.get("/metrics").text
    assert 'shortlist_requests_total{path="/v1/recommend",status="200"} 2.0' in counted
    assert server.stop() == 0


@pytest.fixture
def no_worker_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file is there, every new worker ends as one does whose application cannot start."""
    sign, site = tmp_path / "no worker starts", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if 'reranker.worker' in sys.orig_argv and os.path.exists({str(sign)!r}):\n"
        f"    os._exit({STARTUP_FAILURE})\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return sign


def test_a_replacement_that_cannot_start_is_tried_again_while_others_serve(
    shop: Shop, tmp_path: Path, no_worker_starts: Path
) -> None:
    shop.publish("a")
    for server in _running(shop, tmp_path):
        eventually(lambda server=server: _have_both_begun(server))
        victim = min(server.workers())
        no_worker_starts.touch()
        os.kill(victim, signal.SIGKILL)
        eventually(lambda server=server: server.log.read_text().count("worker could not start") > 1)
        with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
            assert ask(client).status_code == 200
        no_worker_starts.unlink()
        eventually(lambda server=server: _have_both_begun(server))
        assert server.stop() == 0


def test_a_server_none_of_whose_workers_can_start_any_more_ends(
    shop: Shop, tmp_path: Path, no_worker_starts: Path
) -> None:
    shop.publish("a")
    for server in _running(shop, tmp_path):
        eventually(lambda server=server: _have_both_begun(server))
        no_worker_starts.touch()
        for victim in server.workers():
            os.kill(victim, signal.SIGKILL)
        assert server.process.wait(PATIENCE_SECONDS) == 1
        assert "no worker can start" in server.log.read_text()


def _have_both_begun(server: Server) -> bool:
    """True when two workers run code of ours: they do not look for `no_worker_starts` any more."""
    try:
        loaded = ["lmdb" in Path(f"/proc/{pid}/maps").read_text() for pid in server.workers()]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return loaded == [True, True]


def test_sigterm_ends_the_parent_and_every_worker(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
        assert ask(client).status_code == 200
        workers = server.workers()
        assert len(workers) == 2
        assert server.stop() == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGHUP"])
def test_a_request_in_flight_is_answered_after_a_signal_to_stop(server: Server, ending: str) -> None:
    body = json.dumps({"user": "u0", "k": 5}).encode()
    head = (
        f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")  # the handler waits for the body
        for pid in (*server.workers(), server.process.pid) if ending == "SIGHUP" else (server.process.pid,):
            os.kill(pid, signal.Signals[ending])  # a terminal that is closed tells all of its processes
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(PATIENCE_SECONDS) == 0


def test_under_nohup_a_closed_terminal_stops_nothing(shop: Shop, tmp_path: Path) -> None:
    shop.publish("a")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        server = Server(shop.root, tmp_path, workers=1)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        os.kill(server.process.pid, signal.SIGHUP)
        with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
            assert ask(client).status_code == 200
        assert server.stop() == 0
        assert [line["signal"] for line in server.lines() if line["event"] == "stopping"] == ["SIGTERM"]
    finally:
        server.end()


def test_a_body_that_never_comes_is_given_up_on_a_real_connection(server: Server) -> None:
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.sendall(head)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))  # until the server closes
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"error":"body_too_slow"' in answer


def test_workers_do_not_outlive_a_parent_that_is_killed(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
        assert ask(client).status_code == 200
    workers = server.workers()
    server.process.kill()
    server.process.wait()
    eventually(lambda: not [pid for pid in workers if _is_running(pid)])


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_any_worker_reports_the_counts_of_all(server: Server) -> None:
    for _ in range(12):  # a connection each, so that both workers get some
        assert httpx.post(f"{server.url}/v1/recommend", json={"user": "nobody"}, timeout=PATIENCE_SECONDS).is_success
    pages = [httpx.get(f"{server.url}/metrics", timeout=PATIENCE_SECONDS).text for _ in range(6)]
    for page in pages:
        assert 'shortlist_requests_total{path="/v1/recommend",status="200"} 12.0' in page
        assert 'shortlist_answers_total{rung="popular",stale="no"} 12.0' in page
        assert "shortlist_version_number 1.0" in page
    assert server.stop() == 0


def test_connections_that_last_are_shared_out_among_the_workers(server: Server) -> None:
    """A proxy opens its connections at once and keeps them: with all of them at one worker, the others have no work."""
    workers = sorted(server.workers())
    eventually(lambda: all(map(_waits_for_connections, workers)))
    before = [_sockets_of(worker) for worker in workers]

    def shares() -> list[int]:
        return [_sockets_of(worker) - were for worker, were in zip(workers, before, strict=True)]

    with contextlib.ExitStack() as opened:
        for _ in range(40):
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS))
        eventually(lambda: sum(shares()) == 40)
        assert max(shares()) <= 24, shares()
    eventually(lambda: sum(shares()) == 0)


def test_any_worker_reports_how_many_connections_all_of_them_have(server: Server) -> None:
    eventually(lambda: all(map(_waits_for_connections, server.workers())))

    def reported() -> float:
        page = httpx.get(f"{server.url}/metrics", timeout=PATIENCE_SECONDS).text
        (number,) = re.findall(r"^shortlist_open_connections (.*)$", page, re.M)
        return float(number) - 1.0  # that of the question

    with contextlib.ExitStack() as opened:
        lines = [
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS))
            for _ in range(10)
        ]
        eventually(lambda: reported() == 10)
        for line in lines[:3]:
            line.close()
        eventually(lambda: reported() == 7)
        victim, other = sorted(server.workers())
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(server.workers() - {victim, other}) == 1)
        left = sum(not _is_ended(line) for line in lines[3:])
        eventually(lambda: reported() == left, lambda: f"{left} are open")
    eventually(lambda: reported() == 0)


def _is_ended(line: socket.socket) -> bool:
    """The other side has closed it."""
    line.setblocking(False)
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_worker_takes_what_another_leaves_waiting(server: Server) -> None:
    first, other = sorted(server.workers())
    eventually(lambda: all(map(_waits_for_connections, (first, other))))
    os.kill(other, signal.SIGSTOP)
    try:
        with contextlib.ExitStack() as opened:
            clients = [
                opened.enter_context(httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS)) for _ in range(5)
            ]
            assert {ask(client).status_code for client in clients} == {200}
    finally:
        os.kill(other, signal.SIGCONT)


def _waits_for_connections(worker: int) -> bool:
    """The socket that listens, whose number is its last argument, is among those that it polls."""
    number = Path(f"/proc/{worker}/cmdline").read_bytes().split(b"\0")[-2].decode()
    polled = [file for file, target in _files_of(worker) if target == "anon_inode:[eventpoll]"]
    facts = "".join(Path(f"/proc/{worker}/fdinfo/{file}").read_text() for file in polled)
    return re.search(rf"^tfd: +{number} ", facts, re.M) is not None


def _sockets_of(worker: int) -> int:
    return sum(target.startswith("socket:") for _, target in _files_of(worker))


def _files_of(worker: int) -> Iterator[tuple[str, str]]:
    """Number and target of each open file of a process."""
    for file in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield file.name, str(file.readlink())


def test_the_log_is_json_lines_without_user_ids(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
        assert ask(client, user="canary-user-7341").status_code == 200
        assert client.post("/v1/recommend", content=b"canary-body-9914").status_code == 415
        assert ask(client, k=0).status_code == 422
    assert server.stop() == 0
    assert server.lines()
    assert "canary" not in server.log.read_text()


def test_a_second_server_on_the_same_port_says_so_and_exits_1(server: Server, shop: Shop, tmp_path: Path) -> None:
    port = str(server.port)
    done = subprocess.run(
        [*SERVE, "--port", port, "--set", f"paths.store={shop.root}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "192.0.2.1", "no such host"])
def test_a_host_that_is_no_address_of_this_machine_is_told_as_that(host: str) -> None:
    with pytest.raises(ServeError, match="cannot listen on ") as caught:
        serve(Config(serve=Serve(host=host, port=0)), announce=print)
    assert caught.value.hint == "set serve.host to an address of this machine"


def test_a_server_that_is_killed_leaves_no_temporary_files(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.publish("a")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    for server in _running(shop, tmp_path):
        assert httpx.get(f"{server.url}/metrics", timeout=PATIENCE_SECONDS).is_success
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        eventually(lambda workers=workers: not [pid for pid in workers if _is_running(pid)])
    assert list(folder.iterdir()) == []


def test_too_few_open_files_for_the_counts_are_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, hard))
    try:
        with pytest.raises(ServeError, match="the counts of 256 workers have no place: Too many open files"):
            serve(Config(serve=Serve(port=0, workers=256)), announce=print)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
