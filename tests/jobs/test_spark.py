"""The session and its Java: found where they are, quiet, and with errors that name their cause."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pyspark.errors import PySparkException
from shop_server import eventually

from jobs import java
from jobs.errors import JobError, NoJavaError
from jobs.source_rows import readable
from jobs.sources import Source
from jobs.spark import _folder, errors_for_people, session, settings
from schemas.config import Spark

ROOT = Path(__file__).parents[2]


def fake_java(home: Path, major: int) -> Path:
    """A JAVA_HOME whose java only knows its version."""
    script = home / "bin" / "java"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!/bin/sh\necho 'openjdk version \"{major}.0.1\"' >&2\n")
    script.chmod(0o755)
    return home


def test_a_fit_java_of_the_machine_is_used(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "jdk", 21)
    assert java.java_home({"JAVA_HOME": str(home), "PATH": ""}) == str(home)
    assert java.java_home({"PATH": str(home / "bin")}) == str(home)


def test_an_unfit_java_gives_way_to_the_one_that_pip_brought(tmp_path: Path) -> None:
    home = java.java_home({"JAVA_HOME": str(fake_java(tmp_path / "jdk", 11)), "PATH": ""})
    answer = subprocess.run([f"{home}/bin/java", "-version"], capture_output=True, text=True, check=True)
    assert 'version "25' in answer.stderr


def test_a_java_that_cannot_be_run_gives_way_to_the_one_that_pip_brought(tmp_path: Path) -> None:
    of_another_machine, folder = tmp_path / "a" / "bin" / "java", tmp_path / "b" / "bin" / "java"
    of_another_machine.parent.mkdir(parents=True)
    of_another_machine.write_bytes(b"\x7fELF of another machine")
    of_another_machine.chmod(0o755)
    folder.mkdir(parents=True)
    wanted = java.java_home({"PATH": ""})
    for home in (tmp_path / "a", tmp_path / "b"):
        assert java.java_home({"JAVA_HOME": str(home), "PATH": ""}) == wanted


def test_an_environment_that_may_not_be_written_says_who_can_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "java-shim").write_text("in the way")  # root may write everywhere else
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(NoJavaError, match="java-shim/bin/java cannot be written: ") as refused:
        java.java_home({"PATH": ""})
    assert "python -m jobs.java" in refused.value.hint


def test_the_java_that_pip_brought_drops_the_module_it_lacks_and_nothing_else() -> None:
    home = java.java_home({"PATH": ""})
    argv = ["--add-modules=jdk.incubator.vector", "-Dwith space=a b", "-XshowSettings:properties", "-version"]
    answer = subprocess.run([f"{home}/bin/java", *argv], capture_output=True, text=True, check=True)
    assert "with space = a b" in answer.stderr


def test_a_machine_without_a_folder_for_temporary_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    monkeypatch.setattr("jobs.spark._folder", _folder.__wrapped__)  # this process may have made its own
    with pytest.raises(JobError, match="Spark does not start: No such file or directory"), session(Spark(), "x"):
        pass


def test_the_configurations_own_settings_have_the_last_word() -> None:
    found = settings(Spark(master="local[3]", conf={"spark.driver.memory": "5g"}))
    assert found["spark.driver.memory"] == "5g"
    assert "spark.sql.shuffle.partitions" not in found
    assert settings(Spark(shuffle_partitions=7))["spark.sql.shuffle.partitions"] == "7"


SESSION = """
import os, signal, sys, threading
from pathlib import Path
from jobs.errors import JobError
from jobs.partitions import PARTITIONS
from jobs.spark import errors_for_people, session
from schemas.config import Spark

began = Path("began")

def sleep(batches):
    import time
    for batch in batches:
        began.touch()
        time.sleep(3600)
        yield batch

def work(config, end, reports=False):
    def wait():
        while not began.exists():
            pass
        end()
    with session(config, "tests") as spark, errors_for_people("embed"):
        print(spark.conf.get(PARTITIONS))
        Path("temporary").write_text(spark._jvm.java.lang.System.getProperty("java.io.tmpdir"))
        assert list(Path(os.environ["TMPDIR"]).glob("shortlist-step-*/blockmgr-*"))
        if reports:
            spark.range(1).mapInArrow(lambda batches: batches, "id long").collect()  # adds to accumulators in Python
        threading.Thread(target=wait, daemon=True).start()
        spark.range(1).mapInArrow(sleep, "id long").collect()

def reset(_):
    raise ConnectionResetError(104, "Connection reset by peer")

if sys.argv[1] == "reset":  # in the midst of an answer: which way a dying Java goes is chance
    import py4j.clientserver
    try:
        with session(Spark(master="local[1]"), "tests") as spark, errors_for_people("embed"):
            py4j.clientserver.smart_decode = reset
            spark._jvm.java.lang.System.nanoTime()
    except JobError as error:
        print(error.message)
elif sys.argv[1] == "interrupt":
    try:
        work(Spark(master="local[3]"), lambda: os.kill(os.getpid(), signal.SIGINT))
    except KeyboardInterrupt:
        print("interrupted")
        print("interrupted", file=sys.stderr, flush=True)
else:
    from pyspark import SparkContext
    try:
        work(Spark(master="local[3]", conf={PARTITIONS: "5"}), lambda: SparkContext._gateway.proc.kill(), reports=True)
    except JobError as error:
        print(error.message)
