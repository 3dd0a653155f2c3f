"""Read the configuration once, say where each value came from, and name what is wrong with it.

Later sources win: default, the file, the environment (SHORTLIST_SECTION__KEY), `--set section.key=value`.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from schemas.config import Config
from schemas.errors import ConfigError
from schemas.passwords import HIDDEN, hide, is_hidden

DEFAULT_FILE = "shortlist.toml"
ENVIRONMENT_PREFIX = "SHORTLIST_"
PATH_KEYS = (
    "paths.workspace",
    "paths.store",
    "paths.events",
    "paths.sessions",
    "serve.tokens_file",
    "simulate.output",
    "data.interactions.path",
    "data.interactions.serving_log",
    "data.items.path",
    "data.users.path",
)
"""Keys that hold a path; a relative one is taken from the folder of the configuration file."""
MAX_SHOWN = 80
"""Characters of a wrong value in a message."""


class Loaded(msgspec.Struct, frozen=True):
    """The effective configuration, and for every key the source of its value."""

    config: Config
    sources: dict[str, str]
    file: str = ""


def load_config(
    path: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Config:
    """The effective configuration with absolute paths. See `load`."""
    return load(path, overrides, environ).config


def load(path: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read the file at `path` (or shortlist.toml in this folder, if it exists) and put the other sources on top.

    Raises:
        ConfigError: the file is missing or is not TOML; or a key is unknown, mistyped or out of range. The
            message names the key, its value, its source and what was wanted.
    """
    file = _find(path)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if file is not None:
        for key, value in _read(file):
            values[key], sources[key] = value, file.name
    texts = [*_from_environment(environ), *_from_command_line(overrides)]
    for key, text, source in texts:
        values[key], sources[key] = text, source
    to_parse, schema = {key for key, _, _ in texts}, _schema()
    # From the defaults on: of a section whose default depends on its place, one key may be set and the others stay.
    tree: dict[str, Any] = msgspec.to_builtins(Config())
    for key, value in values.items():
        table = _free_table(key)
        field = schema.get(table or key)
        if field is None:
            raise ConfigError(
                f"unknown key {key!r} (from {sources[key]}){_nearest(key, schema)}",
                hint="shortlist config lists every key",
            )
        kind = field.type if table is None else get_args(field.type)[1]
        found = _parse(value, kind) if key in to_parse else value
        _put(tree, key, _checked(key, found, field, sources[key]))
        if table is not None:
            sources[table] = f"{sources[table]}, {sources[key]}" if table in sources else sources[key]
    base = _working_folder() if file is None else file.parent.resolve()
    config = _converted(tree, sources)
    for key in schema:
        sources.setdefault(key, "default")
    return Loaded(_absolute(config, base), sources, str(file) if file else "")


def flatten(config: Config) -> list[tuple[str, Any]]:
    """Every key with its value as plain Python, in the order of the sections."""
    return [(key, msgspec.to_builtins(_get(config, key))) for key in _schema()]


