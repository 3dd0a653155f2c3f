"""What the server counts, in Prometheus' format.

With several workers the counts are shared through a folder of memory-mapped files (prometheus_client's multiprocess
mode, chosen by PROMETHEUS_MULTIPROC_DIR before that package is imported), so that any worker answers for all of them.
The version gauges are those of the worker that is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from prediction_store.ttl import state_of
from reranker.assignment import METRICS_FOLDER_VARIABLE
from schemas.config import Store as StoreSettings
from schemas.messages import RecommendAnswer

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Store, Version
    from reranker.recommend import Clock

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)


class Metrics:
    """The counters of this process, and the text of all processes."""

    def __init__(
        self, store: Store, settings: StoreSettings, now: Clock, live_view: Callable[[Version], LiveView]
    ) -> None:
        self._registry = CollectorRegistry()
        self._gauges = VersionGauges(store, settings, now, live_view)
        self._live_failures_counted = 0
        known = self._registry
        self.requests = Counter("shortlist_requests", "Requests.", ["path", "status"], registry=known)
        self.seconds = Histogram(
            "shortlist_request_seconds",
            "From the request's head to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=known,
        )
        self.answers = Counter("shortlist_answers", "Answers by first rung.", ["rung", "stale"], registry=known)
        self.top_ups = Counter("shortlist_top_ups", "Answers filled up from a further rung.", ["rung"], registry=known)
        self.fallbacks = Counter("shortlist_fallbacks", "Answers that are not personal.", ["reason"], registry=known)
        self.item_changes = Counter("shortlist_item_changes", "Items changed within the day.", registry=known)
        self.live_failures = Counter(
            "shortlist_live_read_failures", "Readings of the live facts about items that failed.", registry=known
        )
        self.ignored = Counter("shortlist_ignored_events", "Session events of unknown items.", registry=known)
        self.events = Counter("shortlist_events", "Posted events that are on disk and in the session.", registry=known)
        self.log_dropped = Counter("shortlist_log_dropped_answers", "Answers missing in the log.", registry=known)
        self.log_failures = Counter("shortlist_log_failures", "Failed writes of the serving log.", registry=known)
        self.no_session = Counter("shortlist_session_failures", "Failed uses of the session state.", registry=known)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count one request."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def count(self, answer: RecommendAnswer) -> None:
        """Count how one answer was made."""
        self.answers.labels(answer.rung, "yes" if answer.stale else "no").inc()
        for rung in answer.topped_up_from:
            self.top_ups.labels(rung).inc()
        if answer.reason is not None:
            self.fallbacks.labels(answer.reason).inc()
        if answer.ignored_events:
            self.ignored.inc(answer.ignored_events)

    def dropped_answers(self, count: int) -> None:
        """Count answers that will not be in the log."""
        self.log_dropped.inc(count)

    def failed(self) -> None:
        """Count a write of the log that failed."""
        self.log_failures.inc()

    def count_live_failures(self, failures: int) -> None:
        """Count what has failed of late; `failures` is how often it has in all."""
        if failures != self._live_failures_counted:
            self.live_failures.inc(failures - self._live_failures_counted)
            self._live_failures_counted = failures

    def text(self) -> bytes:
        """The exposition: the counts of every worker, the version of this one."""
        folder = os.environ.get(METRICS_FOLDER_VARIABLE)
        registry = CollectorRegistry()
        if folder:
            MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
            registry.register(self._gauges)
            return generate_latest(registry)
        registry.register(self._gauges)
        return generate_latest(self._registry) + generate_latest(registry)


class VersionGauges(Collector):
    """The version served by this process, read when asked for, so that it is never out of date."""

    def __init__(
        self, store: Store, settings: StoreSettings, now: Clock, live_view: Callable[[Version], LiveView]
    ) -> None:
        self._live_view = live_view
        self._store = store
        self._settings = settings
        self._now = now

    def collect(self) -> Iterator[Metric]:
        ready = self._store.is_ready
        behind = float(self._store.last_error is not None)
        yield GaugeMetricFamily("shortlist_ready", "1: a verified version is served.", value=float(ready))
        yield GaugeMetricFamily("shortlist_behind", "1: the newest history record is not served.", value=behind)
        if not ready:
            return
        number = self._store.history_number or 0
        with self._store.acquire() as version:
            manifest = version.manifest
            fresh = state_of(manifest.made_at, manifest.expires_at, self._now(), self._settings)
            info = GaugeMetricFamily("shortlist_version", "1: the version that is served.", labels=["version"])
            info.add_metric([version.name], 1.0)
            live = self._live_view(version)
            hidden, out_of_stock = float(live.n_hidden), float(live.n_out_of_stock)
        yield info
        yield GaugeMetricFamily("shortlist_live_hidden_items", "Its items hidden within the day.", value=hidden)
        yield GaugeMetricFamily(
            "shortlist_live_out_of_stock_items", "Its items set out of stock within the day.", value=out_of_stock
        )
        yield GaugeMetricFamily("shortlist_version_number", "Its history record.", value=float(number))
        yield GaugeMetricFamily("shortlist_version_age_seconds", "Since its data's time.", value=fresh.age_seconds)
        yield GaugeMetricFamily("shortlist_version_expired", "1: past its time to live.", value=float(fresh.is_expired))
        ahead = float(fresh.from_future)
        yield GaugeMetricFamily("shortlist_version_from_future", "1: its data is later than the clock.", value=ahead)
