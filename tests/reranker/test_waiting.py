"""The line in which requests wait: in order, no longer than a time, and heard between slices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from asgi_client import AsgiClient
from serving_shop import Shop

from reranker.app import create_app
from reranker.errors import OverloadedError
from reranker.waiting import FIRST_GUESS_SECONDS, SLICE_SECONDS, Waiting
from schemas.messages import RecommendAnswer


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:
        runner.run(work)


def nothing() -> None:
    """Work that takes no time."""


def busy_for(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_work_is_done_in_the_order_in_which_it_came() -> None:
    async def check() -> None:
        waiting, done = Waiting(10.0), list[int]()
        for number in range(50):
            waiting.put(lambda number=number: done.append(number))  # type: ignore[misc]
        await waiting.turn(nothing)
        assert done == list(range(50))

    run(check())


def test_who_would_wait_too_long_is_turned_away_and_who_comes_later_is_not() -> None:
    async def check() -> None:
        waiting = Waiting(3.5 * FIRST_GUESS_SECONDS)
        for _ in range(4):
            assert not waiting.is_full
            waiting.put(nothing)
        assert waiting.is_full
        with pytest.raises(OverloadedError):
            await waiting.turn(nothing)
        await waiting.turn(nothing, is_admitted=True)
        assert not waiting.is_full
        assert await waiting.turn(lambda: 7) == 7

    run(check())


def test_a_batch_that_was_let_in_is_answered_whole(stocked_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"user": "u0", "k": 3}
    with AsgiClient(create_app(stocked_shop.config("log.answers=false"))) as client:
        service = client._state["service"]
        answered = service.reranker.recommend_checked

        def and_then_full(*given: Any, **named: Any) -> RecommendAnswer:
            service.waiting._max_seconds = -1.0
            answer: RecommendAnswer = answered(*given, **named)
            return answer

        monkeypatch.setattr(service.reranker, "recommend_checked", and_then_full)
        reply = client.post("/v1/recommend/batch", {"requests": [one] * 3})
        assert (reply.status, len(reply.json()["answers"])) == (200, 3)
        assert client.post("/v1/recommend/batch", {"requests": [one]}).status == 503


def test_the_line_is_as_long_as_the_work_allows() -> None:
    async def check() -> None:
        admitted = []
        for seconds in (0.0, 0.005):
            waiting = Waiting(0.1)
            for _ in range(60):
                await waiting.turn(lambda seconds=seconds: busy_for(seconds))
            admitted.append(0)
            while not waiting.is_full and admitted[-1] < 1_000:
                waiting.put(nothing)
                admitted[-1] += 1
        quick, slow = admitted
        assert slow < 25
        assert quick > 4 * slow

    run(check())


def test_one_hiccup_turns_nobody_away() -> None:
    async def check() -> None:
        waiting = Waiting(0.2)
        await waiting.turn(lambda: busy_for(0.3))
        for _ in range(100):
            waiting.put(nothing)
        assert not waiting.is_full
        await waiting.turn(nothing)

    run(check())


def test_others_are_heard_between_slices() -> None:
    async def check() -> None:
        waiting, log = Waiting(10.0), list[str]()
        for _ in range(3):
            waiting.put(lambda: (busy_for(2 * SLICE_SECONDS), log.append("work"))[0])
        asyncio.get_running_loop().call_soon(log.append, "other")
        await waiting.turn(nothing)
        assert log == ["work", "other", "work", "work"]

    run(check())


def test_work_that_raises_against_its_word_holds_nobody_up() -> None:
    async def check() -> None:
        waiting, told = Waiting(10.0), list[object]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

        def fail() -> None:
            raise KeyError("no")

        waiting.put(fail)
        assert await waiting.turn(lambda: 1) == 1
        assert [type(error) for error in told] == [KeyError]

    run(check())


def test_what_work_raises_is_raised_where_it_is_awaited_and_the_next_goes_on() -> None:
    async def check() -> None:
        waiting = Waiting(10.0)

        def fail() -> None:
            raise KeyError("no")

        with pytest.raises(KeyError):
            await waiting.turn(fail)
        assert await waiting.turn(lambda: 1) == 1

    run(check())
