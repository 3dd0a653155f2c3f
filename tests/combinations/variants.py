"""The same asked in another way: what must stay as it is, and what may change."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from combinations.draws import Asked
from combinations.expected import Expected
from combinations.judge import ARRIVALS, others, wanted
from combinations.serving import Answered, Serving
from reranker.diversity import MMR_AMONG
from reranker.replay import differences
from schemas.messages import AnsweredItem, RecommendRequest, SessionEvent

NEAR = 2e-4
"""As far as scores of the kernel and of numpy may lie apart, of weights of about 1: sums of products in another
order."""
Variant = Callable[[Serving, Expected, Answered, random.Random], Iterator[str]]


def again(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """The same request gives the same answer, explained or not."""
    once_more = server.answer(expected.asked)
    if once_more.answer != found.answer:
        yield "another answer to the same request"
    yield from differences(found.record, once_more.record)
    other = server.answer(_asking(expected, explain=not expected.asked.request.explain))
    yield from differences(found.record, other.record)


def replayed(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """What the log leads to is equal bit for bit."""
    yield from server.replayed(found.record, expected.asked)


def by_a_new_server(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """What is kept from one request to the next changes nothing."""
    with server.without_what_is_kept():
        other = server.answer(expected.asked)
    yield from differences(found.record, other.record)


def in_numpy(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """Without the kernel the answer is the same, but for what lies within a rounding."""
    with server.without_kernel():
        other = server.answer(expected.asked)
    yield from _alike(found.answer.items, other.answer.items)


def shuffled(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """The order of events that have times of their own says nothing."""
    session = expected.asked.request.session
    times = [event.time for event in session]
    if None in times or len({*times}) < len(times) or max(times, default=0.0) > expected.moment:  # type: ignore[type-var]
        return
    other = server.answer(_asking(expected, session=dice.sample(session, len(session))))
    yield from differences(found.record, other.record)


def with_unknown_events(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """An event of what no version knows changes nothing, but is counted."""
    session = [*expected.asked.request.session, SessionEvent(item="never heard of", event="cart")]
    other = server.answer(_asking(expected, session=session)).answer
    if other != msgspec.structs.replace(found.answer, ignored_events=found.answer.ignored_events + 1):
        yield "an event of an unknown item changes the answer"


def with_more_exclusions(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """To exclude what is not shown, or not there, or excluded already, changes nothing where chance has no say."""
    order = expected.settings.config.serve.order
    # Diversity looks at so many of the best only: without some of them others are among these.
    if order.explore_positions or (order.diversity and len(expected.world.items) > MMR_AMONG):
        return
    shown, exclude = {item.item for item in found.answer.items}, expected.asked.request.exclude
    left = [item for item in [*expected.world.ids, *expected.world.arrivals] if item not in shown]
    yield from _same(server, expected, found, exclude=[*exclude, *exclude, "never heard of"])
    if left and others(found.answer):  # where arrivals are all, what is left tells on which rung they are
        yield from _same(server, expected, found, exclude=[*exclude, *dice.sample(left, min(3, len(left)))])


def hidden_for_excluded(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """What is hidden within the day is as good as excluded."""
    shown = [item.item for item in found.answer.items]
    if not shown:
        return
    item = dice.choice(shown)
    excluded = server.answer(_asking(expected, exclude=[*expected.asked.request.exclude, item]))
    with server.hidden(item):
        hidden = server.answer(expected.asked)
    if item in {one.item for one in excluded.answer.items}:
        yield f"{item} is excluded, and shown"
    yield from (f"{item} hidden for excluded: {what}" for what in differences(excluded.record, hidden.record))
    yield from (f"{item} hidden and not any more: {what}" for what in server.replayed(found.record, expected.asked))


def longer(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """A longer answer begins with the shorter one, where nothing further down has a place of its own."""
    order = expected.settings.config.serve.order
    most, k = expected.settings.config.serve.max_k, wanted(expected)
    if any(position > k for position, _ in expected.pins()) or order.explore_positions:
        return
    other = server.answer(_asking(expected, k=most))
    arrived = {item.item for item in found.answer.items if item.rung == ARRIVALS}
    if order.caps and any(item.rung == ARRIVALS and item.item not in arrived for item in other.answer.items):
        return  # they count first
    if other.answer.items[: len(found.answer.items)] != found.answer.items:
        yield f"of {most} items the first {k} are others: {_ids(other.answer.items)} for {_ids(found.answer.items)}"
    if len(others(other.answer)) > len(others(found.answer)) and len(found.answer.items) < k:
        yield f"{len(found.answer.items)} of {k}, but {len(other.answer.items)} of {most}"


def as_nobody(server: Serving, expected: Expected, found: Answered, dice: random.Random) -> Iterator[str]:
    """Whoever is in a holdout gets an answer in which neither session, chance nor anything that ranks has a part."""
    if not expected.asked.holdout:
        return
    asked = expected.asked
    silent = [
        SessionEvent(item=event.item, event=event.event, time=event.time)
        for event in sorted(asked.request.session, key=lambda event: event.item)
    ]
    request = msgspec.structs.replace(asked.request, session=silent)
    other = server.answer(replace(asked, request=request, ignored={}, since=-1, trending=None, request_id="other"))
    for what in differences(found.record, msgspec.structs.replace(other.record, hasty_since=found.record.hasty_since)):
        yield f"in a holdout: {what}"
    if any(item.rung not in ("stored_order", "segment", "popular") for item in found.answer.items):
        yield f"in a holdout: rungs {[item.rung for item in found.answer.items]}"


EVERY: Final[Sequence[Variant]] = (
    again,
    replayed,
    by_a_new_server,
    in_numpy,
    shuffled,
    with_unknown_events,
    with_more_exclusions,
    hidden_for_excluded,
    longer,
    as_nobody,
)


def _asking(expected: Expected, **changed: Any) -> Asked:
    request: RecommendRequest = msgspec.structs.replace(expected.asked.request, **changed)
    return replace(expected.asked, request=request)


def _same(server: Serving, expected: Expected, found: Answered, **changed: Any) -> Iterator[str]:
    other = server.answer(_asking(expected, **changed))
    yield from (f"with {changed}: {what}" for what in differences(found.record, other.record))


def _alike(found: Sequence[AnsweredItem], in_numpy: Sequence[AnsweredItem]) -> Iterator[str]:
    """Scores agree, place by place, and so do items but where two score the same."""
    if len(found) != len(in_numpy):
        yield f"{len(found)} items by the kernel, {len(in_numpy)} in numpy"
    for one, other in zip(found, in_numpy, strict=False):
        if abs(one.score - other.score) > NEAR * (1 + abs(one.score)):
            yield f"at {one.rank} {one.item} with {one.score} by the kernel, {other.item} with {other.score} in numpy"
            return
        if one.item != other.item and (one.rung == ARRIVALS or abs(one.score - other.score) > NEAR):
            yield f"at {one.rank} {one.item} by the kernel, {other.item} in numpy"
            return


def _ids(items: Sequence[AnsweredItem]) -> list[str]:
    return [item.item for item in items]
