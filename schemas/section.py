"""What every section of the configuration is made of: the struct, and the bounds that settings share."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, Meta(ge=0.0)]
EventWeight = Annotated[float, Meta(ge=0.0, le=1e4)]
Duration = Annotated[float, Meta(gt=0.0, le=1e9)]
"""In the unit that the setting's name ends with; what is longer than the longest could not be added to a time."""
Days = Annotated[int, Meta(ge=1, le=36_500)]
Name = Annotated[str, Meta(min_length=1)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A frozen group of settings; an unknown field is an error."""
