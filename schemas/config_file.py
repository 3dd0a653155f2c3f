"""Read the configuration once, and say where each value came from; `config_check` names what is wrong with one.

Later sources win: default, the file, the environment (SHORTLIST_SECTION__KEY), `--set section.key=value`.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from schemas.config import Config
from schemas.config_check import checked, converted, unknown
from schemas.config_keys import ENVIRONMENT_PREFIX, free_table, leaves, schema, variable_of
from schemas.errors import ConfigError

DEFAULT_FILE = "shortlist.toml"
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
        # The later one is applied later, and a whole table takes the place of the entries before.
        for before in [known for known in values if f"{known}.".startswith(f"{key}.")]:
            del values[before]
        values[key], sources[key] = text, source
    to_parse = {key for key, _, _ in texts}
    # From the defaults on: of a section whose default depends on its place, one key may be set and the others stay.
    tree: dict[str, Any] = msgspec.to_builtins(Config())
    for key, value in values.items():
        table = free_table(key)
        field = schema().get(table or key)
        if field is None:
            raise unknown(key, sources[key])
        kind = field.type if table is None else get_args(field.type)[1]
        found = _parse(value, kind) if key in to_parse else value
        _put(tree, key, checked(key, found, field, sources[key]))
        if table is not None:
            sources[table] = f"{sources[table]}, {sources[key]}" if table in sources else sources[key]
    base = _working_folder() if file is None else file.parent.resolve()
    config = converted(tree, sources)
    for key in schema():
        sources.setdefault(key, "default")
    return Loaded(_absolute(config, base), sources, str(file) if file else "")


def flatten(config: Config) -> list[tuple[str, Any]]:
    """Every key with its value as plain Python, in the order of the sections."""
    return [(key, msgspec.to_builtins(_get(config, key))) for key in schema()]


def misspelled(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that look like a setting and are none for want of an underscore, each with the name that is read.

    They are no error: Kubernetes makes SHORTLIST_SERVE_PORT for a service that is called shortlist-serve.
    """
    names = [name for name in sorted(environ) if name.startswith(ENVIRONMENT_PREFIX) and "__" not in name]
    if not names:  # as mostly; to make the schema takes a while
        return []
    right = {variable_of(key).replace("__", "_"): variable_of(key) for key in schema()}
    return [(name, right[name]) for name in names if name in right]


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
            return list(leaves(tomllib.loads(file.read_text(encoding="utf-8-sig"))))
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


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set one leaf. Requires: the tree has every section."""
    table = free_table(key)
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
