"""One history for all hosts: how it begins, what each takes of it, and what is not decided beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pair_of_hosts import WHO, Pair, records_of

import shortlist
from prediction_store import history, holds, layout
from prediction_store.check import check
from prediction_store.errors import (
    DamagedHistoryError,
    DiskError,
    DivergedHistoryError,
    MissingVersionError,
    PinnedError,
)
from prediction_store.transfer.shared import RemoteHistory

Observe = Callable[[Callable[[str, Path], None]], None]


def test_a_decision_is_the_same_bytes_here_and_among_the_hosts(pair: Pair) -> None:
    _a_decision_is_the_same_everywhere(pair)


def test_so_it_is_over_s3(pair_over_s3: Pair) -> None:
    _a_decision_is_the_same_everywhere(pair_over_s3)


def _a_decision_is_the_same_everywhere(pair: Pair) -> None:
    pair.share()
    record = pair.cut_over(pair.root, pair.b)
    assert (record.number, record.version, record.before) == (2, pair.b, [pair.a])
    assert pair.folder.read(layout.remote_history(2)) == records_of(pair.root)[2]
    pair.copy()
    back = history.rollback(pair.there, "bob@there", "bad", 6, shared=pair.shared)
    assert (back.number, back.version) == (3, pair.a)
    assert list(records_of(pair.there)) == [1, 2, 3], "it took what it had missed"
    assert check(pair.there).problems == []
    holds.pin(pair.root, WHO, "calm", 7, shared=pair.shared)
    assert records_of(pair.root)[3] == records_of(pair.there)[3]
    with pytest.raises(PinnedError):
        pair.cut_over(pair.there, pair.b)


def test_the_history_of_the_first_host_becomes_the_shared_one_newest_first(pair: Pair, observe_steps: Observe) -> None:
    history.cutover(pair.root, pair.b, WHO, "", 3)
    history.rollback(pair.root, WHO, "", 4)
    put: list[str] = []
    observe_steps(lambda step, path: put.append(path.name) if step == "put new" else None)
    pair.share()
    assert put == ["00000003.json", "00000002.json", "00000001.json"]
    assert {number: pair.folder.read(layout.remote_history(number)) for number in (1, 2, 3)} == records_of(pair.root)
    put.clear()
    pair.share()
    assert put == []


def test_a_history_is_begun_only_with_what_can_be_served(pair: Pair) -> None:
    with pytest.raises(MissingVersionError, match="is not complete in"):
        pair.shared.begin(pair.root)
    with pytest.raises(DivergedHistoryError, match="has none") as refused:
        pair.cut_over(pair.root, pair.b)
    assert "shortlist push" in refused.value.hint


def test_an_interrupted_beginning_is_finished_by_the_next_push(pair: Pair, observe_steps: Observe) -> None:
    history.cutover(pair.root, pair.b, WHO, "", 3)

    def interrupt(step: str, path: Path) -> None:
        if (step, path.name) == ("put new", "00000001.json"):
            raise KeyboardInterrupt

    observe_steps(interrupt)
    with pytest.raises(KeyboardInterrupt):
        pair.share()
    observe_steps(lambda step, path: None)
    assert pair.shared.newest_number() == 2
    pair.share()
    assert pair.folder.read(layout.remote_history(1)) == records_of(pair.root)[1]


def test_a_version_that_the_hosts_cannot_get_does_not_become_current(pair: Pair) -> None:
    pair.share(pair.a)
    with pytest.raises(MissingVersionError) as refused:
        pair.cut_over(pair.root, pair.b)
    assert refused.value.hint == f"shortlist push {pair.b}, on a host that has it"
    assert history.current(pair.root).version == pair.a
    pair.share(pair.b)
    assert pair.cut_over(pair.root, pair.b).version == pair.b


def test_a_decision_made_on_one_host_alone_is_found_and_there_is_a_way_out(pair: Pair) -> None:
    pair.share()
    history.cutover(pair.root, pair.b, WHO, "nobody else knows", 9)
    with pytest.raises(DivergedHistoryError, match="this host has history record 2, and the hosts have none"):
        history.rollback(pair.root, WHO, "", 9, shared=pair.shared)
    pair.copy()
    pair.cut_over(pair.there, pair.b)
    with pytest.raises(DivergedHistoryError, match="and the hosts have another one") as refused:
        pair.cut_over(pair.root, pair.a)
    assert "docs/several-hosts.md" in refused.value.hint
    assert history.current(pair.root).version == pair.b, "it goes on serving"
    layout.history_folder(pair.root).rename(pair.root / "history.of-its-own")  # as that document says
    assert history.rollback(pair.root, WHO, "", 10, shared=pair.shared).number == 3
    assert records_of(pair.root)[2] == records_of(pair.there)[2]


def test_records_are_taken_newest_first_and_gaps_are_filled_by_the_next(pair: Pair, observe_steps: Observe) -> None:
    pair.share()
    pair.cut_over(pair.root, pair.b)
    holds.pin(pair.root, WHO, "", 6, shared=pair.shared)
    pair.copy()
    linked: list[str] = []

    def interrupt(step: str, path: Path) -> None:
        if step == "link":
            linked.append(path.name)
            if len(linked) == 2:
                raise KeyboardInterrupt

    observe_steps(interrupt)
    with pytest.raises(KeyboardInterrupt):
        pair.shared.ground(pair.there, tolerate_damage=False)
    assert linked == ["00000003.json", "00000002.json"]
    assert history.current(pair.there).version == pair.b, "never the older decision"
    observe_steps(lambda step, path: None)
    pair.shared.ground(pair.there, tolerate_damage=False)
    assert records_of(pair.there) == records_of(pair.root)


def test_a_host_that_lacks_the_version_decides_on_the_record_and_does_not_take_it(pair: Pair) -> None:
    """Its servers would find no version: taking the record is left to `follow`, which brings both."""
    pair.share()
    pair.cut_over(pair.root, pair.b)
    pair.copy(pair.a)
    assert holds.pin(pair.there, "bob", "", 6, shared=pair.shared).number == 3
    assert records_of(pair.there) == {}
    assert history.rollback(pair.there, "bob", "", 6, shared=pair.shared).version == pair.a
    assert list(records_of(pair.there)) == [1, 2, 3, 4]


def test_a_host_that_has_nothing_can_pin(pair: Pair, tmp_path: Path) -> None:
    pair.share()
    for _ in range(2):
        assert holds.pin(tmp_path / "desk", "ann@desk", "", 6, shared=pair.shared).number == 2
    assert holds.unpin(tmp_path / "desk", "ann@desk", "", 7, shared=pair.shared).number == 3
    assert records_of(tmp_path / "desk") == {}


def test_a_host_that_flips_with_others_leaves_the_record_to_follow(pair: Pair) -> None:
    pair.share()
    member = RemoteHistory(pair.folder, waits=True)
    assert history.cutover(pair.root, pair.b, WHO, "", 5, shared=member).number == 2
    assert list(records_of(pair.root)) == [1], "the others are not ready"
    assert holds.pin(pair.root, WHO, "", 6, shared=member).number == 3, "and yet it stands on record 2"
    assert list(records_of(pair.root)) == [1]
    history.rollback(pair.root, WHO, "", 7, shared=member)
    assert list(records_of(pair.root)) == [1, 2, 3, 4], "that names what is served: nobody has to be waited for"


def test_a_damaged_record_is_mended_from_the_hosts(pair: Pair) -> None:
    pair.share()
    record = pair.cut_over(pair.root, pair.b)
    good = records_of(pair.root)[2]
    layout.history_path(pair.root, 2).write_bytes(b"")
    assert pair.shared.ground(pair.root, tolerate_damage=False).newest == record
    assert records_of(pair.root)[2] == good


@pytest.mark.leaves_damage
def test_a_damaged_shared_record_is_an_error_and_a_named_version_the_way_out(pair: Pair) -> None:
    pair.share()
    pair.cut_over(pair.root, pair.b)
    pair.inside(2).write_bytes(b"{}")
    layout.history_path(pair.root, 2).unlink()
    with pytest.raises(DamagedHistoryError, match=r"history/00000002\.json in file:"):
        history.rollback(pair.root, WHO, "", 9, shared=pair.shared)
    assert history.rollback(pair.root, WHO, "", 9, to=pair.a, shared=pair.shared).version == pair.a
    assert list(records_of(pair.root)) == [1, 3]


def test_the_verbs_decide_among_the_hosts_when_a_remote_is_configured(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    pair.share()

    def verb(*argv: str) -> tuple[int, str]:
        settings = [f"paths.store={pair.root}", f"store.remote={pair.folder.url}", "follow.host=me"]
        code = shortlist.run([argv[0], *(word for key in settings for word in ("--set", key)), *argv[1:]])
        found = capsys.readouterr()
        return code, found.out + found.err

    assert verb("cutover", pair.b)[0] == 0
    assert pair.folder.read(layout.remote_history(2)) is not None
    code, out = verb("cutover", pair.b)
    assert (code, out.startswith("nothing to do")) == (0, True)
    code, out = verb("rollback", "--set", 'follow.hosts=["me","you"]')
    assert (code, out.splitlines()[-1]) == (0, "the hosts share it now; this one takes it with shortlist follow")
    assert history.current(pair.root).version == pair.b
    for words in (["pin"], ["unpin"], ["release", pair.b], ["quarantine", pair.b], ["retire", "--keep", "2"]):
        assert verb(*words)[0] == 0, words
    assert pair.shared.newest_number() == 7
    code, out = verb("pin", "--set", "store.remote=file:///no/such/folder")
    assert (code, "in object storage" in out) == (1, True)


def test_nothing_of_object_storage_is_loaded_by_a_host_that_is_alone(pair: Pair) -> None:
    history.cutover(pair.root, pair.b, WHO, "", 3)
    code = (
        "import sys, shortlist\n"
        f"code = shortlist.run(['rollback', '--set', 'paths.store={pair.root}'])\n"
        "print([name for name in sys.modules if name.startswith('obstore')])\n"
        "sys.exit(code)"
    )
    place = Path(shortlist.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_a_full_disk_here_leaves_the_decision_among_the_hosts(pair: Pair, observe_steps: Observe) -> None:
    pair.share()

    def fail(step: str, path: Path) -> None:
        if step == "create" and path.name.startswith(".tmp-00000002"):
            raise OSError(28, "broken on purpose")

    observe_steps(fail)
    with pytest.raises(DiskError, match="broken on purpose"):
        pair.cut_over(pair.root, pair.b)
    observe_steps(lambda step, path: None)
    assert pair.cut_over(pair.root, pair.b).number == 2, "it finds its own decision, and takes it"
    assert list(records_of(pair.root)) == [1, 2]
