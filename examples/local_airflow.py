"""A whole Airflow on this machine, for the demo and the tests: started, asked over REST, stopped without remains.

Scheduler, API server and dag processor, on SQLite and loopback, with ports chosen by the kernel. Everybody who can
reach the port is an administrator, so this is no way to run Airflow for others: see docker/compose.yaml.

Run by hand it stays until Ctrl-C:  .venv/bin/python examples/local_airflow.py [--config shortlist.toml]
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARK = "SHORTLIST_STARTED_FOR"
"""Environment variable that every process started here hands down; how remains of a killed attempt are found."""

# As jobs/spark.py sets them, for a Java that spark-submit starts: quick for short jobs, and quiet.
JAVA_OPTIONS = (
    f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.configurationFile={ROOT.as_uri()}/jobs/log4j2.properties"
)
SPARK_DEFAULTS = f"""\
spark.driver.extraJavaOptions {JAVA_OPTIONS}
spark.ui.enabled false
spark.ui.showConsoleProgress false
"""


class LocalAirflowError(Exception):
    """Raised when Airflow does not start, or does not answer any more. The message names the log to read."""


class LocalAirflow:
    """Airflow with the home folder `home`. A context manager: leaving it stops every process.

    Args:
        home: everything Airflow writes: database, logs. Emptied on start: a killed scheduler leaves tasks "running".
        settings: further environment variables of every process, such as SHORTLIST_CONFIG.
        tick: called between two looks while something is awaited.
    """

    def __init__(
        self, home: Path, settings: Mapping[str, str], *, tick: Callable[[], None] = lambda: time.sleep(0.5)
    ) -> None:
        self.home = home.resolve()
        self.port = free_port()
        self._tick = tick
        self._settings = dict(settings)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalAirflow:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when a DAG can be triggered. On any failure nothing is left running."""
        end_marked(str(self.home))
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / "spark").mkdir(parents=True)
        (self.home / "spark" / "spark-defaults.conf").write_text(SPARK_DEFAULTS)
        self._environment = self._make_environment()
        try:
            self._run("db-migrate", "db", "migrate")
            for name in ("api-server", "scheduler", "dag-processor"):
                self._processes[name] = self._spawn(name, name)
            self._wait(self._is_ready, "start", seconds=240)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process, tasks in flight included."""
        for process in self._processes.values():
            _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process.pid, signal.SIGKILL)
                process.wait()
        self._processes.clear()
        end_marked(str(self.home))

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler start the runs that are due."""
        self._request("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The DAG's runs, oldest first."""
        return list(self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns?order_by=run_after&limit=100")["dag_runs"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """A run's task instances, in no order."""
        return list(self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"])

    def wait_for(self, is_done: Callable[[], bool], what: str, *, seconds: float = 900) -> None:
        """Look again and again until `is_done`.

        Raises:
            LocalAirflowError: a process of Airflow's died, or `seconds` have passed.
        """
        self._wait(is_done, what, seconds=seconds)

    def log_tail(self, dag_id: str, run_id: str, task_id: str, lines: int = 25) -> str:
        """The last lines of a task's newest log."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        attempts = sorted(folder.glob("attempt=*.log"), key=lambda path: path.stat().st_mtime)
        if not attempts:
            return f"(no log in {folder})"
        return "\n".join(list(_events(attempts[-1]))[-lines:])

    def command(self, *arguments: str) -> list[str]:
        """Argv of Airflow's own command line; give it `environment`."""
        return [str(ROOT / ".venv-airflow/bin/airflow"), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return dict(self._environment)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _make_environment(self) -> dict[str, str]:
        python = ROOT / ".venv/bin/python"
        java = subprocess.run([python, "-m", "jobs.java"], cwd=ROOT, capture_output=True, text=True, check=False)
        if java.returncode:
            raise LocalAirflowError(f"no Java for Spark: {java.stderr.strip()}")
        path = os.pathsep.join(
            (str(ROOT / ".venv-airflow/bin"), str(ROOT / ".venv/bin"), os.environ.get("PATH", os.defpath))
        )
        # What is set for another Airflow or Spark on this machine must not reach this one.
        foreign = ("AIRFLOW_", "SPARK_", "PYSPARK_", "SHORTLIST_", "PYTHON")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        spark = {"conn_type": "spark", "host": "local[*]", "extra": {"deploy-mode": "client"}}
        ours = {
            "PATH": path,
            "JAVA_HOME": java.stdout.strip(),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_CONF_DIR": str(self.home / "spark"),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",  # the default is every interface
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(spark),
            "SHORTLIST_HOME": str(ROOT),
            "SHORTLIST_PYTHON": str(python),
            # Airflow's processes rename themselves, which would overwrite the mark.
            "SPT_NOENV": "1",
            MARK: str(self.home),
        }
        return inherited | ours | self._settings

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that stopping reaches its children, and Ctrl-C reaches only us
            )

    def _run(self, name: str, *arguments: str) -> None:
        self._processes[name] = process = self._spawn(name, *arguments)
        self._wait(lambda: process.poll() is not None, name, seconds=240, may_end=name)
        del self._processes[name]
        if process.returncode:
            raise LocalAirflowError(f"`airflow {' '.join(arguments)}` failed; {self._log_of(name)}")

    def _wait(self, is_done: Callable[[], bool], what: str, *, seconds: float, may_end: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not _is_done(is_done):
            for name, process in self._processes.items():
                if name != may_end and process.poll() is not None:
                    raise LocalAirflowError(f"airflow {name} ended with {process.returncode}; {self._log_of(name)}")
            if time.monotonic() > deadline:
                raise LocalAirflowError(f"{what}: not done after {seconds:.0f} s; logs are in {self.home}")
            self._tick()

    def _is_ready(self) -> bool:
        try:
            health = self._request("GET", "/api/v2/monitor/health")
            self._request("GET", "/api/v2/dags/shortlist_nightly")
            self._request("GET", "/api/v2/dags/shortlist_rollback")
        except (OSError, ValueError):  # not listening yet, or not parsed yet
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def _token(self) -> str:
        with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:
            return str(json.load(answer)["access_token"])

    def _log_of(self, name: str) -> str:
        log = self.home / f"{name}.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        return f"the end of {log}:\n{tail}"


def _is_done(is_done: Callable[[], bool]) -> bool:
    """Asked again where the API server was too busy to answer: whether it lives is seen by its process."""
    try:
        return is_done()
    except OSError as error:
        if not isinstance(getattr(error, "reason", error), TimeoutError):
            raise
        return False


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def marked_processes(mark: str) -> list[int]:
    """The processes whose environment says that they were started for `mark`, this one left out."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # gone meanwhile, or another user's
            continue
    return found


def end_marked(mark: str) -> int:
    """Kill what an earlier attempt left behind; returns how many processes that were."""
    ended: set[int] = set()
    while left := marked_processes(mark):
        for pid in left:
            ended.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            except (ProcessLookupError, ChildProcessError):
                continue
        time.sleep(0.05)
    return len(ended)


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _events(log: Path) -> Iterator[str]:
    """A task's log as plain lines: each is JSON with the text under `event`."""
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            yield line
            continue
        yield str(entry.get("event", line)) if isinstance(entry, dict) else line
        for error in entry.get("error_detail") or [] if isinstance(entry, dict) else []:
            yield f"  {error.get('exc_type')}: {error.get('exc_value')}"


def main() -> None:
    config = sys.argv[sys.argv.index("--config") + 1] if "--config" in sys.argv else "shortlist.toml"
    with LocalAirflow(ROOT / ".airflow", {"SHORTLIST_CONFIG": str(Path(config).resolve())}) as airflow:
        print(f"Airflow answers at {airflow.url}; Ctrl-C stops it", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
