"""What is wrong with a value of the configuration, in words: key and source, what was found and what was wanted."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from schemas.config import Config
from schemas.config_keys import free_table, schema, variable_of
from schemas.errors import ConfigError
from schemas.passwords import HIDDEN, hide, is_hidden

MAX_SHOWN = 80
"""Characters of a wrong value in a message."""


def checked(key: str, value: Any, field: FieldInfo, source: str) -> Any:
    """The value as its field has it. Raises ConfigError when it is of another type, or out of bounds."""
    is_entry = free_table(key) is not None  # checked as a table of one
    try:
        found = msgspec.convert({"": value} if is_entry else value, field.type)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at ")
        key, value, kind = _inside(key, value, field.type, place)
        raise ConfigError(f"{key} = {_shown(key, value)} (from {source}): {_wanted(reason, kind)}") from error
    found = found[""] if is_entry else found
    _require_shown(key, found, source)
    _require_finite(key, msgspec.to_builtins(found), source)
    return found


def converted(tree: Mapping[str, Any], sources: Mapping[str, str]) -> Config:
    """The configuration of a tree whose values are right one by one; a section may refuse them together."""
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at ")
        section = place.strip("`").removeprefix("$.")
        named = {f"{section}.{word}" for word in reason.split()}
        found = [f"{key} from {source}" for key, source in sources.items() if key in named]
        raise ConfigError(f"[{section}] ({', '.join(found)}): {reason}") from error


def unknown(key: str, source: str) -> ConfigError:
    """The error of a key that there is not, with the nearest one that there is."""
    return ConfigError(f"unknown key {key!r} (from {source}){_nearest(key)}", hint="shortlist config lists every key")


def _require_finite(key: str, value: Any, source: str) -> None:
    """Refuse what no bound keeps out and JSON cannot say."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for number in (value, *inner):
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{key} = {_shown(key, value)} (from {source}): wanted a finite number")


def _require_shown(key: str, value: Any, source: str) -> None:
    """Refuse what `shortlist config` prints for a password."""
    if isinstance(value, dict):
        for name, entry in value.items():
            _require_shown(f"{key}.{name}", entry, source)
    elif isinstance(value, str) and is_hidden(value):
        name = variable_of(free_table(key) or key)
        raise ConfigError(
            f"{key} (from {source}) has {HIDDEN} for its password or secret: shortlist config hides it",
            hint=f"write it there, or the whole in {name}",
        )


def _shown(key: str, value: Any) -> str:
    # A date is shown as it stands in TOML, without quotes: that they are missing is what is wrong.
    text = str(value) if isinstance(value, date) else json.dumps(hide(key, value), default=str)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _inside(key: str, value: Any, kind: Any, place: str) -> tuple[str, Any, Any]:
    """Key, value and kind of what is wrong in the value of a key, by the place that msgspec names: `$[1].action`."""
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        if name:
            kind = next(field.type for field in fields(kind) if field.name == name)
            key, value = f"{key}.{name}", value[name]
        else:
            (kind,) = get_args(_list_of(kind))
            key, value = f"{key}[{number}]", value[int(number)]
    return key, value, kind


def _wanted(reason: str, kind: Any) -> str:
    """msgspec's own words, said as a wish."""
    if get_origin(kind) is Union and ">=" not in reason:
        (word,) = (word for choice in get_args(kind) for word in get_args(choice) if isinstance(word, str))
        return f"wanted {'a number' if _list_of(kind) is kind else 'a list'} or {word!r}"
    if "matching regex" in reason:
        return f"wanted text like {kind.__metadata__[0].examples[0]!r}"
    if reason.startswith("Invalid enum value"):
        return "wanted one of " + ", ".join(map(repr, get_args(kind)))
    if reason.startswith("Object contains unknown field"):
        return f"{reason.removeprefix('Object contains ')}; wanted {', '.join(field.name for field in fields(kind))}"
    said = reason.replace("Expected", "wanted", 1).replace(", got", ", found", 1)
    said = said.replace("`object`", "a table").replace("`array`", "a list")
    is_dotted = get_origin(kind) is dict and said.endswith("found a table")
    return f"{said}; a name with dots in it stands in quotes" if is_dotted else said


def _list_of(kind: Any) -> Any:
    """The list among several kinds of which a value may be one; the kind itself where there is none."""
    return next((choice for choice in get_args(kind) if get_origin(choice) is list), kind)


def _nearest(key: str) -> str:
    keys = schema()
    for known in keys:
        if known.startswith(f"{key}."):
            return f": a section, with keys like {known!r}"
        if key.startswith(f"{known}.") and _holds_tables(keys[known]):
            return f": {known!r} is a list, and begins an entry with [[{known}]]"
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if not near:
        last = key.rsplit(".", 1)[-1]
        near = [known for known in keys if known.rsplit(".", 1)[-1] == last][:1]
    return f"; nearest known key: {near[0]!r}" if near else ""


def _holds_tables(field: FieldInfo) -> bool:
    """True for a list whose entries are tables: rules."""
    kind = next(iter(get_args(field.type)), None)
    return get_origin(field.type) is list and isinstance(kind, type) and issubclass(kind, msgspec.Struct)
