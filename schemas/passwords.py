"""Passwords in the URLs of the configuration: hidden wherever a setting is shown, and not taken back hidden."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"
"""What is shown for a password."""

_PASSWORD = re.compile(r"(://[^:@]*:).*(?=@)|(password=)[^&#]*", re.DOTALL)
"""Before the last @, since a password may hold one that nobody has escaped; or a parameter."""


def hide(text: str) -> str:
    """The text without the password of the URL that it is, or holds."""
    return _PASSWORD.sub(rf"\1\2{HIDDEN}", text)


def is_hidden(text: str) -> bool:
    """Whether its password is one that `hide` has put there."""
    return f":{HIDDEN}@" in text or f"password={HIDDEN}" in text
