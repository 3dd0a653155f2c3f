"""Where the store of a verb lies: configuration and folder. Heavy imports wait, as in the verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.config import Config


def settings_of(config: Path | None, overrides: list[str]) -> Config:
    """The configuration; raises ConfigError."""
    from schemas.config_file import load_config

    return load_config(config, overrides)


def options_given(config: Path | None, overrides: list[str]) -> list[str]:
    """The words of a command line that lead to the same configuration."""
    named = [] if config is None else ["--config", str(config)]
    return named + [word for override in overrides for word in ("--set", override)]


def folder_of(config: Config) -> Path:
    """The folder of the store, whether it is there or not."""
    from pathlib import Path

    return Path(config.paths.store)


def require_log(config: Config) -> None:
    """Go on only if there is a serving log, or a store that has none yet. Raises StoreError."""
    import contextlib
    import os
    from pathlib import Path

    from prediction_store.durable import translated
    from prediction_store.errors import StoreError
    from schemas.config import events_folder

    folder = Path(events_folder(config.paths))
    with translated("reading", folder), contextlib.suppress(FileNotFoundError):
        os.scandir(folder).close()
        return
    if config.paths.events:
        raise StoreError(f"there is no log at {folder}", hint="set paths.events to where it is")
    store_of(config)


def store_of(config: Config) -> Path:
    """The folder of the store, for verbs of which an empty answer would be a false one. Raises StoreError."""
    from prediction_store import layout
    from prediction_store.errors import StoreError

    root = folder_of(config)
    if not layout.is_store(root):
        raise StoreError(f"there is no store at {root}", hint="set paths.store to where it is")
    return root
