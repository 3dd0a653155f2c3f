"""The settings of what may stand where: rules, diversity and exploration."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from schemas.section import Section, Share

Place = Annotated[int, Meta(ge=1, le=1000)]


class Rule(Section, frozen=True):
    """What is to become of the items that meet a condition on their columns."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    """Named in explained answers and in messages."""
    where: str
    """The condition, such as `category == "shoes" and price < 50`; see reranker/conditions.py."""
    action: Literal["include", "exclude", "boost", "pin"]
    """`include`: only these items are shown, and those of other includes. `exclude`: they are not shown. `boost`:
    `weight` is added to their scores. `pin`: the best of them stands at `position`."""
    placements: list[str] = field(default_factory=list)
    """The placements for which it holds; empty: all. In the lists of `GET /v1/similar/ITEM` (`similar`) and
    `GET /v1/popular` (`popular`) only `include` and `exclude` do anything."""
    weight: Annotated[float, Meta(ge=-100.0, le=100.0)] = 0.0
    """With `boost`: what is added. For scale: a signal is about 1 at its best."""
    position: Place = 1
    """With `pin`: the position, from 1."""

    def __post_init__(self) -> None:
        if self.action == "boost" and self.weight == 0.0:
            raise ValueError("a boost of weight 0 changes no score; set its weight, or leave the rule out")


class Order(Section, frozen=True):
    """Constraints on an answer beyond the order by score."""

    caps: dict[str, Place] = field(default_factory=dict)
    """By column of categories: the most items of one value in an answer. Items without a value are not counted."""
    diversity: Share = 0.0
    """Maximal marginal relevance: how much the cosine to the nearest item above counts against the score. 0: off."""
    explore_positions: list[Place] = field(default_factory=list)
    """Positions filled by chance: each of `explore_among` items is equally likely, and that chance is logged. They are
    the next ones at the last of these positions, less those that the caps do not allow beside the others, and all of
    them draw among the same. An item that is never shown can never be learned about."""
    explore_among: Place = 50
