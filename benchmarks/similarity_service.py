"""The usual stack, doing the least of it: FastAPI, lists in Redis, vectors in numpy; only the session's similarity.

    python -m benchmarks.similarity_service FD REDIS_PORT VECTORS json|packed

No fallbacks, filters, log or sessions. `json`: lists as such services mostly keep them; `packed`: as arrays of numbers,
which is the best that can be done there.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import redis.asyncio as redis
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.echo_service import serve


class Event(BaseModel):
    """What the user has looked at."""

    item: str


class Wanted(BaseModel):
    """The request."""

    user: str
    k: int = 20
    session: list[Event] = []


class Found(BaseModel):
    """One item of the answer."""

    item: str
    score: float


class Answer(BaseModel):
    """The answer."""

    items: list[Found]


def service(redis_port: int, vectors_path: str, kind: str) -> FastAPI:
    vectors = np.load(vectors_path)
    index_of = {f"i{item:07}": item for item in range(len(vectors))}
    lists: Any = redis.Redis(port=redis_port)
    app = FastAPI()

    @app.post("/v1/recommend")
    async def recommend(wanted: Wanted) -> Answer:
        stored = await lists.get(f"{kind}:{wanted.user}")
        if kind == "packed":
            half = len(stored) // 2
            items, scores = np.frombuffer(stored[:half], np.int32), np.frombuffer(stored[half:], np.float32)
        else:
            listed = json.loads(stored)
            items = np.array([index_of[item] for item, _ in listed])
            scores = np.array([score for _, score in listed], np.float32)
        seen = vectors[[index_of[event.item] for event in wanted.session]].mean(axis=0)
        final = scores + vectors[items] @ seen
        best = np.argsort(-final)[: wanted.k]
        return Answer(items=[Found(item=f"i{items[at]:07}", score=final[at]) for at in best.tolist()])

    return app


if __name__ == "__main__":
    fd, redis_port, vectors_path, kind = sys.argv[1:]
    serve(service(int(redis_port), vectors_path, kind), int(fd))
