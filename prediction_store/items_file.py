"""Changes of items from a file: JSON lines as `POST /v1/items` takes them, or CSV with the same names as columns.

All of a file is read before anything is changed, and an error names the line.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.errors import UsageError
from schemas.live_items import EARLIEST_END, FACTS, TEXTS, ItemChange
from schemas.messages import MAX_ID_BYTES

CLEAR: Final = "none"
TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_changes(path: Path) -> list[ItemChange]:
    """The changes in a .jsonl or .csv file, in their order.

    Raises:
        UsageError: it is neither, cannot be read, or a line is not a change of an item.
    """
    readers = {".jsonl": _json_lines, ".csv": _csv_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is neither .jsonl nor .csv")
    try:
        return [_change_at(line, fields) for line, fields in reader(path)]
    except _LineError as error:
        raise UsageError(f"{path}, line {error.line}: {error.message}; nothing was changed") from error
    except OSError as error:
        raise UsageError(f"reading {path}: {error.strerror or error}") from error


def to_change(fields: dict[str, Any]) -> ItemChange:
    """The change that plain values make. Raises UsageError when they make none."""
    try:
        change = msgspec.convert(fields, ItemChange)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error
    for name in ("item", *TEXTS):
        text = getattr(change, name)
        if isinstance(text, str) and not _is_text(text):
            raise UsageError(f"{name} {text[:64]!r} is not text in UTF-8")
    n_bytes = len(change.item.encode("utf-8"))
    if n_bytes > MAX_ID_BYTES:
        raise UsageError(f"item {change.item[:64]!r} has {n_bytes} bytes in UTF-8; wanted at most {MAX_ID_BYTES}")
    if change.is_empty:
        raise UsageError(f"it says nothing about item {change.item[:64]!r}; wanted one of {', '.join(FACTS)}")
    return change


def to_time(text: str) -> float | None:
    """UTC epoch seconds from a number or an ISO time, in UTC if it names no zone; None for "none".

    Raises:
        UsageError: it is none of these.
    """
    if text == CLEAR:
        return None
    wanted = "wanted epoch seconds, a time like 2026-11-22T18:00, or none"
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if 0 <= seconds < EARLIEST_END:  # the day 20261122, or a year
            moment = datetime.fromtimestamp(seconds, UTC)
            raise UsageError(f"{text} is {moment:%Y-%m-%d %H:%M} in epoch seconds; {wanted}")
        if seconds >= EARLIEST_END:
            return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time; {wanted}") from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def to_text(text: str) -> str | None:
    """What an item is, as it stands; None for "none"."""
    return None if text == CLEAR else text


def to_price(text: str) -> float | None:
    """A price; None for "none". Raises UsageError when it is no number."""
    if text == CLEAR:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a price; wanted a number, or none") from error


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _LineError(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


def _change_at(line: int, fields: dict[str, Any]) -> ItemChange:
    try:
        return to_change(fields)
    except UsageError as error:
        raise _LineError(line, error.message) from error


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
                except (ValueError, RecursionError) as error:
                    raise _LineError(number, f"it is not JSON in UTF-8: {error}") from error


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    data = path.read_bytes()
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    except UnicodeDecodeError as error:
        raise _LineError(data.count(b"\n", 0, error.start) + 1, f"it is not CSV in UTF-8: {error}") from error
    try:
        columns = next(rows, [])
        strange = sorted(set(columns) - {"item", *FACTS})
        if "item" not in columns or strange or len(set(columns)) < len(columns):
            wanted = f"wanted item, and some of {', '.join(FACTS)}, each once"
            raise _LineError(1, f"its columns are {', '.join(columns) or 'none'}; {wanted}")
        for row in rows:
            if not row:
                continue
            if len(row) != len(columns):
                raise _LineError(rows.line_num, f"it has {len(row)} cells; wanted {len(columns)}")
            cells = zip(columns, row, strict=True)
            yield rows.line_num, {name: _value(name, cell) for name, cell in cells if cell.strip() or name == "item"}
    except csv.Error as error:
        raise _LineError(rows.line_num, f"it is not CSV: {error}") from error
    except UsageError as error:
        raise _LineError(rows.line_num, error.message) from error


def _value(name: str, cell: str) -> Any:
    if name == "item":
        return cell  # an id is what it is, blanks included
    cell = cell.strip()
    if name == "price":
        return to_price(cell)
    if name == "available_until":
        return to_time(cell)
    if name in TEXTS:
        return to_text(cell)
    if cell == CLEAR:
        return None
    if cell.lower() not in TRUTHS:
        raise UsageError(f"{name} is {cell!r}; wanted true, false or none")
    return TRUTHS[cell.lower()]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is given twice")
    return fields
