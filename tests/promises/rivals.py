"""Promise 10: of publishers at once one wins and the others are told; a dead or stopped one holds nothing up.

`run`: processes that decide at the same moment, round after round, with pauses thrown in before their durable steps.
`run_stopped`: a publisher that is stopped at a step, overtaken by another one, and then killed or woken up again.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prediction_store import history, holds, layout
from prediction_store.errors import ConcurrentPublishError
from prediction_store.retention import retire
from promises.outcome import Outcome
from promises.steps import announced_to, at_step, steps_of
from promises.tiny_store import (
    EXPIRES_AT,
    HOUR,
    MADE_AT,
    WHO,
    build,
    copy_store,
    judge,
    leftovers,
    problems_of,
    publish,
    remove_store,
)
from schemas.history import HistoryRecord

PROCESSES = 8
ROUNDS_OF_A_STORE = 50
LONGEST_PAUSE_SECONDS = 0.001
EXPECTING, PLAIN, ROLLBACK = "cutover that expects", "cutover", "rollback that expects"
TOLD = 3
"""Exit code of who was told that somebody else was faster."""
WAS_TOLD = "told"
Result = int | str | None
"""The number of the record that a rival got; None: it was told that somebody else was faster; else what went wrong."""
RIVAL = "rival@localhost"
GRACE_SECONDS = 6 * HOUR
"""What was built this long ago is younger than the rival's version, and older than the others."""
BEING_REMOVED = "or is being removed"
"""What the checker says of a version that somebody is about to remove."""


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """That many rounds, each with eight publishers."""
    outcome, dice = Outcome(), random.Random(seed)
    root = folder / "store"
    names: list[str] = []
    while outcome.tried < trials:
        if outcome.tried % ROUNDS_OF_A_STORE == 0:
            remove_store(root)
            names = [build(root, f"inputs {number}", MADE_AT + number * HOUR) for number in range(PROCESSES + 2)]
            for name in names:
                judge(root, name)
            for name in names[:2]:
                history.cutover(root, name, WHO, "", MADE_AT)
        before = history.current(root)
        mode = dice.choice([EXPECTING, PLAIN, ROLLBACK] if before.before else [EXPECTING, PLAIN])
        rivals = [name for name in names if name != before.version][:PROCESSES]
        results = _race(root, mode, rivals, before, dice)
        outcome.tried += 1
        outcome.count(mode)
        outcome.count("told", results.count(None))
        outcome.violate_each(_judge(root, mode, before, results), f"seed {seed}, round {outcome.tried}, {mode}")
        for name in history.current(root).quarantined:
            holds.release(root, name, WHO, "", MADE_AT)
    outcome.violate_each(problems_of(root, set(names)), "in the end")
    return outcome


