"""The only maker of a SparkSession."""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jobs import cluster
from jobs.errors import JobError
from jobs.java import java_home
from jobs.partitions import PARTITIONS
from jobs.temporary import temporary_folder
from schemas.config import Spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PATIENCE_SECONDS = 5.0
"""For a Java that may be too busy to answer."""
NO_LIBRARY = "java.lang.UnsatisfiedLinkError"
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@contextmanager
def session(config: Spark, name: str) -> Iterator[SparkSession]:
    """A session named `shortlist-<name>`, stopped when the block ends.

    Under spark-submit the Java process is already there: its settings win over ours where both are given.

    Raises:
        JobError: Spark does not start, as when there is no master at the address, or no room for temporary files.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    # Workers are started as `python3` from PATH otherwise, which may be another Python without our packages.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if config.master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        os.environ["JAVA_HOME"] = java_home()
    builder = SparkSession.builder.appName(f"shortlist-{name}")
    with ExitStack() as stack:
        with _start_for_people(config.master):
            with _interrupted_later():
                SparkContext._ensure_initialized(conf=SparkConf().setAll([*settings(config).items()]))
            for key, value in settings(config).items():
                builder = builder.config(key, value)
            spark = builder.getOrCreate()
            stack.enter_context(_ending_quietly(spark))
            spark.sparkContext.setLogLevel("ERROR")
            _join(spark)
        yield spark


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Put Ctrl-C off until the block ends, in which Java starts: some seconds.

    At a Ctrl-C pyspark removes the folder into which that Java is to write its port, and without it Java never ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


@contextmanager
def _ending_quietly(spark: SparkSession) -> Iterator[None]:
    """Stop the session when the block ends, by Ctrl-C too, and whether or not its Java is still there.

    Spark's own handler of Ctrl-C calls Java in the midst of another call, which fails in pages of stack traces; and
    Java and py4j have more of them, for all that is under way.
    """
    from py4j.protocol import Py4JError

    gone = suppress(Py4JError, ConnectionError)

    def silence() -> None:
        with gone:
            spark.sparkContext.setLogLevel("OFF")

    def interrupt(*_: object) -> NoReturn:
        logging.disable()
        thread = threading.Thread(target=silence, daemon=True)  # each has a connection of its own
        thread.start()
        thread.join(PATIENCE_SECONDS)
        raise KeyboardInterrupt

    # A thread that adds up accumulators would print a stack trace when Java goes. Java itself says what fails.
    spark.sparkContext._accumulatorServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    # Nor need it be told in pages of py4j, which logs as if it were the program itself.
    logging.getLogger().addFilter(_is_not_of_py4j)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        silence()  # the first call fails over a connection that was interrupted
        raise
    finally:
        with gone:
            spark.stop()
        logging.getLogger().removeFilter(_is_not_of_py4j)
        if is_main:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    return Path(record.pathname).parent.name != "py4j"


@contextmanager
def _start_for_people(master: str) -> Iterator[None]:
    from py4j.protocol import Py4JError

    try:
        yield
    except Py4JError as error:
        raise JobError(
            f"Spark does not start with the master {master}: {_cause(str(error))}",
            hint="does the master run, and is spark.master the address that its log names?",
        ) from error
    except OSError as error:  # before there is a Java
        raise JobError(
            f"Spark does not start: {error.strerror or error}",
            hint="it needs a folder for temporary files, see TMPDIR, and may start processes",
        ) from error


@cache
def _folder() -> Path:
    """Where this process and its Java, which outlives a session, have temporary files. Raises OSError."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(temporary_folder())


def _join(spark: SparkSession) -> None:
    """Make the executors ready, if they are elsewhere, and cut the work into twice as many tasks as there are cores.

    Spark's own 200 tasks are mostly overhead on a few cores.
    """
    context = spark.sparkContext
    conf = context.getConf()
    grows = conf.get("spark.dynamicAllocation.enabled") == "true"  # executors come when there is work
    if cluster.runs_on_cluster(spark):
        cluster.ship_code(context, _folder())
        if not grows:
            cluster.await_executors(context)
    if not grows and not conf.contains(PARTITIONS):
        spark.conf.set(PARTITIONS, str(2 * context.defaultParallelism))


@contextmanager
def errors_for_people(step: str) -> Iterator[None]:
    """Turn what Spark raises into an error that says what failed in the task, without the pages of stack traces.

    Raises:
        JobError: a task, or Spark itself, failed.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError, ConnectionError) as error:  # the last one: no Java answers
        if _follows_ctrl_c(error):  # PySpark asks Java once more then, in vain
            raise KeyboardInterrupt from None
        hint = "mend it and run the same command again: finished steps are skipped"
        if NO_LIBRARY in str(error):
            hint = (
                "Java unpacks libraries where TMPDIR says, under spark-submit where java.io.tmpdir does: "
                "a folder with room, on a disk that is not mounted noexec"
            )
        raise JobError(f"{step}: Spark stopped: {_cause(str(error))}", hint=hint) from error


def _follows_ctrl_c(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _cause(text: str) -> str:
    """The line that names the cause: the last one of a Python traceback in a task, else the first line; where Java has
    a cause behind it, that one before it."""
    lines = [line.strip(": ") for line in text.splitlines() if line.strip(": ")]
    named = [line for line in lines if re.match(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b: ", line)]
    python = [line for line in named if not line.startswith(("org.", "java.", "py4j.", "pyspark."))]
    if python:
        return python[-1][:500]
    behind = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")][-1:]
    return ", at: ".join([*behind, (named or lines or ["no message"])[0]])[:500]


def settings(config: Spark) -> dict[str, str]:
    """The Spark settings that a configuration stands for; `spark.conf` has the last word."""
    found = {
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.driver.memory": config.driver_memory,
        "spark.executorEnv.OMP_WAIT_POLICY": "passive",  # as jobs.cli has it, and why
        "spark.executorEnv.PYTHONSAFEPATH": "1",  # a folder here that is named like one of our packages is not it
    }
    if config.shuffle_partitions:
        found[PARTITIONS] = str(config.shuffle_partitions)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        found["spark.master"] = config.master
        quiet = f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').as_uri()}"
        # Java knows of no TMPDIR, and when it is killed it leaves there all that it was shuffling.
        options = f'{quiet} "-Djava.io.tmpdir={_folder()}"'
        found["spark.driver.extraJavaOptions"] = f"{options} {QUICK_START}" if config.quick_start else options
        if config.quick_start:
            found["spark.executor.extraJavaOptions"] = QUICK_START
    return found | config.conf
