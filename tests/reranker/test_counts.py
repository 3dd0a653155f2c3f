"""Numbers that several processes count up in files of their own: none is lost, and Prometheus reads them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import prometheus_client
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from reranker.counts import Counter, Counts, Histogram, new_file

BOUNDS = (0.001, 0.01, 0.1)
COUNT_IN_A_PROCESS = """
import os, signal, sys
from reranker.counts import Counter, Counts
*files, own, count = map(int, sys.argv[1:])
counter = Counter(Counts(files, own), "shortlist_requests", "Requests.", ["path"])
for number in range(count):
    counter.inc(1.0, "/ü")
    counter.inc(0.5, f"/{number}")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_counts_of_dead_processes_are_added_to_those_of_the_living_and_go_on() -> None:
    files = [new_file() for _ in range(3)]
    for own, count in ((1, 3), (0, 4), (1, 2)):  # the last one replaces the first
        argv = [sys.executable, "-c", COUNT_IN_A_PROCESS, *map(str, (*files, own, count))]
        assert subprocess.run(argv, pass_fds=files, check=False).returncode == -signal.SIGKILL
    counts = Counts(files, 2)
    Counter(counts, "shortlist_requests", "Requests.", ["path"]).inc(2.5, "/ü")
    for file in files:
        os.close(file)  # the maps stay
    by_path = {path: number for (_, path), number in counts.totals().items()}
    assert by_path == {"/ü": 11.5, "/0": 1.5, "/1": 1.5, "/2": 1.0, "/3": 0.5}


def test_a_process_that_has_more_connections_than_another_is_ahead() -> None:
    with os.fdopen(new_file()) as one, os.fdopen(new_file()) as other:
        files = [one.fileno(), other.fileno()]
        mine, theirs = Counts(files, 0), Counts(files, 1)
        Counter(mine, "a", "A.").inc(50.0)
        assert not mine.is_ahead(1), "by one it may be"
        assert mine.is_ahead(2)
        theirs.tell_open(80)
        mine.tell_open(90)
        assert not mine.is_ahead(1)
        assert mine.is_ahead(2), "by an eighth it may be, and by one"
        assert not theirs.is_ahead(8)
        assert (mine.open_connections(), theirs.open_connections()) == (170, 170)
        Counts(files, 0)  # whoever replaces it has none yet
        assert theirs.is_ahead(0)
        assert theirs.open_connections() == 80
        assert mine.totals() == {("a",): 50.0}
    assert not Counts().is_ahead(1_000), "of itself it is never"


def test_without_files_a_process_counts_for_itself() -> None:
    mine, others = Counts(), Counts()
    Counter(mine, "a", "A.").inc()
    assert (mine.totals(), others.totals()) == ({("a",): 1.0}, {})


def test_threads_lose_no_count() -> None:
    counter = Counter(counts := Counts(), "a", "A.")
    threads = [threading.Thread(target=lambda: [counter.inc() for _ in range(5_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.totals() == {("a",): 20_000.0}


def test_the_exposition_is_that_of_the_prometheus_client_for_the_same_observations() -> None:
    seconds = [*np.random.default_rng(5).exponential(0.02, 400).tolist(), *BOUNDS]
    counts, theirs = Counts(), CollectorRegistry()
    counter = Counter(counts, "requests", "Requests.", ["path"])
    histogram = Histogram(counts, "seconds", "Seconds.", "path", BOUNDS)
    known_counter = prometheus_client.Counter("requests", "Requests.", ["path"], registry=theirs)
    known = prometheus_client.Histogram("seconds", "Seconds.", ["path"], buckets=BOUNDS, registry=theirs)
    for number, second in enumerate(seconds):
        path = f'/{number % 3}"\n'
        counter.inc(1.0, path)
        histogram.observe(second, path)
        known_counter.labels(path).inc()
        known.labels(path).observe(second)

    class Ours(Collector):
        def collect(self) -> list[object]:  # type: ignore[override]
            totals = counts.totals()
            return [counter.family(totals), histogram.family(totals)]

    ours = CollectorRegistry()
    ours.register(Ours())
    assert samples(ours) == samples(theirs)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Every line but those that say when a number began."""
    text = prometheus_client.generate_latest(registry).decode()
    return {
        (sample.name, str(sorted(sample.labels.items()))): round(sample.value, 9)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
