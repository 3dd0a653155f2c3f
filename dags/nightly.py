"""### What it does

Every night at 03:15 UTC: one task per step of the batch journey, for one day of data. The run that is due on the
morning of day D+1 treats day D: it knows everything that happened before the end of D. It ends with a new current
version.

`prepare → train → candidates (embed, retrieve, lists) → evaluate → ranker → build → gate → cutover → retire`

A run is safe to repeat in part or whole. Each step's dataset is complete or absent, a step whose inputs have not
changed is skipped, and the same inputs give the same version.

* **One day by hand:** trigger with `{"day": "2026-11-21"}`. Without a day, it is the day before the trigger.
* **Past days:** `airflow backfill create --dag-id shortlist_nightly --max-active-runs 1 --from-date 2026-11-01
  --to-date 2026-11-04` treats the days 1 to 3, in order: `--to-date` is that day's midnight, and a run belongs to the
  day on which its interval begins. Without `--max-active-runs 1` Airflow runs several days at once, whatever this DAG
  says. Add `--reprocess-behavior completed` for days that have been run before. A day is cut over when it is built,
  unless a later one is current: `cutover` is green then, with `current_is_newer` in its log, and changes nothing.
  `shortlist rollback --to` takes the one you want.

### When a task is red

The last lines of its log say what failed and which command to run next. Exit codes: 1 failed, 2 usage or configuration,
3 refused on purpose, 4 the last sync failed and the outcome is unknown. 1 and 4 are retried; 2 and 3 stay red at once.
A task that was killed in the middle can be cleared: it goes on, or starts anew, with the same result.

* **gate, exit 3: the version is worse than the current one.** It stays on disk and is not served; yesterday's version
  keeps serving. The log says which gate refused and by how much; `shortlist gate` and `shortlist diff` with the names
  of the two versions show the rest. Usually the day's data is short: mend it, clear from `prepare`. A gate that only
  warns leaves the task green and a `warning_…` in its log.
* **cutover**, exit 3: a person has said no. The store is pinned, or this version, or one of the same inputs, was rolled
  back from: `shortlist history` says who and why. `shortlist unpin` or `shortlist release`, then clear it, if the
  version is wanted. Or somebody else cut over meanwhile: `shortlist versions`.
* **simulate** (only with the embedded shop): the disk is full, or `[simulate]` was changed for a shop that is there.
* **prepare**: a table is not where the configuration says, or too many rows of it are malformed: the log counts them
  by reason, with an example of each. Mend the source or `[data]`.
* **train**: a NaN, named in the log: lower `train.learning_rate`. Killed for memory: make room and clear it; training
  goes on from its last checkpoint.
* **candidates**: Java's or a worker's memory. Raise `spark.driver.memory` in Spark's own defaults, then clear:
  finished steps are skipped.
* **evaluate**: not one list can be judged by what is held out: raise `split.test_days`. (Where nothing is held out at
  all it is green, and `gate` refuses what was not measured: the day may hold no data.)
* **ranker**: the serving log cannot be read. Until it is mended, `ranker.learn = false` builds with the usual weights.
* **build**: the store's disk is full. `shortlist retire`, then clear.
* **any step**, "the disk is full" in the workspace: it keeps a folder for each day of the last `paths.workspace_days`,
  and older ones may be removed at any time.
* **retire**: a version, or an old day of the workspace, could not be removed. It is only space: the next night tries
  again.

A version that is live and wrong: trigger `shortlist_rollback`. To have new versions within the day, too, set
`SHORTLIST_REFRESH`: that makes the DAG `shortlist_within_the_day`.

### Settings

From the environment of Airflow's processes, read when this file is parsed. Spark's master is the connection
`spark_default`; `spark-submit` must be on PATH, and JAVA_HOME what `python -m jobs.java` prints. The tasks share the
workspace and the store, which lies on a local disk: where Airflow has several workers, one machine has to run them all
(a `queue` of its own in `default_args`).

* `SHORTLIST_HOME`: the checkout; default: the folder above this file's
* `SHORTLIST_PYTHON`: Python of Shortlist's own environment; default: `.venv/bin/python` of the checkout
* `SHORTLIST_CONFIG`: default: `shortlist.toml` of the checkout
* `SHORTLIST_START_DATE`: first day to treat; `SHORTLIST_CATCHUP=true`: the missed days since then too, in order
* `SHORTLIST_RETRY_SECONDS`: default 300
* `SHORTLIST_SIMULATE=true`: the embedded shop first makes the day's data
* `SHORTLIST_REFRESH`: when to make new versions within the day, UTC, such as `0 9-21/3 * * *`; default: never
"""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, datetime, timedelta
from inspect import cleandoc
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Asset, BaseOperator, CronDataIntervalTimetable, Param, RetryDecision, RetryPolicy, chain, dag

HOME = Path(os.environ.get("SHORTLIST_HOME") or Path(__file__).resolve().parent.parent)
PYTHON = os.environ.get("SHORTLIST_PYTHON") or str(HOME / ".venv/bin/python")
CONFIG = os.environ.get("SHORTLIST_CONFIG") or str(HOME / "shortlist.toml")
START_DATE = datetime.fromisoformat(os.environ.get("SHORTLIST_START_DATE") or "2026-01-01").replace(tzinfo=UTC)
REFRESH = os.environ.get("SHORTLIST_REFRESH", "").strip()

