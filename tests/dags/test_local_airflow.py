"""The launcher's promise that nothing stays behind, without starting an Airflow."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.error import URLError

import pytest
from local_airflow import MARK, LocalAirflow, end_marked, marked_processes


def test_what_a_killed_attempt_left_behind_is_found_and_ended_and_nothing_else_is(tmp_path: Path) -> None:
    ours, other = str(tmp_path / "ours"), str(tmp_path / "ours-too")
    started = [
        subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: mark}, start_new_session=True)
        for mark in (ours, other)
    ]
    try:
        assert marked_processes(ours) == [started[0].pid]
        assert end_marked(ours) == 1
        assert marked_processes(ours) == []
        assert started[1].poll() is None
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_child_of_what_was_left_behind_is_ended_too(tmp_path: Path) -> None:
    shell = ["sh", "-c", "sleep 600 & echo; wait"]
    parent = subprocess.Popen(shell, env=os.environ | {MARK: str(tmp_path)}, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    with parent:
        assert end_marked(str(tmp_path)) == 2
    assert marked_processes(str(tmp_path)) == []


def test_an_airflow_that_is_too_busy_to_answer_is_asked_again(tmp_path: Path) -> None:
    answers = iter([TimeoutError("timed out"), URLError(TimeoutError("timed out")), False, True])

    def is_done() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    LocalAirflow(tmp_path, {}).wait_for(is_done, "the night")
    assert [*answers] == []


def test_another_failure_of_the_question_is_told(tmp_path: Path) -> None:
    def is_done() -> bool:
        raise URLError(ConnectionRefusedError())

    with pytest.raises(URLError):
        LocalAirflow(tmp_path, {}).wait_for(is_done, "the night")
