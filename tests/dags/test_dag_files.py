"""The DAG files as Airflow parses them: shape, schedule, params, and the command line of every task."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

ROOT = Path(__file__).resolve().parents[2]
NASTY = """it's "quoted"; $(touch /tmp/never) `id` --to {{ dag_run }} ünï"""
VERSION = "20261122T031500Z-3f9c0a1b"
AT_HOURS = "0 9-21/3 * * *"
AT_NIGHT = "2026-11-22T03:15:00+00:00"

REQUESTS = {
    "scheduled": ("shortlist_nightly", {}, AT_NIGHT),
    "triggered": ("shortlist_nightly", {}, "2026-03-01T00:00:01+00:00"),
    "day given": ("shortlist_nightly", {"day": "2026-02-03"}, AT_NIGHT),
    "null day": ("shortlist_nightly", {"day": None}, AT_NIGHT),
    "no day": ("shortlist_nightly", {"day": "yesterday"}, AT_NIGHT),
    "two lines": ("shortlist_nightly", {"day": "2026-02-03\n"}, AT_NIGHT),
    "within the day": ("shortlist_within_the_day", {}, "2026-11-22T15:00:00+00:00"),
    "rollback": ("shortlist_rollback", {"reason": NASTY}, AT_NIGHT),
    "rollback to": ("shortlist_rollback", {"reason": "bad prices", "to": VERSION}, AT_NIGHT),
    "rollback to nothing": ("shortlist_rollback", {"reason": "bad prices", "to": ""}, AT_NIGHT),
    "no reason": ("shortlist_rollback", {}, AT_NIGHT),
    "short reason": ("shortlist_rollback", {"reason": "no"}, AT_NIGHT),
    "no version": ("shortlist_rollback", {"reason": "bad prices", "to": "../../etc"}, AT_NIGHT),
}


@pytest.fixture(scope="module")
def parsed(dump: Any) -> dict[str, Any]:
    requests = [{"dag_id": dag, "params": params, "run_after": after} for dag, params, after in REQUESTS.values()]
    answer: dict[str, Any] = dump(requests, SHORTLIST_REFRESH=AT_HOURS)
    answer["rendered"] = dict(zip(REQUESTS, answer["rendered"], strict=True))
    return answer


