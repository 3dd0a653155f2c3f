"""Where in a body stands what the parser of requests cannot name: a key twice, or a value that JSON does not have.

That parser is fast. It keeps the last of two equal keys, and of NaN or of half a character it says at most the byte.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

TWICE: Final = "is given twice"
NO_TEXT: Final = "is not text that UTF-8 can hold"
_PLAIN: Final = {int, float, bool, type(None)}


class Fault(NamedTuple):
    """What is wrong with one field."""

    field: str
    """As in all errors: `session[0].item`."""
    problem: str
    """A sentence without its subject."""


class _Object(list[tuple[str, Any]]):
    """An object of JSON with all of its keys."""


class _Constant(str):
    """A word that Python's parser takes for a number."""

    __slots__ = ()


def fault_in(body: bytes) -> Fault | None:
    """The first fault of a body; None: it has none, or is not even the grammar of JSON, or too deep to look into."""
    try:
        text = body.decode(errors="surrogateescape")
        return fault_of(json.loads(text, object_pairs_hook=_Object, parse_constant=_Constant))
    except (ValueError, RecursionError):
        return None


def fault_of(tree: Any) -> Fault | None:
    """The first fault of a value made of lists, dictionaries and the like."""
    found = _search(tree)
    if not found:
        return None
    problem, *path = found
    return Fault("".join(reversed(path)).removeprefix("."), problem)


def _search(value: Any) -> list[str]:
    """What is wrong with a value or with one in it, then the way to it, the last step first; empty: nothing."""
    if isinstance(value, _Constant):
        return [f"is {value}, which JSON does not have"]
    if isinstance(value, str):
        return [] if _is_text(value) else [NO_TEXT]
    if isinstance(value, (dict, _Object)):
        return _search_object(value)
    return _search_list(value) if isinstance(value, list) else []


def _search_object(value: dict[str, Any] | _Object) -> list[str]:
    seen = set()
    for name, entry in value.items() if isinstance(value, dict) else value:
        if not _is_text(name):
            return [NO_TEXT, f".{name.encode(errors='backslashreplace').decode()}"]
        found = [TWICE] if name in seen else _search(entry)
        if found:
            return [*found, f".{name}"]
        seen.add(name)
    return []


def _search_list(value: list[Any]) -> list[str]:
    for place, entry in enumerate(value):
        kind = type(entry)
        if kind in _PLAIN or (kind is str and entry.isascii()):
            continue  # there may be many: whoever sends nonsense must not get much of a worker's time for it
        found = _search(entry)
        if found:
            return [*found, f"[{place}]"]
    return []


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
