"""The keys of the configuration: every leaf of its sections by a dotted name, and the environment's name for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from schemas.config import Config

ENVIRONMENT_PREFIX = "SHORTLIST_"


@cache  # made once: to make it takes longer than all else a short verb does
def schema() -> dict[str, FieldInfo]:
    """Dotted key to field, for every leaf."""
    return dict(_fields_under(Config))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf of a tree as TOML has it; whether there is such a key is not asked."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in _free_tables():
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


@cache
def _free_tables() -> list[str]:
    """The keys whose value is a table of free names: event weights, Spark settings."""
    return [key for key, field in schema().items() if get_origin(field.type) is dict]


def free_table(key: str) -> str | None:
    """The table of free names that a key is one entry of; None: it is no such entry."""
    return next((table for table in _free_tables() if key.startswith(f"{table}.")), None)


def variable_of(key: str) -> str:
    """The environment variable of a key."""
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def _fields_under(kind: type, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for field in fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _fields_under(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field
