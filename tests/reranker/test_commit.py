"""The thread that writes the log: nothing is accepted before it is on disk, and no request waits for an answer's."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import structlog

from reranker.errors import NotRecordedError, SessionsError
from reranker.serving_log.commit import Committer
from reranker.serving_log.reading import read_log
from reranker.serving_log.records import EventsRecord, LoggedEvent
from reranker.serving_log.segments import SegmentWriter
from schemas.serving_config import Log

NOW = 1_790_000_000.0


class Counted:
    def __init__(self) -> None:
        self.dropped = self.failures = 0

    def dropped_answers(self, count: int) -> None:
        self.dropped += count

    def failed(self) -> None:
        self.failures += 1


class Disk:
    """Syncs of this process: counted, held back, or broken."""

    def __init__(self) -> None:
        self.syncs = 0
        self.free = threading.Event()
        self.reached = threading.Event()
        self.error: OSError | None = None
        self.free.set()
        self._sync = os.fdatasync

    def __call__(self, descriptor: int) -> None:
        self.syncs += 1
        self.reached.set()
        assert self.free.wait(60)
        if self.error is not None:
            raise self.error
        self._sync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr("os.fdatasync", disk)
    yield disk
    disk.free.set()


def record(*numbers: int) -> EventsRecord:
    return EventsRecord(NOW, [LoggedEvent(f"u{number}", "i", "view", NOW) for number in numbers])


class Desk:
    """A committer over a folder, what it accepted, and what it counted."""

    def __init__(self, folder: Path, limit: int = 1000, accept: Callable[[Sequence[LoggedEvent]], None] | None = None):
        self.folder = folder
        self.counts = Counted()
        self.accepted: list[str] = []
        self.committer = Committer(
            SegmentWriter(folder, Log(), lambda: NOW),
            limit=limit,
            accept=accept or self._accept,
            dropped=self.counts.dropped_answers,
            failed=self.counts.failed,
        )

    def __enter__(self) -> Desk:
        self.committer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.committer.stop()

    def _accept(self, events: Sequence[LoggedEvent]) -> None:
        self.accepted += [event.user for event in events]

    def logged(self) -> list[str]:
        return [event.user for record in read_log(self.folder, pytest.fail) for event in record.events]


def test_events_are_on_disk_and_accepted_when_commit_returns(tmp_path: Path, disk: Disk) -> None:
    with Desk(tmp_path) as desk:
        asyncio.run(desk.committer.commit(record(1, 2)))
        assert disk.syncs == 1
        assert desk.logged() == desk.accepted == ["u1", "u2"]


def test_nothing_is_acknowledged_while_the_disk_has_not_answered(tmp_path: Path, disk: Disk) -> None:
    async def run(desk: Desk) -> None:
        disk.free.clear()
        waiting = asyncio.create_task(desk.committer.commit(record(1)))
        await asyncio.to_thread(disk.reached.wait, 60)
        assert not waiting.done()
        assert desk.accepted == []
        disk.free.set()
        await waiting
        assert desk.accepted == ["u1"]

    with Desk(tmp_path) as desk:
        asyncio.run(run(desk))


def test_all_that_wait_share_one_sync(tmp_path: Path, disk: Disk) -> None:
    async def run(desk: Desk) -> None:
        disk.free.clear()
        first = asyncio.create_task(desk.committer.commit(record(0)))
        await asyncio.to_thread(disk.reached.wait, 60)
        rest = [asyncio.create_task(desk.committer.commit(record(number))) for number in range(1, 100)]
        await asyncio.sleep(0)  # each of them has begun to wait
        disk.free.set()
        await asyncio.gather(first, *rest)

    with Desk(tmp_path) as desk:
        asyncio.run(run(desk))
        assert disk.syncs == 2
        assert sorted(desk.logged()) == sorted(desk.accepted) == sorted(f"u{number}" for number in range(100))


def test_what_cannot_be_written_is_not_acknowledged_and_not_in_the_session(tmp_path: Path, disk: Disk) -> None:
    with Desk(tmp_path) as desk:
        disk.error = OSError(errno.ENOSPC, "No space left on device")
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                with pytest.raises(NotRecordedError, match="could not be recorded") as caught:
                    asyncio.run(desk.committer.commit(record(1)))
                assert str(tmp_path) not in str(caught.value)
        assert (desk.accepted, desk.counts.failures) == ([], 3)
        (line,) = lines
        assert "No space left" in line["reason"]
        disk.error = None
        asyncio.run(desk.committer.commit(record(2)))
        assert desk.accepted == ["u2"]


def test_what_the_session_did_not_take_is_not_acknowledged_and_no_failure_of_the_log(tmp_path: Path) -> None:
    def refuse(events: Sequence[LoggedEvent]) -> None:
        raise SessionsError("Redis does not answer")

    with structlog.testing.capture_logs() as told:
        with Desk(tmp_path, accept=refuse) as desk, pytest.raises(NotRecordedError):
            asyncio.run(desk.committer.commit(record(1)))
        assert (desk.logged(), desk.counts.failures, told) == (["u1"], 0, [])


def test_an_unforeseen_fault_fails_the_request_and_not_the_thread(tmp_path: Path) -> None:
    faults = [RuntimeError("the insides")]

    def fail_once(events: Sequence[LoggedEvent]) -> None:
        if faults:
            raise faults.pop()

    with Desk(tmp_path, accept=fail_once) as desk:
        with pytest.raises(NotRecordedError) as caught:
            asyncio.run(desk.committer.commit(record(1)))
        assert "insides" not in str(caught.value)
        asyncio.run(desk.committer.commit(record(2)))


def test_answers_beyond_the_queue_are_dropped_and_counted_and_nobody_waits(tmp_path: Path, disk: Disk) -> None:
    async def run(desk: Desk) -> None:
        disk.free.clear()
        waiting = asyncio.create_task(desk.committer.commit(record(0)))
        await asyncio.to_thread(disk.reached.wait, 60)
        for number in range(1, 8):
            desk.committer.offer(record(number))
        assert desk.counts.dropped == 4
        disk.free.set()
        await waiting

    with Desk(tmp_path, limit=3) as desk:
        asyncio.run(run(desk))
    assert desk.logged() == ["u0", "u1", "u2", "u3"]


def test_events_beyond_the_queue_are_refused_at_once(tmp_path: Path, disk: Disk) -> None:
    async def run(desk: Desk) -> None:
        disk.free.clear()
        first = asyncio.create_task(desk.committer.commit(record(0)))
        await asyncio.to_thread(disk.reached.wait, 60)
        second = asyncio.create_task(desk.committer.commit(record(1)))
        await asyncio.sleep(0)
        with pytest.raises(NotRecordedError, match="too many"):
            await desk.committer.commit(record(2))
        disk.free.set()
        await asyncio.gather(first, second)

    with Desk(tmp_path, limit=1) as desk:
        asyncio.run(run(desk))


def test_answers_that_cannot_be_written_are_counted_as_dropped(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file where the folder should be")
    with Desk(tmp_path / "events") as desk:
        desk.committer.offer(record(1))
        desk.committer.offer(record(2))
    assert desk.counts.dropped == 2


def test_stop_writes_all_that_was_given(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        for number in range(500):
            desk.committer.offer(record(number))
    assert desk.logged() == [f"u{number}" for number in range(500)]


def test_a_client_that_has_gone_does_not_disturb_the_others(tmp_path: Path, disk: Disk) -> None:
    async def run(desk: Desk) -> None:
        disk.free.clear()
        gone = asyncio.create_task(desk.committer.commit(record(0)))
        await asyncio.to_thread(disk.reached.wait, 60)
        gone.cancel()
        stays = asyncio.create_task(desk.committer.commit(record(1)))
        await asyncio.sleep(0)
        disk.free.set()
        await stays

    with Desk(tmp_path) as desk:
        asyncio.run(run(desk))
        assert desk.accepted == ["u0", "u1"]
