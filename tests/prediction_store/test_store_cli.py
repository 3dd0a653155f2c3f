"""The operator's side: what each verb prints, its exit code, and what happens when something is wrong."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from shop_store import MakeVersion

import shortlist
from prediction_store import history, layout
from prediction_store.terminal import printable


@pytest.fixture
def verb(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a verb through the front door: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        code = shortlist.run([*argv, "--set", f"paths.store={root}"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


Verb = Callable[..., tuple[int, str, str]]


def test_the_life_of_a_version(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a, b = make_version("a"), make_version("b")
    assert verb("gate", a)[0] == 0
    assert verb("cutover", a, "--why", "first")[0] == 0
    assert verb("gate", b)[0] == 0
    code, out, _ = verb("cutover", b)
    assert (code, out[:25]) == (0, b)
    assert f"instead of {a}" in out
    code, out, _ = verb("rollback", "--reason", "bad", "--who", "ann@desk")
    assert (code, out[:25]) == (0, a)
    record = history.current(root)
    assert (record.version, record.why, record.who) == (a, "bad", "ann@desk")
    assert verb("check")[0] == 0
    assert verb("retire")[0] == 0


def test_who_did_it_is_known_without_being_told(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a = make_version("a")
    verb("cutover", a, "--force", "--why", "a test")
    user, host = history.current(root).who.split("@")
    assert user
    assert host


def test_versions_shows_which_one_is_current(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a, b, c = (make_version(inputs, expires_at=4_000_000_000) for inputs in "abc")
    assert "no version is current" in verb("versions")[1]
    for name in (a, b):
        history.cutover(root, name, "ann@host", "a test", 1, force=True)
    code, out, _ = verb("versions")
    lines = out.splitlines()
    assert code == 0
    assert [line[2:27] for line in lines[1:4]] == [c, b, a]
    assert [line[0] for line in lines[1:4]] == [" ", "*", "<"]
    assert [line[28:].split()[0] for line in lines[1:4]] == ["built", "current", "backup"]


def test_a_night_at_three(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    """Look, plan, roll back, hold, look again, let go."""
    a, b = (make_version(inputs, cut_over=True) for inputs in "ab")
    c = make_version("c")
    assert verb("gate", c)[0] == 0
    code, out, _ = verb("rollback", "--plan")
    assert (code, out.splitlines()[0].startswith("would append history record 3: rollback to " + a)) == (0, True)
    command = out.splitlines()[1].removeprefix("to do it: shortlist ").split()
    assert command == ["rollback", "--to", a, "--expect", "2", "--set", f"paths.store={root}"]
    assert history.current(root).number == 2
    assert verb(*command, "--why", "prices are wrong")[1].startswith(f"{a} is current, instead of {b}")
    assert verb(*command)[1].startswith("nothing to do"), "typed twice"
    assert verb("pin", "--why", "until somebody has looked")[0] == 0
    code, _, err = verb("cutover", c)
    assert (code, f"version {a} is pinned by history record 4" in err, "shortlist unpin" in err) == (3, True, True)
    _, out, _ = verb("versions")
    assert "pinned by history record 4" in out
    assert f"quarantined by history record 3: {b}" in out
    assert verb("unpin")[0] == 0
    code, _, err = verb("cutover", b, "--force", "--why", "I insist")
    assert (code, f"shortlist release {b}" in err) == (3, True)
    assert verb("release", b, "--why", "it was the feed")[0] == 0
    assert verb("quarantine", b)[0] == 0
    assert verb("quarantine", a)[0] == 3
    assert verb("cutover", c, "--expect", "1")[0] == 3
    assert verb("cutover", c, "--expect", "7")[0] == 0
    _, out, _ = verb("history")
    said = [" ".join(line.split()[3:5]) for line in out.splitlines()]
    assert said == [
        "cutover to", "quarantine of", "release of", "unpin, with", "pin, with", "rollback to", "cutover to",
        "cutover to",
    ]  # fmt: skip
    assert "until somebody has looked" in out
    assert f"rollback to {a}, {b} quarantined" in out


def test_a_plan_prints_the_command_that_does_just_this(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a, b = make_version("a", cut_over=True), make_version("b")
    for planned in (("cutover", b, "--force", "--why", "it's urgent; all of it"), ("rollback", "--to", a)):
        out = verb(*planned, "--plan")[1]
        command = shlex.split(out.splitlines()[1].removeprefix("to do it: shortlist "))
        assert verb(*command)[0] == 0
    second, third = history.read_record(root, 2), history.read_record(root, 3)
    assert (second.version, second.forced, second.why) == (b, True, "it's urgent; all of it")
    assert (third.version, third.action) == (a, "rollback")


def test_the_command_that_a_plan_prints_acts_on_the_same_store_in_the_same_name(
    root: Path, make_version: MakeVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    a, _ = make_version("a", cut_over=True), make_version("b", cut_over=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "the shop.toml").write_text('paths.store = "elsewhere"')
    given = ["--config", "the shop.toml", "--set", f"paths.store={root}", "--set", "store.shards=2", "--who", "ann"]
    assert shortlist.run(["rollback", *given, "--plan"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[1].removeprefix("to do it: shortlist "))
    assert shortlist.run(command) == 0
    newest = history.current(root)
    assert (newest.version, newest.number, newest.who) == (a, 3, "ann")


def test_versions_of_no_store_is_not_an_error(verb: Verb) -> None:
    code, out, _ = verb("versions")
    assert (code, "no versions" in out) == (0, True)
    assert json.loads(verb("versions", "--json")[1]) == []


def test_every_verb_speaks_json(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a, b = make_version("a"), make_version("b")
    verb("cutover", a, "--force", "--why", "a test")
    report = json.loads(verb("gate", b, "--json")[1])
    assert (report["version"], report["outcome"], report["against"]) == (b, "warn", a)
    record = json.loads(verb("cutover", b, "--json")[1])
    assert (record["number"], record["version"], record["previous"]) == (2, b, a)
    rows = json.loads(verb("versions", "--json")[1])
    assert [(row["version"], row["is_current"], row["gates"]) for row in rows] == [
        (b, True, "warn"),
        (a, False, "not run"),
    ]
    assert json.loads(verb("rollback", "--json")[1])["version"] == a
    assert json.loads(verb("check", "--json")[1])["problems"] == []
    assert json.loads(verb("check", a, "--json")[1])["versions"] == [a]
    assert json.loads(verb("retire", "--json")[1])["removed"] == []
    assert json.loads(verb("release", b, "--json")[1])["subjects"] == [b]
    assert json.loads(verb("pin", "--json")[1])["pinned"] == 5
    assert json.loads(verb("unpin", "--json")[1])["pinned"] == 0
    assert list(json.loads(verb("quarantine", b, "--json")[1])["quarantined"]) == [b]
    assert [row["number"] for row in json.loads(verb("history", "--json")[1])] == [7, 6, 5, 4, 3, 2, 1]


def test_a_refused_version_exits_3_and_says_which_gate_and_by_how_much(
    root: Path, make_version: MakeVersion, verb: Verb
) -> None:
    name = make_version("a")
    code, out, err = verb("gate", name, "--set", "gates.coverage.warn=0.9", "--set", "gates.coverage.fail=0.9")
    assert code == 3
    assert "  REFUSED  coverage                   0.8  wanted at least 0.9    0.1 too little, 11.1% short" in out
    assert "gate coverage: found 0.8, wanted at least 0.9, 0.1 too little, 11.1% short" in err
    assert verb("cutover", name)[0] == 3
    assert history.current_or_none(root) is None
    assert layout.version_names(root) == [name], "it stays on disk"


def test_a_warning_is_printed_and_stops_nothing(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    make_version("a", cut_over=True)
    name = make_version("b")
    slow = ("--set", "gates.lookup_p99_us.warn=1e9")  # a lookup may take what the machine lets it take
    code, out, err = verb("gate", name, "--set", "gates.out_of_stock.warn=0.01", *slow)
    assert (code, err) == (0, "")
    assert "  WARNING  out_of_stock              0.08  wanted at most 0.01    0.07 too much, 700.0% over" in out
    assert out.splitlines()[-1] == "22 passed, 3 with a warning"
    assert verb("cutover", name)[0] == 0
    assert "warn" in verb("versions")[1].splitlines()[1].split()


def test_gates_are_run_without_loading_what_takes_long(root: Path, make_version: MakeVersion) -> None:
    make_version("a", cut_over=True)
    name = make_version("b")
    code = (
        "import sys, shortlist\n"
        f"code = shortlist.run(['gate', {name!r}, '--set', 'paths.store={root}'])\n"
        "slow = {'torch', 'pyspark', 'pandas', 'pyarrow', 'faiss', 'numba', 'starlette', 'airflow', 'scipy'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    place = Path(shortlist.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["cutover", "../../etc"], 2, "is not the name of a version"),
        (["cutover", "20260101T000000Z-00000000"], 2, "is not there"),
        (["gate", "20260101T000000Z-00000000"], 2, "is not there"),
        (["check", "20260101T000000Z-00000000"], 1, "there is no store at"),
        (["cutover"], 2, ""),
        (["rollback"], 1, "no version is current"),
        (["retire", "--keep", "1"], 2, "wanted at least 2"),
        (["retire", "--keep", "0"], 2, "wanted at least 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_a_message_and_no_trace(verb: Verb, argv: list[str], code: int, message: str) -> None:
    found, _, err = verb(*argv)
    assert found == code
    assert message in err
    assert "Traceback" not in err


def test_force_without_a_reason_is_a_usage_error(make_version: MakeVersion, verb: Verb) -> None:
    code, _, err = verb("cutover", make_version("a"), "--force")
    assert (code, "needs a reason" in err) == (2, True)


def test_a_second_rollback_with_nothing_before_is_refused(make_version: MakeVersion, verb: Verb) -> None:
    make_version("a", cut_over=True)
    code, _, err = verb("rollback")
    assert (code, "no version was served before" in err) == (3, True)


@pytest.mark.leaves_damage
def test_damage_is_shown_by_check_and_survived_by_versions(
    root: Path, make_version: MakeVersion, verb: Verb, edit_sealed: Callable[..., None]
) -> None:
    a = make_version("a", cut_over=True)
    edit_sealed(layout.version_path(root, a) / layout.MANIFEST, lambda data: b"")
    code, out, err = verb("check")
    assert code == 1
    assert a in out
    assert "problems" in err
    assert "docs/operations.md" in err, "`versions` knows no more of it"
    code, _, err = verb("cutover", a, "--force", "--why", "I insist")
    assert (code, "if it is current" in err, "shortlist check" in err) == (1, True, False), "it would say the same"
    code, out, _ = verb("versions")
    assert (code, a in out) == (0, True)


def test_retire_says_what_went_and_why_the_rest_stays(make_version: MakeVersion, verb: Verb) -> None:
    a, b, c = (make_version(inputs, cut_over=True) for inputs in "abc")
    code, out, _ = verb("retire", "--keep", "2")
    assert (code, out.splitlines()) == (
        0,
        [f"removed {a}", f"kept    {c}: current", f"kept    {b}: rollback goes there"],
    )


@pytest.mark.leaves_damage
def test_retire_exits_1_and_says_what_could_not_be_removed(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a, b, c = (make_version(inputs, cut_over=True) for inputs in "abc")
    odd = layout.versions_folder(root) / "20200101T000000Z-aaaaaaaa"
    odd.touch()
    code, out, err = verb("retire", "--keep", "2")
    reason = f"opening {odd}/manifest.json: Not a directory"
    kept = [f"kept    {c}: current", f"kept    {b}: rollback goes there", f"kept    {odd.name}: {reason}"]
    assert (code, out.splitlines()) == (1, [f"removed {a}", *kept])
    assert f"1 could not be removed, the first is {odd.name}: {reason}" in err
    assert history.current(root).subjects == [a]
    code, out, _ = verb("retire", "--keep", "2", "--json")
    assert (code, json.loads(out)["failed"]) == (1, {odd.name: reason})


def test_rolling_back_loads_nothing_that_takes_long(root: Path, make_version: MakeVersion) -> None:
    for inputs in "ab":
        make_version(inputs, cut_over=True)
    code = (
        "import sys, shortlist\n"
        f"code = shortlist.run(['rollback', '--set', 'paths.store={root}'])\n"
        "slow = {'pydantic', 'numpy', 'lmdb', 'msgpack', 'obstore', 'torch', 'pyspark', 'pyarrow', 'starlette'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    place = Path(shortlist.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_what_only_spaces_or_joins_letters_is_printed_as_it_is() -> None:
    text = "می\u200cخواهم 👩\u200d👧 prix\u00a0: 5\u202f€ 夜\u3000空"
    assert printable(text) == text
    assert printable("\u202e\u2066\u2028\ufeff\u00ad") == "\\u202e\\u2066\\u2028\\ufeff\\xad"


def test_the_command_line_itself_imports_almost_nothing() -> None:
    code = "import sys, prediction_store.cli; print([m for m in ('numpy', 'msgspec', 'lmdb') if m in sys.modules])"
    place = Path(shortlist.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("place", ["nothing", "an empty folder"])
@pytest.mark.parametrize("argv", ["check", "retire", "history"])
def test_a_store_that_is_not_there_is_told(root: Path, verb: Verb, argv: str, place: str) -> None:
    if place == "an empty folder":
        root.mkdir()
    code, out, err = verb(argv)
    assert (code, out) == (1, "")
    assert f"there is no store at {root}" in err
    assert "paths.store" in err


@pytest.mark.leaves_damage
def test_the_way_out_of_a_damaged_newest_record_names_where_the_versions_stand(
    root: Path, make_version: MakeVersion, verb: Verb
) -> None:
    a, _ = (make_version(inputs, cut_over=True) for inputs in "ab")
    path = layout.history_path(root, 2)
    path.write_bytes(path.read_bytes().replace(b"test@localhost", b"evil@localhost"))
    for argv in (["versions"], ["rollback", "--plan"]):
        code, _, err = verb(*argv)
        assert (code, "shortlist history lists them" in err) == (1, True), argv
    code, out, _ = verb("history")
    assert (code, a in out) == (0, True)
    assert verb("rollback", "--to", a)[0] == 0


@pytest.mark.leaves_damage
def test_the_record_of_a_later_shortlist_is_told_without_a_way_out_that_is_none(
    root: Path, make_version: MakeVersion, verb: Verb
) -> None:
    a, _ = (make_version(inputs, cut_over=True) for inputs in "ab")
    body = msgspec.json.encode(msgspec.structs.replace(history.current(root), format=9))
    layout.history_path(root, 2).write_bytes(b'{"crc32":%d,"record":%s}' % (crc32(body), body))
    for argv in (["rollback", "--to", a], ["cutover", a, "--force", "--why", "a test"]):
        code, _, err = verb(*argv)
        assert (code, "has format 9" in err, "upgrade this host" in err, "roll back" in err) == (1, True, True, False)


@pytest.mark.parametrize("argv", ["pin", "unpin", "rollback"])
def test_without_a_current_version_the_next_command_is_named(
    root: Path, make_version: MakeVersion, verb: Verb, argv: str
) -> None:
    make_version("a")
    code, _, err = verb(argv)
    assert (code, "shortlist cutover VERSION" in err) == (1, True)
    assert f"no version is current in {root}" in err, "it may be another store than the one that was meant"


def test_a_current_version_that_is_not_there_is_told(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a, b = (make_version(inputs, cut_over=True) for inputs in "ab")
    away = [layout.version_path(root, name).rename(root / name) for name in (b, a)]
    told = f"version {b} is current by history record 2, and is not there"
    assert told in verb("versions")[1]
    away.pop().rename(layout.version_path(root, a))
    assert told in verb("versions")[1]
    away.pop().rename(layout.version_path(root, b))
    assert "not there" not in verb("versions")[1]


def test_a_hold_that_is_there_already_is_told(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a, b = (make_version(inputs, cut_over=True) for inputs in "ab")
    assert verb("unpin")[1] == f"nothing to do: {b} is current, history record 2, and not pinned\n"
    assert verb("release", a)[1] == f"nothing to do: {a} is not quarantined\n"
    assert verb("pin")[0] == verb("quarantine", a)[0] == 0
    assert verb("pin")[1] == f"nothing to do: {b} is current, history record 4, and pinned by history record 3\n"
    assert verb("quarantine", a)[1] == f"nothing to do: {a} is quarantined by history record 4\n"


@pytest.mark.parametrize("option", ["--why", "--who"])
@pytest.mark.parametrize("argv", ["pin", "retire", "rollback --plan"])
def test_words_that_are_no_text_are_refused(
    root: Path, make_version: MakeVersion, verb: Verb, argv: str, option: str
) -> None:
    """As the command line hands them over, where they are not UTF-8."""
    for inputs in "ab":
        make_version(inputs, cut_over=True)
    code, _, err = verb(*argv.split(), option, "a\udcff")
    assert (code, f"{option} 'a\\udcff' is not text in UTF-8" in err) == (2, True)
    assert history.current(root).number == 2


FORGED = "a\n     9  2026-01-01 00:00  cutover to FAKE  root: ok\x1b[31m\x9b2J"


def test_what_others_wrote_cannot_look_like_a_decision(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    a = make_version("a", cut_over=True)
    shown = [verb("pin", "--why", FORGED, "--who", FORGED)[1], verb("history")[1]]
    assert verb("unpin")[0] == 0
    history.cutover(root, make_version("b"), FORGED, FORGED, 1, force=True)
    shown += [verb("versions")[1], verb("history")[1], verb("rollback", "--to", a, "--who", FORGED)[1]]
    for out in shown:
        assert "\x1b" not in out
        assert "\x9b" not in out
        assert "\\n     9  2026" in out
        assert not any(line.startswith("     9") for line in out.splitlines())
    assert json.loads(verb("history", "--json")[1])[-2]["record"]["why"] == FORGED
