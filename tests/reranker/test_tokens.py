"""Tokens open what their role may do and nothing else; an empty token opens nothing; the file holds no token."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from asgi_client import JSON_HEADERS, AsgiClient, Reply
from serving_shop import Shop
from shop_server import Server

import shortlist
from reranker import Client
from reranker.access import role_for
from reranker.app import create_app
from reranker.errors import NoTokenError, RequestError, RoleError, TokensFileError
from reranker.tokens import ROLES, Gatekeeper, add_token, parse_tokens, read_tokens, revoke_token
from schemas.errors import UsageError
from schemas.messages import PostedEvent, RecommendRequest

READ = [
    ("POST", "/v1/recommend", b'{"user": "u0"}'),
    ("POST", "/v1/recommend/batch", b'{"requests": [{"user": "u0"}]}'),
    ("GET", "/v1/similar/a01", b""),
    ("GET", "/v1/popular", b""),
    ("GET", "/v1/trending", b""),
    ("GET", "/v1/users/u0/candidates", b""),
    ("GET", "/v1/items/a01", b""),
    ("GET", "/v1/version", b""),
    ("GET", "/metrics", b""),
    ("GET", "/openapi.json", b""),
    ("GET", "/docs", b""),
]
WRITE = [("POST", "/v1/events", b'{"events": [{"user": "u0", "item": "a01", "event": "view"}]}')]
OPERATE = [("POST", "/v1/items", b'{"items": [{"item": "a39", "in_stock": true}]}')]
WANTED = {"read": READ, "write": WRITE, "operate": OPERATE}


class Office:
    """A server that wants tokens, and one of each role."""

    def __init__(self, client: AsgiClient, file: Path) -> None:
        self.client = client
        self.file = file
        self.tokens = {role: add_token(file, f"a-{role}", role) for role in ROLES}

    def ask(self, method: str, path: str, body: bytes = b"", token: str | None = None) -> Reply:
        given = {} if token is None else {"authorization": f"Bearer {token}"}
        return self.client.request(method, path, [body], {**JSON_HEADERS, **given})


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    shop = Shop(folder / "store")
    shop.publish("a")
    file = folder / "tokens"
    file.touch()
    with AsgiClient(create_app(shop.config(f"serve.tokens_file={file}"))) as client:
        yield Office(client, file)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("wanted", ROLES)
def test_a_role_does_what_those_below_it_may_and_no_more(office: Office, role: str, wanted: str) -> None:
    for method, path, body in WANTED[wanted]:
        reply = office.ask(method, path, body, office.tokens[role])
        if ROLES.index(role) >= ROLES.index(wanted):
            assert reply.status == 200, path
        else:
            assert (reply.status, reply.json()["error"]) == (403, "role")
            assert wanted in reply.json()["message"]


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer ", "Bearer  ", "bearer \t", "Basic Og==", "Bearer shortlist_", "Bearer null",
        "Bearer " + "x" * 70_000, "Token {read}", "{read}", "Bearer {read}x", "Bearer {read} {read}", "Bearer {hash}",
        "Bearer, {read}", "Bearer \x00{read}",
    ],
)  # fmt: skip
def test_what_is_no_token_opens_nothing(office: Office, header: str) -> None:
    token = office.tokens["read"]
    given = header.replace("{read}", token).replace("{hash}", hashlib.sha256(token.encode()).hexdigest())
    for method, path, body in (*READ, *WRITE, *OPERATE, ("GET", "/nowhere", b""), ("DELETE", "/v1/recommend", b"")):
        reply = office.client.request(method, path, [body], {**JSON_HEADERS, "authorization": given})
        assert (reply.status, reply.json()["error"]) == (401, "no_token"), path
        assert reply.headers["www-authenticate"] == 'Bearer realm="shortlist"'
    assert office.ask("POST", "/v1/recommend", b'{"user": "u0"}').status == 401


def test_the_scheme_may_be_written_small(office: Office) -> None:
    headers = {"authorization": f"bearer {office.tokens['read']}"}
    assert office.client.request("GET", "/v1/version", [b""], headers).status == 200


def test_anyone_may_ask_whether_the_server_lives(office: Office) -> None:
    assert {office.ask("GET", path).status for path in ("/healthz", "/readyz")} == {200}


def test_an_empty_file_and_one_that_is_gone_let_nobody_in(office: Office, tmp_path: Path) -> None:
    reports: list[str] = []
    file = tmp_path / "tokens"
    gatekeeper = Gatekeeper(file, reports.append)
    assert len(reports) == 1
    for text in ("", "\n# nobody\n", f"x operate {hashlib.sha256(b'').hexdigest()}", "nonsense"):
        file.write_text(text)
        for header in (b"", b"Bearer", b"Bearer ", b"Bearer x", b"Bearer nonsense"):
            assert gatekeeper.role_of(header) is None
    assert len(reports) == 3, "the hash of nothing, and nonsense, are told once each"
    file.write_text("")
    token = f"Bearer {add_token(file, 'shop', 'read')}".encode()
    assert gatekeeper.role_of(token) == "read"
    file.write_text(f"{file.read_text()}nonsense\n")
    assert gatekeeper.role_of(token) is None, "what held before the file was damaged no longer does"


def test_a_file_that_could_not_be_read_for_a_moment_is_read_at_the_next_request(tmp_path: Path) -> None:
    reports: list[str] = []
    file = tmp_path / "tokens"
    header = b"Bearer " + add_token(file, "ann", "read").encode()
    gatekeeper = Gatekeeper(file, reports.append)
    add_token(file, "bob", "read")
    os.close(free := os.dup(0))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))  # no file can be opened
    try:
        assert [gatekeeper.role_of(header) for _ in range(3)] == [None] * 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert gatekeeper.role_of(header) == "read"
    assert len(reports) == 1


def test_a_change_is_seen_that_keeps_the_files_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    header = b"Bearer " + add_token(file, "ann", "read").encode()
    gatekeeper = Gatekeeper(file, pytest.fail)
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the kernel's clock for files is a coarse one
        file.write_text(f"ann read {hashlib.sha256(b'another').hexdigest()}\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert gatekeeper.role_of(header) is None


def test_a_token_made_or_revoked_counts_from_the_next_request_on(office: Office) -> None:
    token = add_token(office.file, "for-a-day", "write")
    assert office.ask("POST", *WRITE[0][1:], token).status == 200
    revoke_token(office.file, "for-a-day")
    assert office.ask("POST", *WRITE[0][1:], token).status == 401
    assert office.ask("GET", "/v1/version", b"", office.tokens["read"]).status == 200


def test_a_refusal_is_counted_without_its_path(office: Office) -> None:
    office.ask("GET", "/v1/similar/secret")
    page = office.ask("GET", "/metrics", b"", office.tokens["read"]).body.decode()
    assert 'shortlist_requests_total{path="refused",status="401"}' in page
    assert "secret" not in page


def test_a_refusal_is_counted_alike_on_both_ways_and_its_time_is_nobodys(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store")
    shop.publish("a")
    token = add_token(tmp_path / "tokens", "a-reader", "read")
    server = Server(shop.root, tmp_path, 1, f"serve.tokens_file={tmp_path / 'tokens'}")
    body, headers = b'{"user": "u0"}', {"content-type": "application/json"}
    let_in = {"authorization": f"Bearer {token}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60.0) as client:
            for content in (body, iter([body])):  # the second one is chunked, and so goes the long way
                assert client.post("/v1/recommend", content=content, headers=headers).status_code == 401
            for content in (body, iter([body])):
                assert client.post("/v1/recommend", content=content, headers=headers | let_in).status_code == 200
            page = client.get("/metrics", headers=let_in).text
    finally:
        server.end()
    assert 'shortlist_requests_total{path="refused",status="401"} 2.0' in page
    assert 'shortlist_requests_total{path="/v1/recommend",status="200"} 2.0' in page
    assert 'path="/v1/recommend",status="401"' not in page
    assert 'shortlist_request_seconds_count{path="/v1/recommend"} 2.0' in page


def test_the_file_holds_hashes_and_no_token(office: Office) -> None:
    text = office.file.read_text()
    for role, token in office.tokens.items():
        assert token not in text and token.removeprefix("shortlist_") not in text
        assert hashlib.sha256(token.encode()).hexdigest() in text
        assert f"a-{role} {role} " in text


def test_every_operation_says_its_role_and_its_refusals(office: Office) -> None:
    document = office.ask("GET", "/openapi.json", b"", office.tokens["read"]).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("x-role") == role_for(method.upper(), path)
            assert ({"401", "403"} <= set(operation["responses"])) == (path not in ("/healthz", "/readyz")), path


def test_the_verbs_of_an_operator_are_not_on_the_serving_port(stocked_shop: Shop) -> None:
    verbs = {verb for group in ("The life of a version", "Several hosts") for verb in shortlist.VERBS[group][1]}
    verbs |= {"tokens", "replay", "gate", "build", "admin", "shutdown"}
    with AsgiClient(create_app(stocked_shop.config())) as client:
        for path in client.get("/openapi.json").json()["paths"]:
            assert not verbs & set(path.strip("/").split("/")), path
        for verb in verbs:
            for prefix in ("/", "/v1/", "/admin/", "/v1/versions/", "/v1/store/"):
                assert client.post(f"{prefix}{verb}", {}).status == 404, f"{prefix}{verb}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("shop read", "2 fields"),
        (f"shop root {'a' * 64}", "'root'"),
        ("shop read abc", "SHA-256"),
        (f"shop read {'A' * 64}", "SHA-256"),
        (f"sh/op read {'a' * 64}", "name"),
        (f"shop read {'a' * 64}\nshop write {'b' * 64}", "line 2"),
    ],
)
def test_a_line_that_is_no_token_is_named(line: str, problem: str) -> None:
    with pytest.raises(TokensFileError, match=problem):
        parse_tokens(line, Path("tokens"))


def test_a_file_that_is_no_text_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(b"# caf\xe9\n")
    for use in (read_tokens, lambda path: add_token(path, "shop", "read"), lambda path: revoke_token(path, "shop")):
        with pytest.raises(TokensFileError, match="utf-8"):
            use(file)
    assert file.read_bytes() == b"# caf\xe9\n"


def test_comments_stay_and_a_name_is_given_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# the shop's\n")
    add_token(file, "shop", "read")
    with pytest.raises(UsageError, match="already"):
        add_token(file, "shop", "operate")
    with pytest.raises(UsageError, match="no role"):
        add_token(file, "other", "root")
    with pytest.raises(UsageError, match="no name"):
        add_token(file, "o ther", "read")
    revoke_token(file, "shop")
    with pytest.raises(UsageError, match="no token"):
        revoke_token(file, "shop")
    assert file.read_text() == "# the shop's\n"


def test_the_command_prints_a_token_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = f"serve.tokens_file={tmp_path / 'tokens'}"
    assert shortlist.run(["tokens", "new", "shop", "--role", "write", "--set", named]) == 0
    token = capsys.readouterr().out.strip()
    assert Gatekeeper(tmp_path / "tokens", pytest.fail).role_of(f"Bearer {token}".encode()) == "write"
    assert shortlist.run(["tokens", "list", "--set", named]) == 0
    assert capsys.readouterr().out == "shop  write\n"
    assert shortlist.run(["tokens", "revoke", "shop", "--set", named]) == 0
    assert read_tokens(tmp_path / "tokens") == []
    assert shortlist.run(["tokens", "list"]) == 2
    assert "serve.tokens_file names no file" in capsys.readouterr().err


def test_a_server_whose_tokens_file_is_not_there_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shortlist.run(["serve", "--set", f"serve.tokens_file={tmp_path / 'none'}"]) == 2
    assert "shortlist tokens new" in capsys.readouterr().err


def test_a_real_server_asks_for_tokens_and_the_client_has_one(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store")
    shop.publish("a")
    reader, writer = (add_token(tmp_path / "tokens", role, role) for role in ("read", "write"))
    server = Server(shop.root, tmp_path, 1, f"serve.tokens_file={tmp_path / 'tokens'}", "serve.host=0.0.0.0")
    try:
        url = f"http://127.0.0.1:{server.port}"
        with Client(url, timeout_seconds=60.0, token=reader) as client:
            assert client.recommend(RecommendRequest(user="u0")).items
            with pytest.raises(RoleError, match="wanted write"):
                client.post_events([PostedEvent(user="u0", item="a01", event="view")])
        with Client(url, timeout_seconds=60.0, token=writer) as client:
            assert client.post_events([PostedEvent(user="u0", item="a01", event="view")]) == 1
        for token in ("", "shortlist_nobody"):
            with Client(url, timeout_seconds=60.0, token=token) as client:
                with pytest.raises(NoTokenError):
                    client.recommend(RecommendRequest(user="u0"))
                with pytest.raises(NoTokenError):
                    client.version()
        assert not [line for line in server.lines() if "without tokens" in str(line["event"])]
    finally:
        server.end()


def test_a_server_that_is_open_to_the_network_says_so(tmp_path: Path) -> None:
    server = Server(tmp_path / "store", tmp_path, 1, "serve.host=0.0.0.0")
    try:
        assert [line for line in server.lines() if line["event"] == "open to the network without tokens"]
    finally:
        server.end()


def test_a_token_that_cannot_be_one_is_not_sent() -> None:
    for token in ("a b", "a\r\nX-Other: b", "ü"):
        with pytest.raises(RequestError):
            Client("http://127.0.0.1:1", token=token)
