"""A Spark standalone cluster on loopback: a master and workers, each a process of its own, on ports that are free.

Each worker stands for a machine of its own: it does not see the folders of the driver's machine that are named, but
empty ones in their place.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pyspark
from host_processes import PATIENCE_SECONDS

from jobs.java import java_home

SPARK_HOME = Path(pyspark.__file__).parent
ADDRESS = re.compile(r"Starting Spark master at (spark://\S+:\d+)")
REGISTERED = re.compile(r"Successfully registered with master")
TASK = re.compile(r"Running task \S+ in stage")


class StandaloneCluster:
    """A master and workers. A context manager: leaving it ends every process.

    Args:
        folder: for the logs and the workers' own files.
        cores: of each worker. Unequal, and in all not as many as local[2] has: so other numbers of tasks.
        unseen: folders that only the driver's machine has.
    """

    def __init__(self, folder: Path, *, cores: Sequence[int] = (1, 2), unseen: Iterable[Path] = ()) -> None:
        self._folder, self._unseen = folder, list(unseen)
        self._workers = {f"worker-{number + 1}": count for number, count in enumerate(cores)}
        self._processes = ExitStack()
        self.master = ""
        """The address, spark://127.0.0.1:PORT."""

    def __enter__(self) -> Self:
        self._folder.mkdir()
        with ExitStack() as started:
            master = self._start("master", ["org.apache.spark.deploy.master.Master"], started)
            self._await("master", master, ADDRESS)
            self.master = ADDRESS.findall(self._log("master"))[0]
            workers = {}
            for name, cores in self._workers.items():
                limits = ["--cores", str(cores), "--memory", "1g", "--work-dir", str(self._folder / name)]
                argv = ["org.apache.spark.deploy.worker.Worker", *limits, self.master]
                workers[name] = self._start(name, argv, started, self._unseen)
            for name, worker in workers.items():
                self._await(name, worker, REGISTERED)
            self._processes = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.close()

    def tasks(self) -> dict[str, int]:
        """How many tasks the executors of each worker have begun, by what they log."""
        logs = {name: (self._folder / name).glob("app-*/*/stderr") for name in self._workers}
        return {name: sum(len(TASK.findall(log.read_text())) for log in found) for name, found in logs.items()}

    def _start(
        self, name: str, argv: Sequence[str], started: ExitStack, unseen: Sequence[Path] = ()
    ) -> subprocess.Popen[bytes]:
        options = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        spark = shlex.join([str(SPARK_HOME / "bin/spark-class"), argv[0], *options, *argv[1:]])
        covers = [f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in unseen]
        line = " && ".join([*covers, f"exec {spark}"])
        # Like a machine of its own: it knows nothing of the driver's Python and where that finds its packages.
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYSPARK", "SPARK"))}
        mine |= {"SPARK_HOME": str(SPARK_HOME), "JAVA_HOME": java_home(), "SPARK_LOCAL_IP": "127.0.0.1"}
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*(_own_mounts() if unseen else []), "sh", "-c", line],
                cwd=self._folder,
                env=mine,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.callback(_end, process)
        return process

    def _await(self, name: str, process: subprocess.Popen[bytes], line: re.Pattern[str]) -> None:
        """Return when the log has the line; however long a crowded machine takes, while the process lives."""
        while line.search(self._log(name)) is None:
            assert process.poll() is None, self._log(name)
            time.sleep(0.1)

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()


def can_hide_folders() -> bool:
    """True where the kernel lets this user have mounts that one process alone sees."""
    try:
        argv = [*_own_mounts(), "mount", "-t", "tmpfs", "none", "/tmp"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _own_mounts() -> list[str]:
    return ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, on which Spark's daemons end their executors; SIGKILL for one that stays."""
    process.terminate()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
