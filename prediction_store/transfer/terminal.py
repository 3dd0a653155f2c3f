"""What people see of transfers and hosts: a bar while bytes travel, a line for each version, a table of hosts."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prediction_store.terminal import age, print_line, printable, size

if TYPE_CHECKING:
    from prediction_store.transfer.flow import Meter
    from prediction_store.transfer.pull import PullReport
    from prediction_store.transfer.push import PushReport
    from schemas.hosts import HostStatus


class _Bar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task
        self._total = 0

    def expect(self, count: int) -> None:
        self._total += count
        self._progress.update(self._task, total=self._total)

    def advance(self, count: int) -> None:
        self._progress.update(self._task, advance=count)


@contextlib.contextmanager
def bar(name: str) -> Iterator[Meter | None]:
    """A progress bar of bytes on stderr; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description:>9}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress, progress.add_task(name, total=0))


def print_transfer(did: str, report: PushReport | PullReport) -> None:
    """One line on one version."""
    if not report.files:
        print(f"{did} {report.version}: nothing was missing, {report.files_in_all} files", flush=True)
        return
    rate = size(report.bytes / report.seconds) if report.seconds > 0 else "?"
    print(
        f"{did} {report.version}: {report.files} of {report.files_in_all} files, {size(report.bytes)}"
        f" in {report.seconds:.1f} s ({rate}/s)",
        flush=True,
    )


def print_hosts(statuses: Mapping[str, HostStatus], named: list[str], place: str, now: float) -> None:
    """The table of hosts, with those that were named and have never said anything."""
    hosts = sorted({*statuses, *named})
    if not hosts:
        print(f"no host has said anything in {place}")
        return
    print(f"  {'host':<20} {'state':<9} {'record':>6} {'version':<25} {'said':>7} {'shards':<12} note")
    for host in hosts:
        status = statuses.get(host)
        mark = "*" if host in named else " "
        if status is None:
            print_line(f"{mark} {host:<20} {'silent':<9}")
            continue
        facts = f"{status.number or '-':>6} {status.version or '-':<25} {age(max(0, int(now - status.at))):>7}"
        print_line(f"{mark} {host:<20} {status.state:<9} {facts} {status.shards or 'all':<12} {_note(status)}".rstrip())
    if named:
        print("* flips together with the others so marked")


def log_line(host: str, text: str) -> None:
    """One line of the log of `follow`."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {host}: {printable(text)}", flush=True)


def _note(status: HostStatus) -> str:
    behind = f"the newest record is {status.wanted}" if status.wanted > status.number else ""
    return "; ".join(filter(None, [behind, status.problem]))
