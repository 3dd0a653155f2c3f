"""Run by .venv-airflow's Python: parses every file of dags/ and prints what the tests look at, as JSON.

usage: python dump_dags.py DAGS_FOLDER < [{"dag_id": …, "params": {…}, "run_after": ISO time}, …]
"""

from __future__ import annotations

import copy
import json
import logging
import sys
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.definitions.param import process_params
from airflow.sdk.exceptions import ParamValidationError
from airflow.sdk.execution_time import macros


def main(folder: str, requests: list[dict[str, Any]]) -> dict[str, Any]:
    bag = DagBag(dag_folder=folder)
    return {
        "import_errors": bag.import_errors,
        "warnings": {path: [str(warning) for warning in found] for path, found in bag.captured_warnings.items()},
        "dags": {dag_id: describe(dag) for dag_id, dag in bag.dags.items()},
        "rendered": [render(bag.dags[request["dag_id"]], request) for request in requests],
    }


def describe(dag: Any) -> dict[str, Any]:
    return {
        "doc": dag.doc_md,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "start_date": dag.start_date and dag.start_date.isoformat(),
        "schedule": getattr(dag.timetable, "expression", None),
        "tasks": {
            task.task_id: {
                "upstream": sorted(task.upstream_task_ids),
                "trigger_rule": str(task.trigger_rule.value),
                "retries": task.retries,
                "outlets": [asset.name for asset in task.outlets],
                "final_exit_codes": [code for code in range(1, 6) if is_final(task, code)],
            }
            for task in dag.topological_sort()
        },
    }


def is_final(task: Any, code: int) -> bool:
    """Whether the task's retry policy gives up at once, asked with the very words of the task's operator."""
    if task.retry_policy is None:
        return not task.retries
    said = (
        f"Cannot execute: spark-submit … Error code is: {code}."
        if isinstance(task, SparkSubmitOperator)
        else (f"Bash command failed. The command returned a non-zero exit code {code}.")
    )
    decision = task.retry_policy.evaluate(RuntimeError(said), try_number=1, max_tries=task.retries, context=None)
    return bool(decision.action.value == "fail")


def render(dag: Any, request: dict[str, Any]) -> dict[str, Any]:
    """What each task would run: a shell line with its environment, or spark-submit's argv."""
    commands = {}
    dag = copy.deepcopy(dag)
    for task in dag.topological_sort():
        task.params = copy.deepcopy(task.params)  # resolving writes into them, and a task's copy shares them
        try:
            params = process_params(dag, task, request["params"], suppress_exception=False)
        except ParamValidationError as error:
            return {"refused": str(error)}
        run = SimpleNamespace(run_after=datetime.fromisoformat(request["run_after"]))
        task.render_template_fields({"params": params, "dag_run": run, "macros": macros})
        if isinstance(task, SparkSubmitOperator):
            hook = task._get_hook()
            commands[task.task_id] = {"argv": hook._build_spark_submit_command(task.application), "env": task.env_vars}
        else:
            commands[task.task_id] = {"bash": task.bash_command, "env": task.env}
    return {"commands": commands}


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    answer = main(sys.argv[1], json.load(sys.stdin))
    print("\n" + json.dumps(answer))
