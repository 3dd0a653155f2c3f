"""What tests of arrivals do: items are announced, users read them, and somebody asks."""

from __future__ import annotations

from typing import Any

import pytest
from asgi_client import AsgiClient
from serving_shop import MADE_AT, Shop

from reranker.serving_log.reading import read_log
from reranker.serving_log.records import AnswerRecord
from reranker.trending_now import REFRESH_SECONDS

NOW = float(MADE_AT + 600)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now

    def pass_by(self) -> None:
        """Until what is trending is looked up again."""
        self.now += REFRESH_SECONDS


def announce(client: AsgiClient, *items: str, **facts: Any) -> dict[str, Any]:
    reply = client.post("/v1/items", {"items": [{"item": item, "in_stock": True, **facts} for item in items]})
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    return found


def read(client: AsgiClient, counts: dict[str, int], kind: str = "view") -> None:
    """So many users do something with each item."""
    events = [
        {"user": f"reader {user}", "item": item, "event": kind} for item, many in counts.items() for user in range(many)
    ]
    assert client.post("/v1/events", {"events": events}).status == 200


def asked(client: AsgiClient, user: str = "u0", **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/recommend", {"user": user, "k": 6, **fields})
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    assert [item["rank"] for item in found["items"]] == [*range(1, len(found["items"]) + 1)]
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item"] for item in answer["items"]]


def shown(shop: Shop) -> list[str]:
    return [item for item in shop.list_of("u0") if shop.in_stock(item)]


def answers(shop: Shop) -> list[AnswerRecord]:
    return [record for record in read_log(shop.root / "events", pytest.fail) if isinstance(record, AnswerRecord)]
