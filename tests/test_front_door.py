"""The one command: lazy, helpful, and with exit codes that a scheduler can read."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from shop_store import write_small_version

import shortlist
from prediction_store import history, layout
from schemas.errors import RefusedError, ShortlistError, UnknownOutcomeError, UsageError

ROOT = Path(__file__).parents[1]
VERSION = "20260101T010000Z-ca978112"
READ = (
    "versions",
    "history",
    "check",
    f"check {VERSION}",
    "items show",
    "lookup u0",
    "replay x",
    "skew",
    "export lists.csv",
)
CHANGE = ("items set a01 --hide", f"cutover {VERSION}", f"quarantine {VERSION}", "rollback", "pin", "retire")
REASONS = {
    "a file": "Not a directory",
    "a file/below": "Not a directory",
    "a loop": "Too many levels of symbolic links",
    "x" * 300: "File name too long",
}
"""What the kernel says of the paths that `wrong` makes."""
MODULES = [module for module, _ in shortlist.VERBS.values()]


def command(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "shortlist.py", *argv], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", MODULES)
def test_the_table_of_verbs_is_what_the_packages_offer(module: str) -> None:
    app = importlib.import_module(module).app
    offered = {entry.name or entry.callback.__name__ for entry in app.registered_commands}
    offered |= {group.name for group in app.registered_groups}
    listed = {verb for owner, verbs in shortlist.VERBS.values() if owner == module for verb in verbs}
    assert offered == listed


def test_a_variable_with_one_underscore_too_few_is_told_with_the_right_name_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SHORTLIST_PATHS_STORE", "SHORTLIST_SERVE_ORDER_CAPS", "SHORTLIST_HOME", "SHORTLIST_TRAIN__SEED"):
        monkeypatch.setenv(name, "7")
    assert shortlist.run(["config"]) == 0
    said = capsys.readouterr()
    assert f'store = "{tmp_path / "store"}"' in said.out
    assert said.err.count("is not read") == 2
    assert "SHORTLIST_PATHS_STORE is not read\n  next: write SHORTLIST_PATHS__STORE," in said.err
    assert "next: write SHORTLIST_SERVE__ORDER__CAPS," in said.err


@pytest.mark.parametrize("module", MODULES)
def test_every_verb_has_help_with_an_example(module: str) -> None:
    group = typer.main.get_command(importlib.import_module(module).app)
    for name, verb in getattr(group, "commands", {}).items():
        assert verb.help and f"shortlist {name}" in verb.help, f"{name} has no example in its help"
        for part, command in getattr(verb, "commands", {}).items():
            assert f"shortlist {name} {part}" in command.help, f"{name} {part} has no example in its help"


def test_a_verb_of_the_store_loads_nothing_of_the_other_packages() -> None:
    code = (
        "import sys, shortlist\n"
        "assert shortlist.run(['versions', '--help']) == 0\n"
        "heavy = 'torch pyspark airflow pandas pyarrow faiss numpy jobs reranker'.split()\n"
        "heavy = set(heavy) & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_verb_names_the_nearest_and_exits_2() -> None:
    done = command("rolback")
    assert done.returncode == 2
    assert "did you mean 'rollback'?" in done.stderr


def test_an_unknown_option_exits_2_without_a_traceback() -> None:
    done = command("versions", "--nope")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_mistyped_key_exits_2_and_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "shortlist.toml").write_text("[train]\nmax_epoch = 3\n")
    done = command("config", cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown key 'train.max_epoch' (from shortlist.toml); nearest known key: 'train.max_epochs'" in done.stderr


@pytest.mark.parametrize("name", ["httptools", "prometheus_client", "starlette", "uvicorn"])
def test_a_server_that_lacks_a_package_says_which_extra_brings_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    assert shortlist.run(["serve", "--host", "no address"]) == 1
    said = f"shortlist serve: {name} is not installed here\n  next: pip install 'shortlist-recommender[serve]'\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("error", "code"), [(ShortlistError, 1), (UsageError, 2), (RefusedError, 3), (UnknownOutcomeError, 4)]
)
def test_each_kind_of_error_has_its_exit_code(
    error: type[ShortlistError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import schemas.config_file

    def fail(*_: object) -> None:
        raise error("it broke", hint="mend it")

    monkeypatch.setattr(schemas.config_file, "load", fail)
    assert shortlist.run(["config"]) == code
    assert capsys.readouterr().err == "shortlist config: it broke\n  next: mend it\n"


def test_ctrl_c_is_told_and_exits_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import schemas.config_file

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(schemas.config_file, "load", interrupt)
    assert shortlist.run(["config"]) == 130
    assert "shortlist config: interrupted; nothing half-done is visible" in capsys.readouterr().err


def store(folder: Path) -> Path:
    """A store of one version, which is current."""
    name = write_small_version(folder, inputs="a")
    history.cutover(folder, name, "ann@host", "a test", 1, force=True)
    return folder


def printing_to(output: int, verb: str, place: Path, buffered: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "shortlist.py", *verb.split(), "--set", f"paths.store={place}"],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": buffered},
        cwd=place.parent,
        check=False,
    )


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_who_goes_changes_neither_what_is_done_nor_the_exit_code(tmp_path: Path, buffered: str) -> None:
    place = store(tmp_path / "store")
    reader, writer = os.pipe()
    os.close(reader)
    for verb in ("history", "versions", "pin", "unpin", "pin --help"):
        done = printing_to(writer, verb, place, buffered)
        assert (done.returncode, done.stderr) == (0, ""), verb
    assert history.current(place).number == 3
    layout.gate_path(place, history.current(place).version).mkdir(parents=True)
    assert printing_to(writer, "check", place, buffered).returncode == 1
    os.close(writer)


@pytest.mark.parametrize("buffered", ["", "1"])
def test_an_output_that_cannot_be_written_is_told_after_what_was_decided(tmp_path: Path, buffered: str) -> None:
    place = store(tmp_path / "store")
    with Path("/dev/full").open("w") as full:
        for verb in ("pin", "unpin", "history", "pin --help"):
            done = printing_to(full.fileno(), verb, place, buffered)
            assert done.returncode == 1
            assert done.stderr.splitlines() == [
                f"shortlist {verb.split()[0]}: its output cannot be written: No space left on device;"
                " what it did stands",
                "  next: shortlist history shows what was decided",
            ]
        assert printing_to(full.fileno(), "cutover nonsense", place, buffered).returncode == 2
    assert history.current(place).number == 3


def test_a_verb_without_an_output_does_what_it_is_told(tmp_path: Path) -> None:
    place = store(tmp_path / "store")
    argv = [sys.executable, str(ROOT / "shortlist.py"), "pin", "--set", f"paths.store={place}"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *argv], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert history.current(place).number == 2


@pytest.mark.parametrize("to", ["2>&-", "2>/dev/full", "2>&1 | true", "<&- >&- 2>&-"])
def test_a_night_goes_on_where_nobody_reads_its_log(tmp_path: Path, to: str) -> None:
    place = store(tmp_path / "store")
    draft = place / "versions" / ".building-left-behind"
    draft.mkdir()
    argv = [sys.executable, str(ROOT / "shortlist.py"), "run", "--only", "retire", "--day", "2026-01-01"]
    argv += ["--set", f"paths.store={place}"]
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f'"$@" {to}', "bash", *argv], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert not draft.exists()


def test_what_a_closed_stream_would_have_said_goes_into_no_file() -> None:
    code = "import os, shortlist; shortlist.run = lambda argv: os.write(2, b'!') - 1; shortlist.main([])"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    place = store(tmp_path / "store")
    assert shortlist.run(["pin", "--why", "a \u2192 b", "--set", f"paths.store={place}"]) == 0
    argv = [sys.executable, ROOT / "shortlist.py", "history", "--set", f"paths.store={place}"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a \\u2192 b" in done.stdout


def test_help_lists_every_verb() -> None:
    done = command("--help")
    assert done.returncode == 0
    for _, verbs in shortlist.VERBS.values():
        assert all(verb in done.stdout for verb in verbs)


def test_help_names_the_steps_and_what_else_an_option_takes() -> None:
    from jobs.journey import STEPS

    said = command("run", "--help").stdout
    assert [step for step in STEPS if step not in said] == []
    assert "the last day in the data" not in command("simulate", "--help").stdout, "of a shop that is not there yet"
    assert "default: 0" not in command("retire", "--help").stdout
    assert "transfer.max_mb_per_second" in command("push", "--help").stdout, "in the 80 columns of a terminal"


@pytest.mark.parametrize("verb", ["run", "retrieve"])
def test_changed_only_is_the_setting_for_one_run(verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import jobs.journey

    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs.journey, "run", lambda config, *_, **__: found.append(config.retrieve.changed_only))
    assert shortlist.run([verb, "--day", "2026-01-02"]) == 0
    assert shortlist.run([verb, "--day", "2026-01-02", "--changed-only"]) == 0
    assert found == [False, True]


@pytest.mark.parametrize("verb", ["run", "train"])
def test_a_model_is_kept_longer_for_one_run(verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import jobs.journey

    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs.journey, "run", lambda config, *_, **__: found.append(config.train.keep_days))
    assert shortlist.run([verb, "--day", "2026-01-02", "--set", "train.keep_days=7"]) == 0
    assert shortlist.run([verb, "--day", "2026-01-02", "--keep-model"]) == 0
    assert found == [7, 2]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("rollback --to=", "'' is not the name of a version"),
        ("run --only= --day=2026-01-02", "there is no step ''"),
        ("run --day=", "--day '' is not a day"),
        ("tune --knobs= --day=2026-01-02", "there is no knob ''"),
    ],
)
def test_an_option_that_is_given_nothing_is_not_one_that_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: str, message: str
) -> None:
    """`--to "$VERSION"` of a script in which that is empty."""
    monkeypatch.chdir(tmp_path)
    assert shortlist.run([*argv.split(), "--set", "data.interactions.path=events.csv"]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with paths of `REASONS`, which not even root can look into."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("", encoding="utf-8")
    (tmp_path / "a loop").symlink_to("a loop")
    return tmp_path


@pytest.mark.parametrize("place", REASONS, ids=lambda place: place[:12])
@pytest.mark.parametrize("verb", [*READ, *CHANGE])
def test_a_path_that_can_be_no_store_is_told_with_the_reason(
    wrong: Path, capsys: pytest.CaptureFixture[str], verb: str, place: str
) -> None:
    assert shortlist.run([*verb.split(), "--set", f"paths.store={wrong / place}"]) == 1
    said = capsys.readouterr().err
    assert str(wrong / place) in said
    assert REASONS[place] in said or "there is no store at" in said


@pytest.mark.parametrize("place", REASONS, ids=lambda place: place[:12])
@pytest.mark.parametrize("verb", ["replay x", "skew", "outcomes"])
def test_a_path_that_can_be_no_log_is_told_with_the_reason(
    wrong: Path, capsys: pytest.CaptureFixture[str], verb: str, place: str
) -> None:
    assert shortlist.run([*verb.split(), "--set", f"paths.events={wrong / place}"]) == 1
    assert f"reading {wrong / place}: {REASONS[place]}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--config=closed/file", *READ[3:], CHANGE[0], "prepare .", "prepare table"])
def test_what_this_user_may_not_read_is_told_with_the_reason(tmp_path: Path, option: str) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "day.csv").touch(mode=0)
    (tmp_path / "table" / "other day.csv").write_text("user,item,time\n")
    argv = ["config", option] if option.startswith("--") else [*option.split(), "--set", "paths.store=closed/store"]
    if argv[0] == "prepare":
        argv[1:2] = ["--set", f"data.interactions.path={argv[1]}"]
    without: list[str] = []
    if os.geteuid() == 0:  # who may read everything, unless that is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("nothing here takes root's rights away")
        rights = "-dac_override,-dac_read_search"
        without = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    done = subprocess.run(
        [*without, sys.executable, ROOT / "shortlist.py", *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if option.startswith("--") else 1)
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
