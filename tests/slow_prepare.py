"""`prepare` the slow and obvious way: dictionaries and loops, and only the words of its reasons are the job's."""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from typing import Any

from schemas.config import Config


def seconds(value: Any, unit: str = "auto") -> int | None:
    """A time as epoch seconds, the way a person would read it."""
    if value is None:
        return None
    text = str(value).strip()
    number = float(text) if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) else math.nan
    found: float | None = None
    if math.isfinite(number) and unit != "iso":
        in_milliseconds = unit == "milliseconds" or (unit == "auto" and number >= 1e11)
        found = math.floor(number / 1000) if in_milliseconds else math.floor(number)
    elif unit in {"iso", "auto"} and re.match(r"\d{4}-\d{2}-\d{2}([T ]|$)", text, re.ASCII):
        try:
            moment = datetime.datetime.fromisoformat(text.replace(" UTC", "+00:00").replace("UTC", "+00:00"))
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        found = math.floor(moment.timestamp())
    return int(found) if found is not None and 0 <= found < 1e11 else None


def fault(identity: Any, noun: str) -> str | None:
    """Why an id is malformed."""
    if identity is None or identity == "":
        return f"the {noun} is missing"
    if "\ufffd" in str(identity) or "\udcff" in str(identity):
        return f"the {noun} is not UTF-8"
    if len(str(identity).encode()) > 511:
        return f"the {noun} is longer than 511 bytes"
    return None


def status(row: dict[str, Any], config: Config, made_at: int) -> str:
    """What becomes of one raw row of interactions."""
    data = config.data.interactions
    if "damaged" in row:
        return "the row has the wrong number of columns"
    since = made_at - config.data.history_days * 86_400 if config.data.history_days else 0
    time = seconds(row[data.time], data.time_unit)
    event = row[data.event] if data.event else data.default_event
    wrong = fault(row[data.user], "user id") or fault(row[data.item], "item id")
    if wrong:
        return wrong
    if not event:
        return "the event type is missing"
    if event not in data.event_weights:
        return "the event type has no weight"
    if time is None:
        return "the time cannot be read, or is before 1970"
    return "later" if time >= made_at else "older" if time < since else ""


def prepare(
    rows: list[dict[str, Any]],
    config: Config,
    made_at: int,
    items: dict[str, dict[str, Any]] | None = None,
    users: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The prepared tables as lists of tuples, with the counts."""
    data = config.data.interactions
    found = [(row, status(row, config, made_at)) for row in rows]
    valid = [
        (
            str(row[data.user]),
            str(row[data.item]),
            row[data.event] if data.event else data.default_event,
            seconds(row[data.time], data.time_unit),
            _text(row.get(data.session)),
            _text(row.get(data.device)),
        )
        for row, state in found
        if state == ""
    ]
    unique = {row for row in valid if row[4] or not any(row[:4] + row[5:] == r[:4] + r[5:] and r[4] for r in valid)}
    kept = core(sorted(unique, key=str), config.data.min_user_interactions, config.data.min_item_interactions)
    user_ids = sorted({row[0] for row in kept} | set(users or {}), key=lambda text: text.encode())
    item_ids = sorted({row[1] for row in valid} | set(items or {}), key=lambda text: text.encode())
    interactions = []
    for row, part in split(kept, config, made_at):
        user, item, event, time, session, device = row
        weight, consumed = data.event_weights[event], event in data.consumed_events
        place = (user_ids.index(user), item_ids.index(item))
        interactions.append((*place, event, weight, time, session, device, consumed, part))
    train = [row for row in interactions if row[-1] == 0 and row[3] > 0]
    return {
        "interactions": sorted(interactions, key=str),
        "items": [(n, item, sum(row[1] == n for row in train)) for n, item in enumerate(item_ids)],
        "users": [(n, user, sum(row[0] == n for row in train)) for n, user in enumerate(user_ids)],
        "statuses": Counter(state for _, state in found),
        "duplicates": len(valid) - len(unique),
    }


def core(rows: list[tuple[Any, ...]], min_user: int, min_item: int) -> list[tuple[Any, ...]]:
    """Take away one too rare user or item at a time until there is none."""
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        rare_user = next((user for user, n in users.items() if n < min_user), None)
        rare_item = next((item for item, n in items.items() if n < min_item), None)
        if rare_user is not None:
            rows = [row for row in rows if row[0] != rare_user]
        elif rare_item is not None:
            rows = [row for row in rows if row[1] != rare_item]
        else:
            return rows


def split(rows: list[tuple[Any, ...]], config: Config, made_at: int) -> list[tuple[tuple[Any, ...], int]]:
    """(row, 0 train, 1 validation, 2 test)."""
    how = config.split
    if how.strategy == "time":
        test_from = made_at - how.test_days * 86_400
        validation_from = test_from - how.validation_days * 86_400
        return [(row, 2 if row[3] >= test_from else 1 if row[3] >= validation_from else 0) for row in rows]
    out = []
    for user in {row[0] for row in rows}:
        mine = sorted(
            (row for row in rows if row[0] == user),
            key=lambda r: (r[3], r[1].encode(), r[2], (r[4] is not None, r[4] or ""), (r[5] is not None, r[5] or "")),
        )
        tests, held_out = how.test_per_user, how.test_per_user + how.validation_per_user
        says = [config.data.interactions.event_weights[row[2]] > 0 for row in mine]
        for at, row in enumerate(mine):
            place = sum(says[at + 1 :])
            out.append((row, 0 if sum(says) <= held_out or place >= held_out else 2 if place < tests else 1))
    return out


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
