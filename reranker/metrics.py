"""What the server counts, in Prometheus' format.

With several workers the counts are shared through files (see `reranker.counts`), so that any worker answers for all of
them. The version gauges are those of the worker that is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from prediction_store.ttl import freshness_of
from reranker.counts import Counter, Counts, Histogram
from schemas.config import Store as StoreSettings
from schemas.messages import RecommendAnswer

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Store, Version
    from reranker.recommend import Clock

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)


class Metrics(Collector):
    """The counters of this process, and the text of all processes."""

    def __init__(
        self,
        store: Store,
        settings: StoreSettings,
        now: Clock,
        live_view: Callable[[Version], LiveView],
        counts: Counts,
    ) -> None:
        self._counts = counts
        self._gauges = VersionGauges(store, settings, now, live_view)
        self._live_failures_counted = 0
        self._slots: dict[tuple[str, int], int] = {}
        self._counters: list[Counter] = []
        self.requests = self._counter("requests", "Requests.", "path", "status")
        self.seconds = Histogram(
            self._counts, "shortlist_request_seconds", "From the request's head to its answer.", "path", SECONDS
        )
        self.answers = self._counter("answers", "Answers by first rung.", "rung", "stale")
        self.top_ups = self._counter("top_ups", "Answers filled up from a further rung.", "rung")
        self.fallbacks = self._counter("fallbacks", "Answers that are not personal.", "reason")
        self.item_changes = self._counter("item_changes", "Items changed within the day.")
        self.live_failures = self._counter("live_read_failures", "Readings of the live facts about items that failed.")
        self.ignored = self._counter("ignored_events", "Session events of unknown items.")
        self.events = self._counter("events", "Posted events that are on disk and in the session.")
        self.log_dropped = self._counter("log_dropped_answers", "Answers missing in the log.")
        self.log_failures = self._counter("log_failures", "Failed writes of the serving log.")
        self.session_failures = self._counter("session_failures", "Failed uses of the session state.")
        self.closed = self._counter("closed_connections", "Connections that were closed for a reason.", "reason")

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        self._counters.append(Counter(self._counts, f"shortlist_{name}", words, labels))
        return self._counters[-1]

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count one request. Only for the thread of the event loop."""
        numbers, key = self._counts.numbers, (path, status)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self.requests.slot(path, str(status))
        numbers[slot] += 1.0
        self.seconds.observe(seconds, path)

    def refused(self, status: int) -> None:
        """Count a request that was not let in: without its path, so that strangers cannot fill the counters with names
        of their own, and without its time, which is not that of an answer."""
        self.requests.inc(1.0, "refused", str(status))

    def count(self, answer: RecommendAnswer) -> None:
        """Count how one answer was made. Only for the thread of the event loop."""
        self._counts.numbers[self.answers.slot(answer.rung, "yes" if answer.stale else "no")] += 1.0
        for rung in answer.topped_up_from:
            self.top_ups.inc(1.0, rung)
        if answer.reason is not None:
            self.fallbacks.inc(1.0, answer.reason)
        if answer.ignored_events:
            self.ignored.inc(answer.ignored_events)

    def tell_open(self, connections: int) -> None:
        """Say how many connections this process has."""
        self._counts.tell_open(connections)

    def count_live_failures(self, failures: int) -> None:
        """Count what has failed of late; `failures` is how often it has in all."""
        if failures != self._live_failures_counted:
            self.live_failures.inc(failures - self._live_failures_counted)
            self._live_failures_counted = failures

    def text(self) -> bytes:
        """The exposition: the counts of every worker, the version of this one."""
        registry = CollectorRegistry()
        registry.register(self)
        registry.register(self._gauges)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """What was counted, for the exposition."""
        totals = self._counts.totals()
        for counter in self._counters:
            yield counter.family(totals)
        yield self.seconds.family(totals)
        number = float(self._counts.open_connections())
        yield GaugeMetricFamily("shortlist_open_connections", "Connections that all workers have now.", value=number)


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
        with (held := self._store.acquire()) as version:
            number = held.number
            manifest = version.manifest
            fresh = freshness_of(manifest.made_at, manifest.expires_at, self._now(), self._settings)
            info = GaugeMetricFamily("shortlist_version", "1: the version that is served.", labels=["version"])
            info.add_metric([version.name], 1.0)
            live = self._live_view(version)
            hidden, out_of_stock = float(live.n_hidden), float(live.n_out_of_stock)
            arrivals = float(len(live.arrivals))
        yield info
        yield GaugeMetricFamily("shortlist_live_hidden_items", "Its items hidden within the day.", value=hidden)
        yield GaugeMetricFamily(
            "shortlist_live_out_of_stock_items", "Its items set out of stock within the day.", value=out_of_stock
        )
        yield GaugeMetricFamily("shortlist_live_arrivals", "In stock, and not in the version.", value=arrivals)
        yield GaugeMetricFamily("shortlist_version_number", "Its history record.", value=float(number))
        yield GaugeMetricFamily("shortlist_version_age_seconds", "Since its data's time.", value=fresh.age_seconds)
        yield GaugeMetricFamily("shortlist_version_expired", "1: past its time to live.", value=float(fresh.is_expired))
        ahead = float(fresh.from_future)
        yield GaugeMetricFamily("shortlist_version_from_future", "1: its data is later than the clock.", value=ahead)
