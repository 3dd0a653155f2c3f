"""The online process: one user's stored list, re-ranked by what the user did in the last seconds."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reranker.client import Client
    from reranker.recommend import Reranker, open_reranker

__all__ = ["Client", "Reranker", "open_reranker"]


def __getattr__(name: str) -> Any:
    """What is named is imported then: whoever wants the client alone does not open a store."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("reranker.client" if name == "Client" else "reranker.recommend"), name)
