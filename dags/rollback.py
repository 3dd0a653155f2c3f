"""### What it does

Makes an earlier version current again, by hand, with a reason that is kept in the store's history for ever. Servers
follow within a second. Nothing is moved or deleted, so a rollback can itself be rolled back.

Trigger with `{"reason": "yesterday's prices are wrong"}` for the version that was current before, or with
`{"reason": "…", "to": "20261122T031500Z-3f9c0a1b"}` for that one. `shortlist versions` lists them.

### When it is red

* exit 2: there is no such version: `shortlist versions`
* exit 3: there is no earlier version, or it must not be served, or somebody changed the current version meanwhile.
  Read the message; name another version with `to`.
* exit 4: the last sync failed: it happened, but a power cut may still take it. Trigger again with `to`, the version
  that the log names: that finds what was done and makes sure of it.
* no exit code, for the task was killed: `shortlist versions` shows whether it happened.

It is not retried by itself, for somebody is watching. Do not clear it, either: without `to` each attempt goes one
version further back. Pause `shortlist_nightly` too if tonight's run would bring the fault back. Settings are those of
`shortlist_nightly`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Asset, Param, dag

HOME = Path(os.environ.get("SHORTLIST_HOME") or Path(__file__).resolve().parent.parent)
PYTHON = os.environ.get("SHORTLIST_PYTHON") or str(HOME / ".venv/bin/python")
CONFIG = os.environ.get("SHORTLIST_CONFIG") or str(HOME / "shortlist.toml")
CURRENT_VERSION = Asset("shortlist_current_version")


@dag(
    dag_id="shortlist_rollback",
    schedule=None,
    catchup=False,
    params={
        "reason": Param(type="string", minLength=3, maxLength=500, description="Why. Kept in the store's history."),
        "to": Param(
            None,
            type=["null", "string"],
            pattern=r"^(\d{8}T\d{6}Z-[0-9a-f]{8})?$",
            maxLength=25,
            description="A version's name; empty: the one that was current before",
        ),
    },
    doc_md=__doc__,
    tags=["shortlist"],
)
def rollback() -> None:
    line = shlex.join([str(Path(PYTHON).with_name("shortlist")), "rollback", "--config", CONFIG])
    BashOperator(
        task_id="rollback",
        # What a person typed reaches the shell through the environment only.
        bash_command=f'exec {line} --why="$REASON" ${{VERSION:+--to="$VERSION"}}',
        env={"REASON": "{{ params.reason }}", "VERSION": "{{ params.to or '' }}"},
        append_env=True,
        skip_on_exit_code=None,
        do_xcom_push=False,
        outlets=[CURRENT_VERSION],
        retries=0,
    )


rollback()
