"""Passwords in the configuration: hidden wherever a setting is shown, and not taken back hidden."""

from __future__ import annotations

import re
from typing import Any, Final

HIDDEN: Final = "***"
"""What is shown for a password."""

_PASSWORD = re.compile(r"(://[^:@]*:).*(?=@)|(password=)[^&#]*", re.DOTALL)
"""Of a URL, before the last @, since a password may hold one that nobody has escaped; or a parameter."""
_SECRET = re.compile("secret|password|token|access[.]?key|credential", re.IGNORECASE)
"""In the name or value of a Spark setting that Spark hides: its default `spark.redaction.regex`."""


def hide(key: str, value: Any) -> Any:
    """The value of a key without the passwords of URLs; of Spark's settings, without those that Spark hides itself."""
    if isinstance(value, dict):
        return {name: hide(f"{key}.{name}", entry) for name, entry in value.items()}
    if key.startswith("spark.conf") and _SECRET.search(f"{key} {value}"):
        return HIDDEN
    if isinstance(value, list):
        return [hide(key, entry) for entry in value]
    return _PASSWORD.sub(rf"\1\2{HIDDEN}", value) if isinstance(value, str) else value


def is_hidden(text: str) -> bool:
    """Whether it is, or has for its password, what `hide` has put there."""
    return text == HIDDEN or f":{HIDDEN}@" in text or f"password={HIDDEN}" in text
