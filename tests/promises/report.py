"""The report of a soak, docs/reliability.json, and the table of promises that README.md makes of it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from promises.catalogue import PROMISES, Promise
from promises.outcome import Outcome

ROOT: Final = Path(__file__).parents[2]
REPORT: Final = ROOT / "docs" / "reliability.json"
README: Final = ROOT / "README.md"
BEGIN, END = "<!-- promises: `make soak` -->", "<!-- end of promises -->"
PERCENTS = (50, 99, 99.9)
Found = Mapping[str, Any]
"""What the report says of one technique."""


def summarise(outcome: Outcome, seconds: float) -> dict[str, Any]:
    """What the report says of one technique: histograms become percentiles."""
    figures: dict[str, float] = {name: round(value, 4) for name, value in outcome.highest.items()}
    for name in outcome.spreads:
        for percent in PERCENTS:
            value = outcome.percentile(name, percent)
            if value is not None:
                figures[f"{name}: p{percent} ms"] = round(value * 1000, 2)
    found: dict[str, Any] = {"tried": outcome.tried, "violations": outcome.violations, "seconds": round(seconds)}
    if outcome.shown:
        found["shown"] = outcome.shown
    return {**found, "counts": dict(sorted(outcome.counts.items())), "figures": dict(sorted(figures.items()))}


def write(path: Path, techniques: Mapping[str, Found]) -> dict[str, Any]:
    """Write the report of what each technique has found, with machine and commit; the report."""
    promises = {}
    for promise in PROMISES:
        found = {one.name: techniques[one.name] for one in promise.techniques if one.name in techniques}
        if found:
            promises[str(promise.number)] = {
                "tried": {name: what["tried"] for name, what in found.items()},
                "violations": sum(what["violations"] for what in found.values()),
                "techniques": found,
            }
    report = {"machine": machine(), "commit": commit(), "at": _utc(), "promises": promises}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return report


def table(report: Mapping[str, Any]) -> str:
    """The rows of README.md's table, with its head."""
    rows = ["| promise | a soak tried | violations | test |", "|---|---|---|---|"]
    for promise in PROMISES:
        found = report["promises"].get(str(promise.number))
        if found is not None:
            tried = describe(promise, found["techniques"])
            rows.append(f"| {promise.words} | {tried} | {found['violations']} | `{promise.test}` |")
    return "\n".join(rows)


def table_in_readme() -> str:
    """What stands between the two marks in README.md."""
    text = README.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def put_into_readme(report: Mapping[str, Any]) -> None:
    """Put the table between the two marks."""
    head, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    README.write_text(f"{head}{begin}\n\n{table(report)}\n\n{end}{tail}", encoding="utf-8")


def describe(promise: Promise, found: Mapping[str, Found]) -> str:
    """What a soak has tried of one promise, in words."""
    parts = [_SENTENCES[one.name](found[one.name]) for one in promise.techniques if one.name in found]
    return "; ".join(parts)


def machine() -> dict[str, Any]:
    """Where it ran, and how busy that was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _crash_points(found: Found) -> str:
    return f"SIGKILL, EIO, ENOSPC at each step: {found['tried']:,}"


def _power_cuts(found: Found) -> str:
    counts = found["counts"]
    noticed, missed = (
        sum(number for name, number in counts.items() if name.startswith(f"left out and {what}"))
        for what in ("noticed", "missed")
    )
    sites = {name.partition(": ")[2] for name in counts if name.startswith("left out and ")}
    return (
        f"{found['tried']:,} different disks; {len(sites)} places that sync left out: noticed {noticed:,} times, and"
        f" {missed:,} times not, where another sync had done it or the file was given up"
    )


def _flips(found: Found) -> str:
    counts = found["counts"]
    return f"{counts['requests']:,} requests over {counts['flips']:,} flips, {counts['rollbacks']:,} of them rollbacks"


def _latency(found: Found) -> str:
    quiet, flips = (found["figures"].get(f"{name}: p99.9 ms", float("nan")) for name in ("quiet", "flips"))
    goal = "" if flips <= 2 * quiet else " (goal: twice; missed)"
    return f"p99.9 {flips:.1f} ms while flipping, {quiet:.1f} ms while quiet{goal}"


def _damaged_records(found: Found) -> str:
    counts = found["counts"]
    return (
        f"{found['tried']:,} unchecked: {counts['lists refused']:,} lists refused, {counts['lists missing']:,} missing,"
        f" {counts['lists wrong']:,} wrong"
    )


def _rollback(found: Found) -> str:
    figures, counts = found["figures"], found["counts"]
    workers, command = (figures[f"{name}: p50 ms"] / 1000 for name in ("to the last worker", "command"))
    missed = counts.get("over a second", 0) or counts.get("commands over 0.3 s", 0)
    return (
        f"{found['tried']} rollbacks, 4 workers: the last one after {workers:.2f} s, at most"
        f" {figures['longest to the last worker']:.2f} s; the command {command:.2f} s, at most"
        f" {figures['longest command']:.2f} s{' (goal missed)' if missed else ''}"
    )


def _leaks(found: Found) -> str:
    grown = {name.partition(": ")[2]: value for name, value in found["figures"].items() if "more after" in name}
    text = ", ".join(
        f"{value:+.2g} {name.removesuffix(' more after 1,000 flips')}" for name, value in sorted(grown.items())
    )
    return f"{found['tried']:,} flips: per thousand {text}"


def _fuzz(found: Found) -> str:
    refused = sum(number for name, number in found["counts"].items() if name.startswith("answered 4"))
    return f"{found['tried']:,} fuzzed requests, {refused:,} of them refused"


def _fuzz_memory(found: Found) -> str:
    grown = found["figures"]["megabytes more in the second half"]
    return f"{found['tried']:,} in one process, {grown:+.1f} MB from one half to the other"


def _plain(words: str) -> Any:
    return lambda found: words.format(f"{found['tried']:,}")


_SENTENCES: Final = {
    "crash points": _crash_points,
    "transfer points": _plain("the same between hosts: {}"),
    "random kills": _plain("{} kills at random instants"),
    "system calls": _plain("a fault at each system call: {}"),
    "power cuts": _power_cuts,
    "flips over HTTP": _flips,
    "latency": _latency,
    "corruption": _plain("{} flips, cuts, swaps and deletions"),
    "damaged records": _damaged_records,
    "rollback": _rollback,
    "schedules": _plain("{} random schedules against a dictionary"),
    "attempts": _plain("{} versions by crowded, killed and repeated tasks"),
    "Spark builds": _plain("{} builds by Spark"),
    "questions": _plain("{} questions against fractions"),
    "answers": _plain("{} answers"),
    "flips in process": _leaks,
    "flips of a worker": _leaks,
    "races of eight": _plain("{} races of eight processes"),
    "fuzzed requests": _fuzz,
    "memory under fuzz": _fuzz_memory,
    "stopped publishers": _plain("{} publishers stopped before a step, killed or woken up"),
}
