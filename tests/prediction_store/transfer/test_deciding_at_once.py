"""Of all who decide at once one wins; an answer that is lost is found again, or said to be unknown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pair_of_hosts import WHO, Pair, records_of

from prediction_store import history, holds, layout
from prediction_store.errors import ConcurrentPublishError, RemoteError, UnknownOutcomeError
from prediction_store.succession import remark
from prediction_store.transfer.remote import Remote
from schemas.history import RETIRE, HistoryRecord, encode_history_record

Observe = Callable[[Callable[[str, Path], None]], None]


def test_of_two_hosts_that_decide_at_once_exactly_one_wins(pair: Pair) -> None:
    pair.share()
    pair.copy()
    for number in range(2, 27):
        before = pair.shared.newest()
        assert before is not None
        wanted = pair.b if before.version == pair.a else pair.a
        outcomes = _decide_at_once(pair, wanted, expect=before.number)
        won = [found for found in outcomes if isinstance(found, HistoryRecord)]
        lost = [found for found in outcomes if not isinstance(found, HistoryRecord)]
        assert won, outcomes
        # Who comes so late that the other one's decision is what it wants finds its work done: that is no second one.
        assert all(found == won[0] for found in won), outcomes
        assert all(isinstance(found, ConcurrentPublishError) for found in lost), outcomes
        assert pair.shared.newest() == won[0]
        assert won[0].number == number


def _decide_at_once(pair: Pair, wanted: str, *, expect: int) -> list[HistoryRecord | Exception]:
    """Two hosts, each for a reason of its own: the same decision in the same words would be one and the same."""
    meeting = threading.Barrier(2)
    outcomes: list[HistoryRecord | Exception] = []

    def run(root: Path) -> None:
        shared = pair.shared
        meeting.wait()
        try:
            why = f"so wants {root.name}"
            found = history.cutover(root, wanted, WHO, why, 5, force=True, expect=expect, shared=shared)
            outcomes.append(found)
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(root,)) for root in (pair.root, pair.there)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_s3_gives_a_number_to_one_of_all_who_try(s3_url: str) -> None:
    remote = Remote(s3_url)
    meeting = threading.Barrier(4)
    won: list[int] = []

    def run(number: int) -> None:
        mine = Remote(s3_url)
        meeting.wait()
        if mine.create(layout.remote_history(1), bytes([number])):
            won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert remote.read(layout.remote_history(1)) == bytes(won)


def test_an_answer_that_was_lost_is_found_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.share()
    real = Remote.create

    def lose_the_answer(self: Remote, key: str, data: bytes) -> bool:
        real(self, key, data)
        raise RemoteError("the connection broke")

    def be_told_of_the_first_try(self: Remote, key: str, data: bytes) -> bool:
        real(self, key, data)
        return real(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "create", lose_the_answer)
        assert pair.cut_over(pair.root, pair.b).number == 2
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "create", be_told_of_the_first_try)
        assert history.rollback(pair.root, WHO, "", 6, shared=pair.shared).number == 3
    assert list(records_of(pair.root)) == [1, 2, 3]


@pytest.mark.parametrize("arrived", [True, False])
def test_an_answer_that_stays_lost_is_an_unknown_outcome_and_repeating_is_safe(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    pair.share()
    real_create, real_read = Remote.create, Remote.read
    is_broken = False

    def lose_the_answer(self: Remote, key: str, data: bytes) -> bool:
        nonlocal is_broken
        is_broken = True
        if arrived:
            real_create(self, key, data)
        raise RemoteError("the connection broke")

    def read(self: Remote, key: str) -> bytes | None:
        if is_broken:
            raise RemoteError("and did not come back")
        return real_read(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "create", lose_the_answer)
        patch.setattr(Remote, "read", read)
        with pytest.raises(UnknownOutcomeError, match="is not known") as unknown:
            pair.cut_over(pair.root, pair.b)
    assert unknown.value.exit_code == 4
    assert history.current(pair.root).version == pair.a
    assert pair.cut_over(pair.root, pair.b).number == 2
    assert list(records_of(pair.root)) == [1, 2]


@pytest.mark.parametrize("step", ["sync file", "sync folder"])
def test_a_failing_sync_of_the_shared_record_is_an_unknown_outcome(
    pair: Pair, observe_steps: Observe, step: str
) -> None:
    pair.share()
    record = pair.inside(2)

    def fail(at: str, path: Path) -> None:
        if at == step and path in (record, record.parent) and record.exists():
            raise OSError(5, "broken on purpose")

    observe_steps(fail)
    with pytest.raises(UnknownOutcomeError):
        pair.cut_over(pair.root, pair.b)
    assert history.current(pair.root).version == pair.a, "nothing is taken that a power cut may take there"
    synced: list[Path] = []
    observe_steps(lambda at, path: synced.append(path) if at.startswith("sync") else None)
    assert pair.cut_over(pair.root, pair.b).number == 2
    assert {record, record.parent} <= set(synced)


def test_whoever_is_overtaken_by_a_change_of_what_is_served_is_refused(pair: Pair, observe_steps: Observe) -> None:
    pair.share()
    pair.copy()
    overtake_with(observe_steps, lambda: holds.pin(pair.there, "bob", "", 9, shared=pair.shared))
    with pytest.raises(ConcurrentPublishError):
        pair.cut_over(pair.root, pair.b)
    assert history.current(pair.root).action == "pin", "it has taken what the other one decided"


def test_whoever_is_overtaken_by_anything_else_decides_again_on_top_of_it(pair: Pair, observe_steps: Observe) -> None:
    pair.share()

    def write_down_a_removal() -> None:
        newest = pair.shared.newest()
        assert newest is not None
        record = remark(newest, 2, RETIRE, who="bob", why="", now=9, subjects={pair.b: ""})
        assert pair.shared.announce(record, encode_history_record(record))

    overtake_with(observe_steps, write_down_a_removal)
    assert pair.cut_over(pair.root, pair.b).number == 3


def overtake_with(observe_steps: Observe, do: Callable[[], object]) -> None:
    """Have something else done once, right before the next record is created among the hosts."""
    is_done = False

    def overtake(step: str, path: Path) -> None:
        nonlocal is_done
        if step == "put new" and not is_done:
            is_done = True
            do()

    observe_steps(overtake)