def _race(root: Path, mode: str, names: list[str], before: HistoryRecord, dice: random.Random) -> list[Result]:
    """Let every rival decide at once; what became of each."""
    gate, opened = os.pipe()
    children = {}
    for name in names:
        reading, writing = os.pipe()
        seed = dice.random()
        child = os.fork()
        if child == 0:
            try:
                os.close(opened)
                os.read(gate, 1)  # until the parent closes its end, for everybody at once
                os.write(writing, _result(root, mode, name, before, random.Random(seed)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        children[child] = reading
    os.close(opened)
    os.close(gate)
    results: list[Result] = []
    for child, reading in children.items():
        said = os.read(reading, 4096).decode()
        os.close(reading)
        os.waitpid(child, 0)
        results.append(int(said) if said.isdecimal() else None if said == WAS_TOLD else said or "it died")
    return results


def _result(root: Path, mode: str, name: str, before: HistoryRecord, dice: random.Random) -> str:
    try:
        return str(_decide(root, mode, name, before, dice))
    except ConcurrentPublishError:
        return WAS_TOLD
    except Exception as error:
        return repr(error)


def _decide(root: Path, mode: str, name: str, before: HistoryRecord, dice: random.Random) -> int:
    def pause(step: str, path: Path) -> None:
        time.sleep(dice.uniform(0, LONGEST_PAUSE_SECONDS))  # so that the rivals' steps mingle

    with announced_to(pause):
        if mode == ROLLBACK:
            return history.rollback(root, WHO, name, MADE_AT, expect=before.number).number
        expect = before.number if mode == EXPECTING else None
        return history.cutover(root, name, WHO, "", MADE_AT, expect=expect).number


def _judge(root: Path, mode: str, before: HistoryRecord, results: list[Result]) -> list[str]:
    """What is wrong with the results of a round."""
    won = sorted(result for result in results if isinstance(result, int))
    newest = history.current(root)
    found = [result for result in results if isinstance(result, str)]
    if mode == PLAIN:
        if won != list(range(before.number + 1, before.number + 1 + len(won))) or not won:
            found.append(f"records {won} after {before.number}")
    elif (mode == EXPECTING and won != [before.number + 1]) or (mode == ROLLBACK and set(won) != {before.number + 1}):
        found.append(f"records {won} after {before.number}; wanted one")
    if won and newest.number != won[-1]:
        found.append(f"record {newest.number} is the newest; wanted {won[-1]}")
    records = _records(root)[before.number - 1 :]
    for older, newer in itertools.pairwise(records):
        if newer.previous != older.version:
            found.append(f"record {newer.number} follows on {newer.previous}; wanted {older.version}")
    return [*found, *(f"{entry} is left" for entry in leftovers(root))]


def _records(root: Path) -> list[HistoryRecord]:
    return [history.read_record(root, number) for number in layout.history_numbers(root)]


class Interruption(NamedTuple):
    """A command that is stopped before one of its steps, and what becomes of it."""

    command: str
    step: int
    is_killed: bool


def run_stopped(seed: int, trials: int, folder: Path) -> Outcome:
    """Stop a publisher that many times, or before every step there is, whichever is less."""
    outcome = Outcome()
    before, root = folder / "before", folder / "store"
    for number, inputs in enumerate("abc"):
        publish(before, inputs, MADE_AT + number * HOUR)
    points = []
    for command, act in COMMANDS.items():
        remove_store(root)
        copy_store(before, root)
        steps = len(steps_of(partial(act, root)))
        points += [Interruption(command, step, killed) for step in range(steps) for killed in (True, False)]
    random.Random(seed).shuffle(points)
    outcome.counts["points"] = len(points)
    for point in points[:trials]:
        remove_store(root)
        copy_store(before, root)
        _interrupt(root, point, outcome)
    return outcome


def _interrupt(root: Path, point: Interruption, outcome: Outcome) -> None:
    command = partial(COMMANDS[point.command], root)
    what = "killed" if point.is_killed else "woken up"
    where = f"{point.command}, stopped before step {point.step} and {what}"
    outcome.tried += 1
    outcome.count(what)
    child = _start_and_stop(command, point.step)
    try:
        overtaker = publish(root, "of another publisher", MADE_AT + 9 * HOUR)
        retire(root, keep=2, grace_seconds=GRACE_SECONDS, now=MADE_AT + 9 * HOUR, who=WHO)
        found = problems_of(root, {overtaker})
        outcome.violate_each((what for what in found if BEING_REMOVED not in what), f"{where}: while it stood still")
    except Exception as error:
        outcome.violate(f"{where}: it held up another publisher: {error!r}")
    os.kill(child, signal.SIGKILL if point.is_killed else signal.SIGCONT)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if point.is_killed:
        return
    decided = [record for record in _records(root) if record.who == RIVAL]
    if code not in (0, TOLD):
        outcome.violate(f"{where}: it ended with {code}")
    elif code == TOLD:
        outcome.count("told")
        outcome.violate_each((f"told, and record {record.number} is there" for record in decided), where)
    elif point.command != "retire" and not decided:
        outcome.violate(f"{where}: it said it was done, and no record is there")
    current = history.current(root).version
    outcome.violate_each(problems_of(root, {current}), f"{where}: in the end")


def _start_and_stop(command: Callable[[], object], step: int) -> int:
    """Run a command in a child that stops itself before a step; its process id, once it stands still."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with announced_to(at_step(step, lambda: os.kill(os.getpid(), signal.SIGSTOP))):
                command()
            code = 0
        except ConcurrentPublishError:
            code = TOLD
        finally:
            os._exit(code)
    os.waitpid(child, os.WUNTRACED)
    return child


def _publish(root: Path) -> None:
    name = build(root, "of the rival", MADE_AT + 4 * HOUR)
    judge(root, name)
    history.cutover(root, name, RIVAL, "", MADE_AT)


COMMANDS: dict[str, Callable[[Path], object]] = {
    "publish": _publish,
    "cutover": lambda root: history.cutover(root, layout.version_names(root)[-1], RIVAL, "", MADE_AT),
    "rollback": lambda root: history.rollback(root, RIVAL, "bad", MADE_AT),
    "retire": lambda root: retire(root, keep=2, grace_seconds=0, now=EXPIRES_AT - 1, who=RIVAL),
}
