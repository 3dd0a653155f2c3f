"""A real server against its own OpenAPI document, by schemathesis: right requests and wrong ones, from a fixed seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.generation import GenerationMode
from serving_shop import Shop
from shop_server import Server, eventually

from reranker.tokens import add_token

EXAMPLES = {GenerationMode.POSITIVE: 15, GenerationMode.NEGATIVE: 25}
OPERATIONS = [
    ("POST", "/v1/recommend"),
    ("POST", "/v1/recommend/batch"),
    ("GET", "/v1/similar/{item}"),
    ("GET", "/v1/popular"),
    ("GET", "/v1/trending"),
    ("GET", "/v1/users/{user}/candidates"),
    ("POST", "/v1/events"),
    ("POST", "/v1/items"),
    ("GET", "/v1/items/{item}"),
    ("GET", "/v1/version"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
]


class Trial:
    """A server that wants tokens, and its document."""

    def __init__(self, server: Server, token: str) -> None:
        self.url = server.url
        self.server = server
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"
        self.schema = schemathesis.openapi.from_dict(self.session.get(f"{self.url}/openapi.json", timeout=60).json())


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("schemathesis")
    shop = Shop(folder / "store")
    shop.publish("a")
    token = add_token(folder / "tokens", "tester", "operate")
    server = Server(shop.root, folder, 1, f"serve.tokens_file={folder / 'tokens'}")
    try:
        eventually(lambda: requests.get(f"{server.url}/readyz", timeout=60).status_code == 200)
        found = Trial(server, token)
        with found.session:
            yield found
        assert not [line for line in server.lines() if line["level"] == "error"]
    finally:
        server.end()


def test_every_operation_of_the_document_is_tried(trial: Trial) -> None:
    paths = trial.schema.raw_schema["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_server_answers_as_its_document_says(trial: Trial, method: str, path: str) -> None:
    operation = trial.schema[path][method]
    has_input = operation.body or operation.path_parameters or operation.query
    for mode, examples in EXAMPLES.items() if has_input else [(GenerationMode.POSITIVE, 1)]:

        @seed(20261126)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case: schemathesis.Case) -> None:
            response = case.call(base_url=trial.url, session=trial.session)
            # To JSON Schema 5.0 is whole; the server, which wants a 5, says in the document that it does not take it.
            if not (response.status_code == 422 and b"got `float`" in response.content):
                case.validate_response(response)

        hold()
