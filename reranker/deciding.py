"""The settings that decide an answer: their digest, which each answer names, and themselves, which each segment tells.

So an answer can be made again by the settings that it was made by, whatever they are today.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from reranker.serving_log.records import SettingsRecord
from schemas.config import Config, Store, digest
from schemas.serving_config import Serve

DECIDING: Final = {
    "serve": (
        "max_k", "session_half_life_seconds", "session_event_weights", "neighbour_candidates", "fresh_candidates",
        "trending_now_candidates",
        "arrivals", "seen", "seen_before", "bought", "bought_events", "rules", "order",
    ),
    "store": ("record_ttl_hours", "expired"),
}  # fmt: skip
"""The settings that decide which answer a version gives to a logged request; `max_k` bounds a rung of the ladder. The
others say whether and when there is an answer, or what the record holds anyway: `k`, the session as it was used, and
the holdout."""


SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {"serve": Serve, "store": Store}


def settings_digest(config: Config) -> str:
    """16 hex digits over the settings that decide an answer."""
    deciding = {f"{section}.{name}": value for section, of in _deciding(config).items() for name, value in of.items()}
    return digest(deciding)[:16]


def settings_record(config: Config) -> SettingsRecord:
    """The settings that decide an answer, as the log has them."""
    settings = {section: msgspec.to_builtins(of) for section, of in _deciding(config).items()}
    return SettingsRecord(settings_digest(config), settings)


def with_settings(config: Config, record: SettingsRecord) -> Config | None:
    """The configuration with the settings of a record; None: this Shortlist does not know them all, or knows more."""
    changed = {}
    try:
        for section, kind in SECTIONS.items():
            of_today = msgspec.to_builtins(getattr(config, section))
            changed[section] = msgspec.convert({**of_today, **record.settings[section]}, kind)
    except (KeyError, msgspec.ValidationError):
        return None
    found = msgspec.structs.replace(config, **changed)
    return found if settings_digest(found) == record.digest else None


def _deciding(config: Config) -> dict[str, dict[str, Any]]:
    return {
        section: {name: getattr(getattr(config, section), name) for name in names}
        for section, names in DECIDING.items()
    }
