"""The settings of what may stand where: rules, diversity and exploration."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from schemas.section import Section

Place = Annotated[int, Meta(ge=1, le=1000)]


class Rule(Section, frozen=True):
    """What holds for the items for which a condition on their columns holds."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    """Stands in answers that are explained, and in messages."""
    where: str
    """The condition, such as `category == "shoes" and price < 50`; see reranker/conditions.py."""
    action: Literal["include", "exclude", "boost", "pin"]
    """`include`: only these are shown, and those of other includes. `exclude`: not shown. `boost`: `weight` is added to
    the score. `pin`: the best of them stands at `position`."""
    placements: list[str] = field(default_factory=list)
    """The placements of requests that it holds for; empty: all. In the lists of `GET /v1/similar/ITEM` (`similar`) and
    `GET /v1/popular` (`popular`) only `include` and `exclude` do anything."""
    weight: Annotated[float, Meta(ge=-100.0, le=100.0)] = 0.0
    """Of `boost`; a signal is about 1 at its best."""
    position: Place = 1
    """Of `pin`, from 1."""


class Order(Section, frozen=True):
    """What an answer must be beside good."""

    caps: dict[str, Place] = field(default_factory=dict)
    """Column of categories to the most items of one value in an answer; what has none is not counted."""
    diversity: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    """Maximal marginal relevance: how much the cosine to the nearest item above counts against the score. 0: not."""
    explore_positions: list[Place] = field(default_factory=list)
    """Positions that go to an item drawn at random among the next `explore_among`, each with the same chance, which is
    logged: what is never shown is never learned."""
    explore_among: Place = 50
