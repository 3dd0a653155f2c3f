"""What every section of the configuration is made of."""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A frozen group of settings; an unknown field is an error."""
