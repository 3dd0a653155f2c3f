"""What reads: one `Version`, the `Store` that follows the current one, and the columns and lists that they give out."""

from __future__ import annotations

from prediction_store.columns import CategoryColumn, TextColumn
from prediction_store.current import Store
from prediction_store.near_items import NearItems
from prediction_store.version import Version

__all__ = ["CategoryColumn", "NearItems", "Store", "TextColumn", "Version"]
