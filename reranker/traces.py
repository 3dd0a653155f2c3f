"""Traces when they are configured: OpenTelemetry is asked for here, and loaded by nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reranker.errors import TracesError

if TYPE_CHECKING:
    from reranker.spans import Traces
    from schemas.serving_config import Serve


def require_extra(serve: Serve) -> None:
    """Raise TracesError when traces are configured and OpenTelemetry is not installed."""
    open_traces(serve)


def open_traces(serve: Serve) -> Traces | None:
    """What makes spans and sends them to `serve.traces_endpoint`, once started; None: traces are off.

    Raises TracesError.
    """
    if not serve.traces_endpoint:
        return None
    try:
        from reranker.spans import Traces
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise TracesError(
            "serve.traces_endpoint is set, and OpenTelemetry is not installed here",
            hint="pip install 'shortlist-recommender[traces]', or set serve.traces_endpoint = \"\"",
        ) from error
    return Traces(serve)