# Triggered runs have no logical date and no interval; every kind of run has `run_after`, and a scheduled or backfilled
# run's is the end of its interval.
DAY_BEFORE = "{{ params.day or (dag_run.run_after - macros.timedelta(days=1)).strftime('%Y-%m-%d') }}"
TODAY = "{{ dag_run.run_after.strftime('%Y-%m-%d') }}"
CURRENT_VERSION = Asset("shortlist_current_version")


class FinalExitCodes(RetryPolicy):
    """Fails at once where repeating cannot help: exit code 2 (usage) and 3 (refused, as by a gate)."""

    def evaluate(self, exception: BaseException, *_: object, **__: object) -> RetryDecision:
        said = re.search(r"(?:exit code|Error code is:) (\d+)", str(exception))
        if said and said.group(1) in ("2", "3"):
            return RetryDecision.fail(reason=f"exit code {said.group(1)} is final")
        return RetryDecision.default()


def command(day: str, task_id: str, *argv: str, **task: Any) -> BashOperator:
    """`shortlist …` for a day. Values of the run reach the shell through the environment only."""
    line = shlex.join([str(Path(PYTHON).with_name("shortlist")), *argv, "--config", CONFIG])
    return BashOperator(
        task_id=task_id,
        bash_command=f'exec {line} --day "$DAY"',
        env={"DAY": day},
        append_env=True,
        skip_on_exit_code=None,
        do_xcom_push=False,
        **task,
    )


def spark_application(day: str, task_id: str, *argv: str, **task: Any) -> SparkSubmitOperator:
    """The same command line under spark-submit."""
    return SparkSubmitOperator(
        task_id=task_id,
        conn_id="spark_default",
        name=f"shortlist-{task_id}",
        application=str(HOME / "shortlist.py"),
        application_args=[*argv, "--config", CONFIG, "--day", day],
        # spark-submit finds Spark through this Python, and starts the driver and the workers with it.
        env_vars={"PYSPARK_PYTHON": PYTHON, "PYSPARK_DRIVER_PYTHON": PYTHON},
        **task,
    )


def steps(day: str, *, keep_model: bool = False) -> list[BaseOperator]:
    """The journey of a day as tasks."""
    is_simulated = os.environ.get("SHORTLIST_SIMULATE", "").lower() == "true"
    return [
        *([command(day, "simulate", "simulate")] if is_simulated else []),
        spark_application(day, "prepare", "prepare"),
        command(day, "train", "train", *(["--keep-model"] if keep_model else [])),
        # One application for three steps: every spark-submit costs some twenty seconds.
        spark_application(day, "candidates", "run", "--only", "embed,retrieve,lists"),
        command(day, "evaluate", "evaluate"),
        command(day, "ranker", "train-ranker"),
        spark_application(day, "build", "build"),
        command(day, "gate", "run", "--only", "gate"),
        command(day, "cutover", "run", "--only", "cutover", outlets=[CURRENT_VERSION]),
        command(day, "retire", "run", "--only", "retire"),
    ]


USUAL: dict[str, Any] = {
    "start_date": START_DATE,
    "max_active_runs": 1,
    "default_args": {
        "retries": 2,
        "retry_delay": timedelta(seconds=float(os.environ.get("SHORTLIST_RETRY_SECONDS") or "300")),
        "retry_policy": FinalExitCodes(),
    },
    "tags": ["shortlist"],
}


@dag(
    dag_id="shortlist_nightly",
    schedule=CronDataIntervalTimetable("15 3 * * *", timezone="UTC"),
    catchup=os.environ.get("SHORTLIST_CATCHUP", "").lower() == "true",
    params={
        "day": Param(
            None,
            type=["null", "string"],
            pattern=r"^(\d{4}-\d{2}-\d{2})?$",
            maxLength=10,
            description="YYYY-MM-DD; empty: the day before the run",
        ),
    },
    doc_md=__doc__,
    **USUAL,
)
def nightly() -> None:
    chain(*steps(DAY_BEFORE))


def within_the_day() -> None:
    """### What it does

    At the times that `SHORTLIST_REFRESH` names: a new version of today, with all that is known by then. New items and
    new users come into it, and what everybody does today moves the lists.

    `prepare → train → candidates (embed, retrieve, lists) → evaluate → ranker → build → gate → cutover → retire`

    The tasks are those of `shortlist_nightly`, but `train` trains nothing while the last nights have left a model: what
    is new is known by its content and its history. Only one run is under way at a time, and what is missed is not made
    up for. Where no row has come since, all is skipped and the version stays.

    `shortlist_nightly` makes the whole day's version in the night after, and may run beside: a step that the other one
    is at is refused, exit 1, and tried again. Of two days the later one is served: where this DAG has made a version of
    the new day before the night of the day before is over, `cutover` of the night is green, with `current_is_newer` in
    its log.

    ### When a task is red

    As in `shortlist_nightly`, whose page says what each of them means (**simulate**, too, which invents the whole day
    at once). Besides:

    * **prepare**: today's rows or partition cannot be read, for they are being written, say: write aside and rename.
    * **gate**, exit 3: the version made before stays, and the next run tries with more rows.
    * **any step**, "another process" or "another run": both DAGs were at the same day. Clear it when the other is done.

    A version that is live and wrong: pause this DAG, then trigger `shortlist_rollback`.
    """
    chain(*steps(TODAY, keep_model=True))


nightly()
if REFRESH:
    dag(
        dag_id="shortlist_within_the_day",
        schedule=CronDataIntervalTimetable(REFRESH, timezone="UTC"),
        catchup=False,
        doc_md=cleandoc(within_the_day.__doc__ or ""),
        **USUAL,
    )(within_the_day)()
