"""Segments of the serving log: what a crash, a full disk or a flipped bit leaves is read to its last whole record."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prediction_store import durable, layout
from prediction_store.errors import DiskError
from reranker.serving_log.frames import HEADER_BYTES, MAX_RECORD_BYTES, Frame, SegmentName, Tail, frame, frames, header
from reranker.serving_log.reading import read_log, read_segments, segments
from reranker.serving_log.records import EventsRecord, LoggedEvent, Record, encode
from reranker.serving_log.segments import SegmentWriter
from schemas.errors import FormatError, NewerFormatError, UsageError
from schemas.serving_config import Log

NOW = 1_790_000_000.0
DAY = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def event(number: int) -> EventsRecord:
    return EventsRecord(NOW, [LoggedEvent(f"u{number}", f"i{number}", "view", NOW + number)])


def writer(folder: Path, clock: Callable[[], float] | None = None, **settings: float) -> SegmentWriter:
    return SegmentWriter(folder, Log(**settings), clock or Clock())  # type: ignore[arg-type]


def read(folder: Path) -> tuple[list[Record], list[Tail]]:
    tails: list[Tail] = []
    return list(read_log(folder, tails.append)), tails


def users(folder: Path) -> list[str]:
    return [event.user for record in read(folder)[0] for event in record.events]


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    log = writer(tmp_path / "events")
    log.append([encode(event(1)), encode(event(2))])
    log.append([encode(event(3))])
    log.close()
    records, tails = read(tmp_path / "events")
    assert records == [event(1), event(2), event(3)]
    assert tails == []


def test_a_record_can_be_read_before_its_segment_has_ended(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.append([encode(event(1))])
    assert users(tmp_path) == ["u1"]
    log.close()


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    log = writer(tmp_path / "events")
    log.append([])
    log.sync()
    log.close()
    assert not (tmp_path / "events").exists()
    assert read(tmp_path / "events") == ([], [])


def test_a_segment_cut_anywhere_is_read_to_its_last_whole_record_and_the_rest_is_told(tmp_path: Path) -> None:
    whole = [frame(encode(event(number))) for number in range(3)]
    data = header() + b"".join(whole)
    ends = [HEADER_BYTES, *(HEADER_BYTES + sum(map(len, whole[: n + 1])) for n in range(3))]
    for cut in range(len(data) + 1):
        found = list(frames(tmp_path, data[:cut]))
        n_whole = sum(end <= cut for end in ends[1:])
        torn = [part for part in found if isinstance(part, Tail)]
        assert len(found) - len(torn) == n_whole
        if cut in ends:
            assert torn == []
        else:
            assert (torn[0].begin, torn[0].bytes) == ((ends[n_whole], cut - ends[n_whole]) if cut > 16 else (0, cut))


def test_no_flipped_bit_gives_a_wrong_record(tmp_path: Path) -> None:
    payloads = [encode(event(number)) for number in range(3)]
    data = header() + b"".join(map(frame, payloads))
    for place in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        found = list(frames(tmp_path, bytes(damaged)))
        assert isinstance(found[-1], Tail), place
        assert [part.payload for part in found[:-1]] == payloads[: len(found) - 1]  # type: ignore[union-attr]


def test_random_bytes_and_zeros_after_the_last_record_are_no_records(tmp_path: Path) -> None:
    begin = header() + frame(encode(event(1)))
    chance = random.Random(20261126)
    for tail in (bytes(1), bytes(8), bytes(4096), *(chance.randbytes(chance.randrange(1, 80)) for _ in range(500))):
        found = list(frames(tmp_path, begin + tail))
        assert len(found) == 2
        assert isinstance(found[1], Tail)
        assert found[1].bytes == len(tail)


def test_a_file_whose_bytes_never_came_or_are_others_is_a_torn_tail(tmp_path: Path) -> None:
    for data, reason in {bytes(4096): "nothing but zeros", b"user_id,item_id,time\n": "the header is damaged"}.items():
        assert list(frames(tmp_path, data)) == [Tail(tmp_path, 0, len(data), reason)]


@pytest.mark.parametrize("place", range(HEADER_BYTES))
def test_a_flipped_byte_in_the_header_loses_that_segment_and_no_other(tmp_path: Path, place: int) -> None:
    for number in range(3):
        log = writer(tmp_path, lambda number=number: NOW + number)  # type: ignore[misc]
        log.append([encode(event(number))])
        log.close()
    damaged = segments(tmp_path)[1]
    data = bytearray(damaged.read_bytes())
    data[place] ^= 0xFF
    damaged.write_bytes(data)
    records, tails = read(tmp_path)
    assert records == [event(0), event(2)]
    assert tails == [Tail(damaged, 0, len(data), "the header is damaged")]


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    from zlib import crc32

    begin = header()[:8] + (4).to_bytes(4, "little")
    with pytest.raises(NewerFormatError, match="format 4"):
        list(frames(tmp_path, begin + crc32(begin).to_bytes(4, "little")))


@pytest.mark.parametrize("number", ["01000000" + "4a679d75", "02000000" + "a4c82867"])
def test_an_earlier_format_is_read(tmp_path: Path, number: str) -> None:
    first = bytes.fromhex("93534c4f470d0a1a" + number) + frame(b"\x90")
    assert list(frames(tmp_path, first)) == [Frame(16, b"\x90")]


def test_the_bytes_of_a_segment_are_the_ones_that_the_format_describes() -> None:
    assert header().hex() == "93534c4f470d0a1a" + "03000000" + "c1af94df"
    assert frame(b"\x90").hex() == "01000000" + "e94d4d0b" + "90"


def test_a_series_whose_numbers_are_used_up_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reranker.serving_log.segments.MAX_NUMBER", 2)
    clock = Clock()
    log = writer(tmp_path, clock)
    for number in range(5):
        clock.now = NOW + number
        log.append([encode(event(number))])
        log.close()
    names = [SegmentName.parse(path.name) for path in segments(tmp_path)]
    assert [name.number for name in names if name] == [1, 2, 1, 2, 1]
    assert len({name.series for name in names if name}) == 3
    assert users(tmp_path) == [f"u{number}" for number in range(5)]


def test_segments_end_by_size(tmp_path: Path) -> None:
    log = writer(tmp_path, segment_mb=0.0005)
    for number in range(40):
        log.append([encode(event(number))])
    log.close()
    files = segments(tmp_path)
    assert len(files) > 2
    assert all(file.stat().st_size >= 500 for file in files[:-1])
    assert users(tmp_path) == [f"u{number}" for number in range(40)]


def test_segments_end_by_age_also_when_nothing_is_written(tmp_path: Path) -> None:
    clock = Clock()
    log = writer(tmp_path, clock, segment_minutes=10.0)
    log.append([encode(event(1))])
    clock.now += 599.0
    log.end_if_due()
    log.append([encode(event(2))])
    assert len(segments(tmp_path)) == 1
    clock.now += 1.0
    log.end_if_due()
    log.append([encode(event(3))])
    log.close()
    assert len(segments(tmp_path)) == 2
    assert users(tmp_path) == ["u1", "u2", "u3"]


def test_old_segments_are_removed_when_a_new_one_begins(tmp_path: Path) -> None:
    clock = Clock()
    for day in range(5):
        clock.now = NOW + day * DAY
        log = writer(tmp_path, clock, keep_days=2.0)
        log.append([encode(event(day))])
        log.close()
    # The third last may hold records that are hardly older than two days.
    assert users(tmp_path) == ["u2", "u3", "u4"]


def test_what_a_killed_forget_has_left_is_removed_when_a_new_segment_begins(tmp_path: Path) -> None:
    """It is a copy of records, which would be kept for longer than the records themselves."""
    log = writer(tmp_path)
    log.append([encode(event(1))])
    log.close()
    (segment,) = segments(tmp_path)
    old, fresh = (layout.temporary_path(segment, token) for token in ("old", "fresh"))
    for path in (old, fresh):
        path.write_bytes(segment.read_bytes())
    os.utime(old, (1, 1))
    log.append([encode(event(2))])
    log.close()
    assert (old.exists(), fresh.exists(), users(tmp_path)) == (False, True, ["u1", "u2"])


def test_the_names_of_segments_sort_by_time_and_anything_else_is_left_alone(tmp_path: Path) -> None:
    clock = Clock()
    first, second = writer(tmp_path, clock), writer(tmp_path, clock)
    (tmp_path / "notes.txt").write_text("mine")
    for number, log in enumerate((first, second, first)):
        clock.now = NOW + number
        log.close()
        log.append([encode(event(number))])
    first.close()
    second.close()
    names = [SegmentName.parse(path.name) for path in segments(tmp_path)]
    assert [name.started_ms for name in names if name] == [1_790_000_000_000 + 1000 * n for n in range(3)]
    assert [name.number for name in names if name] == [1, 1, 2]
    assert users(tmp_path) == ["u0", "u1", "u2"]
    assert (tmp_path / "notes.txt").exists()


def test_a_disk_that_fills_in_the_middle_of_a_record_leaves_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = writer(tmp_path)
    log.append([encode(event(1))])
    real, calls = os.write, []

    def full(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        if len(calls) == 1:
            return real(descriptor, bytes(data)[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        with pytest.raises(DiskError, match="No space left"):
            log.append([encode(event(2)), encode(event(3))])
    log.append([encode(event(4))])
    log.close()
    records, tails = read(tmp_path)
    assert tails == []
    assert records == [event(1), event(4)]
    assert [len([*read_segments([path], pytest.fail)]) for path in segments(tmp_path)] == [1, 1]


def test_a_write_that_the_kernel_cuts_off_is_taken_back(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.append([encode(event(1))])
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, before[1]))
    try:
        with pytest.raises(DiskError, match="File too large"):
            log.append([encode(event(2))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert segment.read_bytes() == whole


def test_a_sync_that_fails_is_never_tried_again_on_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = writer(tmp_path)
    log.append([encode(event(1))])
    with monkeypatch.context() as patched:
        patched.setattr("os.fdatasync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "bad disk")))
        with pytest.raises(DiskError, match="bad disk"):
            log.sync()
    log.append([encode(event(2))])
    log.sync()
    log.close()
    assert len(segments(tmp_path)) == 2


@pytest.mark.parametrize("is_restored", [False, True])
def test_records_are_not_said_to_survive_in_a_segment_that_is_gone(tmp_path: Path, is_restored: bool) -> None:
    folder = tmp_path / "events"
    log = writer(folder)
    log.append([encode(event(1))])
    log.sync()
    if is_restored:
        shutil.copytree(folder, tmp_path / "backup")
    folder.rename(tmp_path / "lost")
    if is_restored:
        (tmp_path / "backup").rename(folder)
    log.append([encode(event(2))])
    with pytest.raises(DiskError, match=r"syncing .*\.log: (No such file|another file has its name)"):
        log.sync()
    log.append([encode(event(3))])
    log.sync()
    log.close()
    assert users(folder) == (["u1", "u3"] if is_restored else ["u3"])


@pytest.mark.parametrize("refused", ["create", "sync file", "sync folder", "extend"])
def test_a_segment_that_cannot_be_begun_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(step: str, path: Path) -> None:
        if step == refused:
            raise OSError(errno.ENOSPC, "No space left on device")

    log = writer(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "before", refuse)
        with pytest.raises(DiskError):
            log.append([encode(event(1))])
    assert list(tmp_path.iterdir()) == []
    log.append([encode(event(2))])
    log.close()
    assert users(tmp_path) == ["u2"]


def test_a_segment_for_which_no_file_can_be_opened_leaves_none(tmp_path: Path) -> None:
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for room in range(10):
        log = writer(tmp_path)
        os.close(free := os.dup(0))
        before = segments(tmp_path)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, most))
        is_written = False
        with contextlib.suppress(DiskError):
            log.append([encode(event(1))])
            is_written = True
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))
        assert len(segments(tmp_path)) == len(before) + is_written, f"with room for {room} files"
        log.close()
    assert set(users(tmp_path)) == {"u1"}


def test_a_record_beyond_all_bounds_is_refused_before_it_is_written(tmp_path: Path) -> None:
    log = writer(tmp_path)
    with pytest.raises(UsageError, match="wanted at most"):
        log.append([bytes(MAX_RECORD_BYTES + 1)])
    assert segments(tmp_path) == []


@pytest.mark.parametrize("payload", [b"\x91\xa6strange", encode(event(2)).replace(b"u2", b"u\xff")])
def test_a_whole_record_that_is_none_of_ours_is_refused_with_its_place(tmp_path: Path, payload: bytes) -> None:
    log = writer(tmp_path)
    log.append([encode(event(1)), payload])
    log.close()
    (segment,) = segments(tmp_path)
    place = HEADER_BYTES + len(frame(encode(event(1))))
    with pytest.raises(FormatError, match=f"^{segment}, byte {place}: a record of the serving log cannot be read: "):
        read(tmp_path)
