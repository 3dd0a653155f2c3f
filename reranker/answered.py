"""An answer as a record of the log, and the request that a record came from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from reranker.arrays import Float32
from reranker.serving_log.records import AnswerRecord, ShownItems
from reranker.shown import Shown
from schemas.messages import Context, RecommendAnswer, RecommendRequest, SessionEvent


def record_of(
    request: RecommendRequest,
    ignored: Mapping[str, int],
    answer: RecommendAnswer,
    shown: Sequence[Shown],
    *,
    signals: list[str],
    k: int,
    now: float,
    settings: str,
    live: int,
    hasty_since: int,
    holdout: str,
    trending: str,
) -> AnswerRecord:
    """The record of an answer.

    Args:
        request: as used, the stored session in it.
        ignored: times that items had been shown, as used.
        signals: names of the columns of `Shown.signals`.
        k: how many items were wanted.
        shown: what `answer` has noted.
        now: the server's clock that the answer was made with.
        settings: the digest of those that decide an answer, see `deciding`.
        live: number of the last change of the live facts about items.
        hasty_since: see `Haste.since`.
        holdout: the user's.
        trending: the number of what was.
    """
    context = request.context
    return AnswerRecord(
        request_id=answer.request_id,
        user=request.user,
        time=now,
        version=answer.version,
        worker=os.getpid(),
        settings=settings,
        k=k,
        session=[(event.item, event.event, event.time) for event in request.session],
        live=live,
        ignored=dict(ignored),
        exclude=request.exclude,
        device=context.device,
        context_time=context.time,
        segment=context.segment,
        shown=ShownItems(
            items=[item.item for item in answer.items],
            rungs=[item.rung for item in answer.items],
            base_ranks=[item.base_rank for item in answer.items],
            scores=_bytes([part.scores for part in shown]),
            base_scores=_bytes([part.base_scores for part in shown]),
            signals=signals,
            values=_bytes([part.signals for part in shown]),
            propensities=_bytes([part.propensities for part in shown]),
            added=_added(shown),
        ),
        rung=answer.rung,
        topped_up_from=answer.topped_up_from,
        reason=answer.reason,
        stale=answer.stale,
        age_seconds=answer.age_seconds,
        ignored_events=answer.ignored_events,
        placement=request.placement,
        hasty_since=hasty_since,
        holdout=holdout,
        trending=trending,
    )


def request_of(record: AnswerRecord) -> RecommendRequest:
    """The request that leads to the recorded answer, on its version and by its clock."""
    return RecommendRequest(
        user=record.user,
        k=record.k,
        session=[SessionEvent(item=item, event=event, time=time) for item, event, time in record.session],
        context=Context(device=record.device, time=record.context_time, segment=record.segment),
        exclude=record.exclude,
        placement=record.placement,
    )


def facts_of(record: AnswerRecord) -> dict[str, Any]:
    """A record for people and programs: fields by name, numbers as numbers."""
    facts, shown = msgspec.structs.asdict(record), msgspec.structs.asdict(record.shown)
    shown |= {name: numbers(shown[name]).tolist() for name in ("scores", "base_scores", "propensities", "added")}
    shown["values"] = numbers(record.shown.values).reshape(-1, max(1, len(record.shown.signals))).tolist()
    return {**facts, "shown": shown}


def numbers(stored: bytes) -> Float32:
    """float32[n]: the numbers in a record's bytes."""
    return np.frombuffer(stored, "<f4")


def _added(shown: Sequence[Shown]) -> bytes:
    """Empty where nothing was added to any score."""
    if all(part.added is None for part in shown):
        return b""
    return _bytes([np.zeros(part.scores.size, np.float32) if part.added is None else part.added for part in shown])


def _bytes(parts: Sequence[Float32]) -> bytes:
    return parts[0].tobytes() if len(parts) == 1 else b"".join([part.tobytes() for part in parts])
