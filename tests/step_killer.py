"""Runs an action of several hosts in a process that is killed before one of its durable steps.

obstore's threads do not survive a fork, and the tests use obstore. So the forking is done by a process of its own,
`python tests/step_killer.py`, which never does: it reads one job a line and answers with how its child has ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[1]
WHO = "ann@host"


class StepKiller:
    """The process that forks."""

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def killed_at(self, number: int, action: str, root: Path, url: str, name: str) -> bool:
        """Run an action in a child that is killed before one of its steps; whether it came that far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([number, action, str(root), url, name]) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, -signal.SIGKILL), f"{action} ended with {code}"
        return code != 0


def act(action: str, root: Path, url: str, name: str) -> None:
    """What a host does: `push`, `pull`, `cutover` among the hosts, or one look of `follow`."""
    from prediction_store import history
    from prediction_store.transfer.flow import Flow
    from prediction_store.transfer.follow import Agent
    from prediction_store.transfer.outgoing import send
    from prediction_store.transfer.pull import pull
    from prediction_store.transfer.remote import Remote
    from prediction_store.transfer.shared import RemoteHistory
    from prediction_store.transfer.stop import Stop
    from schemas.config import Follow, Store, Transfer

    remote = Remote(url, make=True)
    if action == "push":
        list(send(root, remote, [name], flow=Flow(), parallel=4))
    elif action == "pull":
        pull(root, remote, name, flow=Flow(), parallel=4)
    elif action == "cutover":
        history.cutover(root, name, WHO, "", 5, force=False, shared=RemoteHistory(remote))
    else:
        agent = Agent(
            root, RemoteHistory(remote), "h1", follow=Follow(), store=Store(), transfer=Transfer(),
            say=lambda text: None, stopping=Stop(),
        )  # fmt: skip
        error = agent.round()
        agent.close()
        if error is not None:
            raise error


def before_step(number: int, do: object) -> object:
    """A `durable.before` that does something before one of the steps, whichever thread takes it."""
    lock = threading.Lock()
    left = number

    def count_down(step: str, path: Path) -> None:
        nonlocal left
        with lock:
            is_it = left == 0
            left -= 1
        if is_it:
            do()  # type: ignore[operator]

    return count_down


def main() -> None:
    """Fork for each job."""
    import prediction_store.transfer.follow
    import prediction_store.transfer.outgoing  # noqa: F401 so that the children need not import it
    from prediction_store import durable

    for line in sys.stdin:
        number, action, root, url, name = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                durable.before = before_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore
                act(action, Path(root), url, name)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