@pytest.fixture(scope="module")
def nightly(parsed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = parsed["dags"]["shortlist_nightly"]
    return found


def test_the_dag_files_parse_without_errors_or_deprecations(parsed: dict[str, Any]) -> None:
    assert parsed["import_errors"] == {}
    assert parsed["warnings"] == {}
    assert sorted(parsed["dags"]) == ["shortlist_nightly", "shortlist_rollback", "shortlist_within_the_day"]


def test_the_dag_files_import_airflow_and_the_standard_library_only() -> None:
    ours = {"schemas", "prediction_store", "reranker", "jobs", "shortlist", "examples"}
    heavy = {"torch", "pyspark", "numpy", "pandas", "pyarrow", "faiss", "lmdb"}
    for path in sorted((ROOT / "dags").glob("*.py")):
        assert not imported(path) & (ours | heavy), path.name


def test_every_dag_tells_what_to_do_when_a_task_is_red(parsed: dict[str, Any]) -> None:
    for dag_id, dag in parsed["dags"].items():
        for task_id in dag["tasks"]:
            assert task_id in dag["doc"], f"{dag_id}: nothing is said of {task_id}"
        assert "red" in dag["doc"]


def test_the_night_runs_its_steps_one_after_the_other_at_a_quarter_past_three(nightly: dict[str, Any]) -> None:
    order = ["simulate", "prepare", "train", "candidates", "evaluate", "ranker", "build", "gate", "cutover", "retire"]
    assert list(nightly["tasks"]) == order
    for before, after in itertools.pairwise(order):
        assert nightly["tasks"][after]["upstream"] == [before]
        assert nightly["tasks"][after]["trigger_rule"] == "all_success"
    assert (nightly["schedule"], nightly["catchup"], nightly["max_active_runs"]) == ("15 3 * * *", False, 1)


def test_within_the_day_the_steps_are_those_of_the_night(parsed: dict[str, Any], nightly: dict[str, Any]) -> None:
    dag = parsed["dags"]["shortlist_within_the_day"]
    assert (dag["schedule"], dag["catchup"], dag["max_active_runs"]) == (AT_HOURS, False, 1)
    mine, theirs = ([(name, *task.items()) for name, task in found["tasks"].items()] for found in (dag, nightly))
    assert mine == theirs


def test_within_the_day_today_is_treated_and_the_model_kept(parsed: dict[str, Any], recorder: Path) -> None:
    found = dict(command_lines(parsed["rendered"]["within the day"], recorder))
    night = dict(command_lines(parsed["rendered"]["scheduled"], recorder))
    for task_id, argv in found.items():
        assert argv[argv.index("--day") + 1] == "2026-11-22"
        told = [word for word in argv if word != "--keep-model"]
        assert told == [word.replace("2026-11-21", "2026-11-22") for word in night[task_id]]
        assert ("--keep-model" in argv) == (task_id == "train")


def test_nothing_runs_within_the_day_where_it_is_not_asked_for(dump: Any) -> None:
    assert sorted(dump([])["dags"]) == ["shortlist_nightly", "shortlist_rollback"]


def test_times_that_cannot_be_read_keep_no_night_back(dump: Any) -> None:
    parsed = dump([], SHORTLIST_REFRESH="every three hours")
    assert "shortlist_nightly" in parsed["dags"]
    (said,) = parsed["import_errors"].values()
    assert "Exactly 5, 6 or 7 columns" in said


def test_only_the_cutover_announces_a_new_current_version(nightly: dict[str, Any]) -> None:
    announced = {task_id: task["outlets"] for task_id, task in nightly["tasks"].items() if task["outlets"]}
    assert announced == {"cutover": ["shortlist_current_version"]}


def test_a_refusal_is_final_and_a_failure_is_retried(nightly: dict[str, Any]) -> None:
    for task_id, task in nightly["tasks"].items():
        assert (task["retries"], task["final_exit_codes"]) == (2, [2, 3]), task_id


def test_a_rollback_is_never_repeated_by_itself(parsed: dict[str, Any]) -> None:
    dag = parsed["dags"]["shortlist_rollback"]
    assert dag["schedule"] is None
    assert dag["tasks"]["rollback"]["retries"] == 0


@pytest.mark.parametrize(
    ("request_", "day"),
    [
        ("scheduled", "2026-11-21"),
        ("triggered", "2026-02-28"),
        ("day given", "2026-02-03"),
        ("null day", "2026-11-21"),  # what the form of Airflow's page sends for a field that is emptied
    ],
)
def test_every_task_of_a_run_gets_the_same_day(parsed: dict[str, Any], recorder: Path, request_: str, day: str) -> None:
    for task_id, argv in command_lines(parsed["rendered"][request_], recorder):
        assert argv[argv.index("--day") + 1] == day, task_id


@pytest.mark.parametrize("request_", ["no day", "two lines", "no reason", "short reason", "no version"])
def test_a_bad_parameter_is_refused_before_any_task(parsed: dict[str, Any], request_: str) -> None:
    assert "refused" in parsed["rendered"][request_]


@pytest.mark.parametrize("request_", ["scheduled", "within the day", "rollback", "rollback to"])
def test_every_command_line_is_understood_by_the_real_parser(
    parsed: dict[str, Any], recorder: Path, request_: str
) -> None:
    for task_id, argv in command_lines(parsed["rendered"][request_], recorder):
        options = parse(argv)
        assert str(options["config"]).endswith("it's a shop.toml"), task_id


def test_the_tasks_together_are_the_whole_journey_in_its_order(parsed: dict[str, Any], recorder: Path) -> None:
    from jobs.journey import STEPS

    steps: list[str] = []
    for _, argv in command_lines(parsed["rendered"]["scheduled"], recorder):
        steps += parse(argv)["only"].split(",") if argv[0] == "run" else [argv[0]]
    assert tuple(steps) == STEPS


def test_a_reason_reaches_the_command_as_it_was_typed(parsed: dict[str, Any], recorder: Path) -> None:
    ((_, argv),) = command_lines(parsed["rendered"]["rollback"], recorder)
    assert parse(argv)["why"] == NASTY
    ((_, argv),) = command_lines(parsed["rendered"]["rollback to"], recorder)
    assert (parse(argv)["why"], parse(argv)["to"]) == ("bad prices", VERSION)
    ((_, argv),) = command_lines(parsed["rendered"]["rollback to nothing"], recorder)
    assert "--to" not in argv


def test_the_rollback_dag_and_the_store_agree_on_what_a_version_is_called() -> None:
    from schemas.documents import VERSION_NAME

    (pattern,) = re.findall(r'pattern=r"([^"]+)"', (ROOT / "dags/rollback.py").read_text())
    names = [VERSION, VERSION.upper(), VERSION + "0", VERSION.replace("T", " "), f"x{VERSION}", "", "..", VERSION[1:]]
    for name in names:
        assert bool(re.search(pattern, name)) == bool(name == "" or re.fullmatch(VERSION_NAME, name)), name


def imported(path: Path) -> set[str]:
    """Top-level names of the packages a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def command_lines(rendered: dict[str, Any], recorder: Path) -> Iterator[tuple[str, list[str]]]:
    """What `shortlist` receives in each task; a shell line is read by a real bash."""
    for task_id, command in rendered["commands"].items():
        if "argv" in command:
            argv = command["argv"]
            assert argv[0] == "spark-submit"
            assert command["env"]["PYSPARK_DRIVER_PYTHON"] == str(recorder / "python")
            yield task_id, argv[argv.index(str(ROOT / "shortlist.py")) + 1 :]
        else:
            environment = {"PATH": "/usr/bin:/bin", **command["env"]}
            answer = subprocess.run(
                ["bash", "-c", command["bash"]], env=environment, capture_output=True, text=True, check=True
            )
            yield task_id, answer.stdout.split("\0")[:-1]


def parse(argv: list[str]) -> dict[str, Any]:
    """The options that the verb's own parser reads from `argv`; nothing is run.

    Raises a usage error of click's when the verb or an option does not exist.
    """
    import shortlist

    module = shortlist.module_of(argv[0])
    assert module is not None, f"there is no verb {argv[0]!r}"
    group: Any = typer.main.get_command(importlib.import_module(module).app)
    heard: dict[str, Any] = {}
    for verb in group.commands.values():
        verb.callback = lambda **options: heard.update(options)
    group.main(argv, standalone_mode=False)
    return heard