def misspelled(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that look like a setting and are none for want of an underscore, each with the name that is read.

    They are no error: Kubernetes makes SHORTLIST_SERVE_PORT for a service that is called shortlist-serve.
    """
    names = [name for name in sorted(environ) if name.startswith(ENVIRONMENT_PREFIX) and "__" not in name]
    if not names:  # as mostly; to make the schema takes a while
        return []
    right = {_variable(key).replace("__", "_"): _variable(key) for key in _schema()}
    return [(name, right[name]) for name in names if name in right]


def _variable(key: str) -> str:
    """The environment variable of a key."""
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def _find(path: Path | None) -> Path | None:
    file = Path(DEFAULT_FILE) if path is None else path
    with _translated(file):
        if file.is_file():
            return file
        if path is None and not file.exists() and not file.is_symlink():
            return None
        problem = "is no file" if file.exists() else "is not there"
    or_none = "" if path is None else ", or leave the option out"
    raise ConfigError(f"the configuration file {file} {problem}", hint=f"name another with --config{or_none}")


def _working_folder() -> Path:
    try:
        return Path.cwd().resolve()
    except OSError as error:  # it has been removed, say
        raise ConfigError(f"the working folder cannot be read: {error.strerror}", hint="cd to another one") from error


def _read(file: Path) -> list[tuple[str, Any]]:
    """Every key of a file with its value."""
    try:
        with _translated(file):
            return list(_leaves(tomllib.loads(file.read_text(encoding="utf-8-sig"))))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file} is not text in UTF-8 (at line {line})", hint="save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # nested too deeply, or a number of too many digits, included
        raise ConfigError(f"{file} is not valid TOML: {error}") from error


@contextlib.contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"the configuration file {file} cannot be read: {error.strerror}") from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name, text in sorted(environ.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            yield name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), text, f"environment {name}"


def _from_command_line(overrides: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override!r} has no value: wanted section.key=value")
        yield key.strip(), text, "--set"


def _parse(text: str, kind: Any) -> Any:
    """A value as TOML would read it, else plain text, so that --set split.strategy=per_user needs no quotes; nor does
    what reads as a date or a number where text is wanted."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    wants_text = getattr(kind, "__origin__", kind) is str  # bare or annotated
    return text if wants_text and not isinstance(value, str) else value


@cache  # made once: to make it takes longer than all else a short verb does
def _schema() -> dict[str, FieldInfo]:
    """Dotted key to field, for every leaf."""
    return dict(_fields_under(Config))


def _fields_under(kind: type, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for field in fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _fields_under(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in _free_tables():
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


@cache
def _free_tables() -> list[str]:
    """The keys whose value is a table of free names: event weights, Spark settings."""
    return [key for key, field in _schema().items() if get_origin(field.type) is dict]


def _free_table(key: str) -> str | None:
    """The table of free names that a key is one entry of; None: it is no such entry."""
    return next((table for table in _free_tables() if key.startswith(f"{table}.")), None)


def _checked(key: str, value: Any, field: FieldInfo, source: str) -> Any:
    is_entry = _free_table(key) is not None  # checked as a table of one
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
        name = _variable(_free_table(key) or key)
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
            (kind,) = get_args(kind)
            key, value = f"{key}[{number}]", value[int(number)]
    return key, value, kind


def _converted(tree: Mapping[str, Any], sources: Mapping[str, str]) -> Config:
    """The configuration of a tree whose values are right one by one; a section may refuse them together."""
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at ")
        section = place.strip("`").removeprefix("$.")
        named = {f"{section}.{word}" for word in reason.split()}
        found = [f"{key} from {source}" for key, source in sources.items() if key in named]
        raise ConfigError(f"[{section}] ({', '.join(found)}): {reason}") from error


def _wanted(reason: str, kind: Any) -> str:
    """msgspec's own words, said as a wish."""
    if get_origin(kind) is Union and ">=" not in reason:
        (word,) = (word for choice in get_args(kind) for word in get_args(choice) if isinstance(word, str))
        return f"wanted a number or {word!r}"
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


def _nearest(key: str, schema: Mapping[str, FieldInfo]) -> str:
    for known in schema:
        if known.startswith(f"{key}."):
            return f": a section, with keys like {known!r}"
        if key.startswith(f"{known}.") and _holds_tables(schema[known]):
            return f": {known!r} is a list, and begins an entry with [[{known}]]"
    near = difflib.get_close_matches(key, schema, n=1, cutoff=0.5)
    if not near:
        last = key.rsplit(".", 1)[-1]
        near = [known for known in schema if known.rsplit(".", 1)[-1] == last][:1]
    return f"; nearest known key: {near[0]!r}" if near else ""


def _holds_tables(field: FieldInfo) -> bool:
    """True for a list whose entries are tables: rules."""
    kind = next(iter(get_args(field.type)), None)
    return get_origin(field.type) is list and isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set one leaf. Requires: the tree has every section."""
    table = _free_table(key)
    *folders, last = (table or key).split(".")
    for folder in folders:
        tree = tree[folder]
    # Of a table of free names the entries beside this one stay.
    tree[last] = value if table is None else {**tree[last], key.removeprefix(f"{table}."): value}


def _get(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def _absolute(config: Config, base: Path) -> Config:
    tree = msgspec.to_builtins(config)
    for key in PATH_KEYS:
        text = _get(config, key)
        if "\0" in text:
            raise ConfigError(f"{key} = {text!r}: a path has no null byte")
        if text:
            try:
                path = str(base / Path(text).expanduser())
                path.encode()  # LMDB wants it so
            except RuntimeError as error:
                raise ConfigError(f"{key} = {text!r}: there is no such home folder") from error
            except UnicodeEncodeError as error:
                raise ConfigError(f"{key} = {path!r}: a path is wanted whose bytes are UTF-8") from error
            _put(tree, key, path)
    return msgspec.convert(tree, Config)