"""


class Ended(NamedTuple):
    """What a process with a session of its own, for the tests have one, has said and left."""

    lines: list[str]
    errors: str
    folder: Path


def run_session(end: str, folder: Path) -> Ended:
    """That the output ends says, too, that no child of the process is left."""
    (folder / "temporary files").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SESSION, end], capture_output=True, text=True, check=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "temporary files")},
    )  # fmt: skip
    return Ended(done.stdout.splitlines(), done.stderr, folder)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """By Ctrl-C."""
    return run_session("interrupt", tmp_path_factory.mktemp("interrupted"))


@pytest.fixture(scope="module")
def without_java(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """By the end of its Java."""
    return run_session("kill", tmp_path_factory.mktemp("without_java"))


def test_work_is_cut_into_twice_as_many_tasks_as_there_are_cores_unless_somebody_has_said_otherwise(
    interrupted: Ended, without_java: Ended
) -> None:
    assert (interrupted.lines[0], without_java.lines[0]) == ("6", "5")


def test_ctrl_c_ends_a_session_without_stack_traces(interrupted: Ended) -> None:
    assert interrupted.lines[1] == "interrupted"
    assert "Traceback" not in interrupted.errors
    assert "\tat " not in interrupted.errors.partition("interrupted\n")[0], "of Java"


START = """
import contextlib, os, signal, threading
from pathlib import Path
from jobs.spark import session
from schemas.config import Spark

def interrupt():
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        for child in children.read_text().split():
            with contextlib.suppress(OSError):  # the one that says which Java it is has ended
                program, *arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\\0")
                if program.endswith(b"/java") and b"org.apache.spark.deploy.SparkSubmit" in arguments:
                    Path("java").write_text(child)
                    os.kill(os.getpid(), signal.SIGINT)
                    return

threading.Thread(target=interrupt, daemon=True).start()
try:
    with session(Spark(master="local[1]"), "tests"):
        print("started")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_while_java_starts_leaves_no_java(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as said:
        subprocess.run(
            [sys.executable, "-c", START], stdout=said, stderr=said, check=True, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert "interrupted\n" in (tmp_path / "said").read_text()
    assert "Traceback" not in (tmp_path / "said").read_text()
    child = Path("/proc") / (tmp_path / "java").read_text()
    eventually(lambda: not child.exists(), lambda: f"{child} is there")


def test_a_java_that_dies_is_told_in_one_line(without_java: Ended) -> None:
    assert without_java.lines[1].startswith("embed: Spark stopped: ")
    assert "Traceback" not in without_java.errors


def test_so_is_one_that_dies_while_it_answers(tmp_path: Path) -> None:
    ended = run_session("reset", tmp_path)
    assert ended.lines[-1].startswith("embed: Spark stopped: ")
    assert "Traceback" not in ended.errors


def test_temporary_files_are_where_tmpdir_says_and_gone_in_the_end(interrupted: Ended, without_java: Ended) -> None:
    for _, _, folder in (interrupted, without_java):
        assert Path((folder / "temporary").read_text()).parent == folder / "temporary files"
        assert list((folder / "temporary files").iterdir()) == []


def test_a_task_takes_nothing_in_the_folder_of_a_run_for_our_packages(spark: Any) -> None:
    assert spark.sparkContext.parallelize([0], 1).map(lambda _: sys.flags.safe_path).collect() == [True]


def test_an_error_inside_a_task_names_its_cause_in_one_line(spark: Any) -> None:
    def fail(batches: Iterator[Any]) -> Iterator[Any]:
        for _ in batches:
            raise OSError(28, "No space left on device")
        yield

    with pytest.raises(JobError) as caught, errors_for_people("build"):
        spark.range(3).mapInArrow(fail, "id long").collect()
    assert caught.value.message == "build: Spark stopped: OSError: [Errno 28] No space left on device"
    assert "\n" not in caught.value.message


def test_an_error_behind_an_error_is_told_first(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "some.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(JobError) as caught, errors_for_people("prepare"):
        spark.read.schema("id long").parquet(f"file://{tmp_path}").collect()
    assert caught.value.message.startswith("prepare: Spark stopped: java.lang.RuntimeException: ")
    assert "is not a Parquet file" in caught.value.message.partition(", at: ")[0]


def test_an_error_of_spark_itself_is_told_too(spark: Any, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"embed: Spark stopped: .*PATH_NOT_FOUND"), errors_for_people("embed"):
        spark.read.parquet(str(tmp_path / "none")).count()


def test_a_folder_for_temporary_files_that_runs_no_programs_is_no_fault_of_the_table() -> None:
    source = Source("items", Path("items.parquet"), "parquet", (), ())
    said = "An error occurred\nCaused by: java.lang.UnsatisfiedLinkError: /tmp/snappy.so: failed to map segment"
    with pytest.raises(JobError) as caught, errors_for_people("prepare"), readable(source):
        raise PySparkException(said)
    assert "prepare: Spark stopped: java.lang.UnsatisfiedLinkError: /tmp/snappy.so: " in caught.value.message
    assert "noexec" in caught.value.hint


def test_workers_run_the_python_that_runs_the_tests(spark: Any) -> None:
    def interpreter(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for _ in batches:
            yield pa.RecordBatch.from_pydict({"python": [sys.prefix]})

    assert os.environ["PYSPARK_PYTHON"] == sys.executable
    seen = spark.range(1).mapInArrow(interpreter, "python string").first()
    assert seen["python"] == sys.prefix
