"""What `make demo` shows: two nights of a shop by the real scheduler, served, cut over and rolled back under traffic.

Everything lies in `.demo/`. Interrupted anywhere and started again, it finishes: what is done is found done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, NoReturn

from demo_report import announce, console, measure, show_answers, some_users, summary, what_next
from local_airflow import MARK, ROOT, LocalAirflow, LocalAirflowError, end_marked
from traffic import Client, Traffic

DEMO = ROOT / ".demo"
CONFIG = DEMO / "shortlist.toml"
LOG = DEMO / "commands.log"
SHORTLIST = ROOT / ".venv/bin/shortlist"
HISTORY_DAYS = 12

CONFIGURATION = """\
# Written by examples/demo.py. Everything that is not here has its default: `shortlist config` lists it.
[simulate]
start_day = "{start}"
days = {days}
users = 10000
items = 3000
events_per_day = 30000

[train]
max_epochs = 4
threads = 1  # two threads on two cores wait for each other whenever anything else runs

[store]
grace_hours = 0.0
"""


class DemoError(Exception):
    """Raised when a step of the demo fails; the message says which and shows the end of its log."""


def main() -> int:
    began = time.monotonic()
    with alone():
        try:
            journey(began)
        except KeyboardInterrupt:
            console.print("\ninterrupted; everything is stopped. `make demo` goes on from here")
            return 130
        except (DemoError, LocalAirflowError) as error:
            console.print("\n[bold red]the demo stopped:[/]")
            console.print(str(error), markup=False)
            console.print(f"\nWhat it made is in {DEMO}. `make demo` tries again; `rm -rf .demo` starts from nothing.")
            return 1
        finally:
            end_marked(str(DEMO))
    return 0


def journey(began: float) -> None:
    """The demo from top to bottom."""
    first, second = two_days(datetime.now(UTC))
    write_configuration(first)
    with contextlib.ExitStack() as stack:
        announce(f"inventing {HISTORY_DAYS} days of a shop, and starting Airflow: scheduler, API server, dag processor")
        history = begin("simulate")
        airflow = stack.enter_context(LocalAirflow(DEMO / "airflow", airflow_settings(first)))
        finish(history, "simulate")
        forget_the_end_of_an_earlier_demo(second)

        announce(f"the scheduler runs shortlist_nightly for {first}; to watch: {airflow.url}/dags/shortlist_nightly")
        airflow.unpause("shortlist_nightly")
        night(airflow, first)

        port = stack.enter_context(server())
        old = current_version(port)
        users, user = some_users(CONFIG, first)
        show_answers(CONFIG, port, old, user)

        announce(f"the scheduler goes on with {second}; requests keep coming, and the server follows the cutover")
        with Traffic(port, users) as during_cutover:
            night(airflow, second)
            new = await_other_version(port, old)
        airflow.stop()

        announce(f"suppose {new} is bad: shortlist rollback, with the server running")
        with Traffic(port, users, per_second=400, connections=4) as during_rollback:
            seconds = roll_back(during_rollback, old)

        announce("measuring lookups and requests, now that nothing else runs")
        figures = measure(CONFIG, port, old, users)
    traffics = [during_cutover, during_rollback]
    summary(figures, seconds, traffics, time.monotonic() - began)
    what_next(user, new)
    if failures := [failure for traffic in traffics for failure in traffic.failures]:
        raise DemoError("requests failed during the flips, which must not happen:\n" + "\n".join(failures[:5]))


def two_days(now: datetime) -> tuple[date, date]:
    """The last two days whose nightly run, at 03:15 on the day after, is due."""
    last = (now - timedelta(hours=3, minutes=15)).date() - timedelta(days=1)
    return last - timedelta(days=1), last


def write_configuration(first: date) -> None:
    """Write the configuration; with another one, of an earlier day or checkout, everything is made anew."""
    text = CONFIGURATION.format(start=first - timedelta(days=HISTORY_DAYS), days=HISTORY_DAYS)
    if CONFIG.exists() and CONFIG.read_text() == text:
        return
    for entry in DEMO.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    aside = CONFIG.with_suffix(".draft")
    aside.write_text(text)
    aside.rename(CONFIG)


def airflow_settings(first: date) -> dict[str, str]:
    """With a start date and catch-up, exactly two runs are due."""
    return {
        "SHORTLIST_CONFIG": str(CONFIG),
        "SHORTLIST_SIMULATE": "true",
        "SHORTLIST_START_DATE": first.isoformat(),
        "SHORTLIST_CATCHUP": "true",
        "SHORTLIST_RETRY_SECONDS": "5",
    }


def night(airflow: LocalAirflow, day: date) -> None:
    """Wait for the nightly run of a day, telling each task as it ends.

    Raises:
        DemoError: a task failed for good; with the end of its log.
    """
    dag = "shortlist_nightly"
    due = (day + timedelta(days=1)).isoformat()
    told: set[str] = set()
    with console.status(f"{day}: waiting for the scheduler") as status:

        def is_over() -> bool:
            run = next((run for run in airflow.runs(dag) if run["run_after"].startswith(due)), None)
            if run is None:
                return False
            tasks = airflow.tasks(dag, run["dag_run_id"])
            for task in sorted(tasks, key=lambda task: str(task["end_date"])):
                if task["state"] == "failed":
                    raise DemoError(failure(airflow, run["dag_run_id"], task["task_id"]))
                if task["state"] == "success" and task["task_id"] not in told:
                    told.add(task["task_id"])
                    console.print(f"   {task['task_id']:<12}{task['duration']:6.1f} s{again(task)}")
                elif task["state"] == "running":
                    status.update(f"{day}: {task['task_id']}")
            return bool(run["state"] == "success")

        airflow.wait_for(is_over, f"the night of {day}", seconds=1200)


def again(task: dict[str, Any]) -> str:
    return f"   (attempt {task['try_number']})" if task["try_number"] > 1 else ""


def failure(airflow: LocalAirflow, run_id: str, task_id: str) -> str:
    log = airflow.log_tail("shortlist_nightly", run_id, task_id)
    return (
        f"the task {task_id} of {run_id} failed. The end of its log:\n\n{log}\n\n"
        "The head of dags/nightly.py says what a failure of each task usually means."
    )


@contextlib.contextmanager
def server() -> Iterator[int]:
    """A re-ranker on loopback, ready; its port."""
    process = begin("serve", "--port", "0", stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()  # "serving on http://127.0.0.1:40123 with 2 workers"
        if not line:
            raise DemoError(f"the server did not start; the end of {LOG}:\n{tail()}")
        announce(line.strip())
        port = int(line.split()[2].rsplit(":", 1)[1])
        deadline = time.monotonic() + 60
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the server is not ready; the end of {LOG}:\n{tail()}")
            time.sleep(0.1)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_ready(port: int) -> bool:
    try:
        with Client(port) as client:
            return client.get("/readyz")[0] == 200
    except OSError:
        return False


def current_version(port: int) -> str:
    with Client(port) as client:
        return str(client.get("/v1/version")[1]["version"])


def await_other_version(port: int, old: str) -> str:
    """The version after the cutover; a server follows within a second."""
    deadline = time.monotonic() + 30
    while (version := current_version(port)) == old:
        if time.monotonic() > deadline:
            raise DemoError(f"the server still answers from {old}; see {LOG}")
        time.sleep(0.05)
    return version


def roll_back(traffic: Traffic, old: str) -> float:
    """Roll back by the command line; seconds from its start to the first answer from the old version."""
    since = time.monotonic()
    command = begin("rollback", "--why", "the demo shows a rollback")
    deadline = since + 30
    while (first := traffic.first_from(old, since)) is None:
        if time.monotonic() > deadline:
            raise DemoError(f"no answer from {old} after the rollback; the end of {LOG}:\n{tail()}")
        time.sleep(0.005)
    finish(command, "rollback")
    time.sleep(1.0)  # requests go on for a second, so that a late answer from the other version would be seen
    return first - since


def forget_the_end_of_an_earlier_demo(second: date) -> None:
    """Where an earlier attempt got as far as the second version, go back to the first: the demo shows the way there."""
    answer = subprocess.run(
        [SHORTLIST, "versions", "--json", "--config", CONFIG], capture_output=True, text=True, check=False
    )
    end_of_second = int(datetime.combine(second + timedelta(days=1), datetime.min.time(), UTC).timestamp())
    versions = json.loads(answer.stdout or "[]")
    of_second = [version for version in versions if version["made_at"] == end_of_second]
    if any(version["is_current"] for version in of_second):
        finish(begin("rollback", "--why", "the demo starts again"), "rollback")
    for version in of_second:  # a rollback has quarantined it
        finish(begin("release", version["version"], "--why", "the demo starts again"), "release")


def begin(verb: str, *arguments: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """Start `shortlist VERB` with its output in the log; Ctrl-C reaches only the demo, which then stops it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SHORTLIST_")}
    with LOG.open("ab") as log:
        return subprocess.Popen(
            [SHORTLIST, verb, "--config", CONFIG, *arguments],
            cwd=DEMO,
            env=inherited | {MARK: str(DEMO)},
            stdin=subprocess.DEVNULL,
            stdout=log if stdout is None else stdout,
            stderr=log,
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes], verb: str) -> None:
    """Wait for it.

    Raises:
        DemoError: it failed.
    """
    if process.wait():
        raise DemoError(f"shortlist {verb} ended with {process.returncode}; the end of {LOG}:\n{tail()}")


def tail(lines: int = 15) -> str:
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One demo at a time; what a killed one left running is ended first."""
    DEMO.mkdir(exist_ok=True)
    with (DEMO / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another demo is running in this checkout")
            sys.exit(1)
        end_marked(str(DEMO))
        end_marked(str(DEMO / "airflow"))
        yield


def interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    sys.exit(main())
