"""What reads: one `Version`, the `Store` that follows the current one, and what they give out."""

from __future__ import annotations

from prediction_store.columns import CategoryColumn, TextColumn
from prediction_store.current import Store
from prediction_store.near_items import NearItems
from prediction_store.version import Version
from schemas.record import Candidates, RankedItems

__all__ = ["Candidates", "CategoryColumn", "NearItems", "RankedItems", "Store", "TextColumn", "Version"]
