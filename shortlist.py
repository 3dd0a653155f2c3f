"""The front door: `shortlist VERB …`. Knows which package owns a verb and imports that package only.

So `shortlist rollback` starts in a fraction of a second, on a host that has neither torch nor Spark. spark-submit
runs this very file: `spark-submit shortlist.py prepare --day 2026-11-21` is the same command line.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

VERBS: dict[str, tuple[str, dict[str, str]]] = {
    "The nightly journey": (
        "jobs.cli",
        {
            "run": "The whole journey of one day, from your tables to a live version.",
            "simulate": "Write the embedded shop: a stand-in for your own tables.",
            "prepare": "Read, check and split interactions, items and users.",
            "tune": "Find good settings for the towers on held-out interactions.",
            "train": "Train the two towers.",
            "embed": "Embed every item and every user.",
            "retrieve": "Find the best items of every user.",
            "lists": "Popular, trending and neighbouring items: the fallbacks.",
            "evaluate": "Judge the lists on held-out interactions, against baselines and the version before.",
            "train-ranker": "Learn the weights of the re-ranker's signals.",
            "build": "Write a sealed version into the store.",
            "gate": "Check a version against the one that is current.",
        },
    ),
    "What there is": (
        "prediction_store.looking_cli",
        {
            "versions": "The versions on disk, their states, and which one is current.",
            "history": "Every decision about what is served: when, what, who, why.",
            "diff": "What changed between two versions.",
            "check": "Verify every byte of a version, or of the store.",
        },
    ),
    "The life of a version": (
        "prediction_store.cli",
        {
            "cutover": "Make a version current.",
            "rollback": "Go back to the version that was served before.",
            "pin": "Hold what is served: no cutover until unpin.",
            "unpin": "Allow cutovers again.",
            "quarantine": "Forbid serving a version.",
            "release": "Lift a quarantine.",
            "retire": "Remove versions that nothing needs any more.",
        },
    ),
    "Within the day": (
        "prediction_store.items_cli",
        {"items": "Take items off the shelf, change stock and prices: set, show, clear, load."},
    ),
    "Several hosts": (
        "prediction_store.transfer.cli",
        {
            "push": "Copy versions to object storage.",
            "pull": "Copy versions from object storage.",
            "follow": "Keep this host at what the hosts have decided, together with the others.",
            "hosts": "What each host serves, and what keeps it.",
        },
    ),
    "Serving": (
        "reranker.cli",
        {
            "serve": "Answer HTTP requests.",
            "lookup": "One user's answer, at the terminal.",
            "tokens": "Who may ask what: new, list, revoke.",
            "outcomes": "What users did with what they were shown, by version, day, holdout and the like.",
            "replay": "Make an answer of the log again from its version, and compare.",
            "skew": "Compare the signals of logged answers with the same ones made again.",
            "forget": "Take users out of the serving log.",
        },
    ),
    "Outside the server": (
        "jobs.export_cli",
        {"export": "Everybody's list in one file: Parquet, CSV or JSON lines."},
    ),
    "Shortlist itself": (
        "schemas.cli",
        {"config": "The effective configuration, and where each value came from."},
    ),
}

EXTRA_OF = {"jobs.cli": "batch", "jobs.export_cli": "batch", "reranker.cli": "serve"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit: 0 done, 1 failed, 2 usage, 3 refused, 4 outcome unknown."""
    _mend_streams()
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one verb; the exit code. What it says is written when this returns, or told to be lost."""
    output = _Output(sys.stdout)
    with contextlib.redirect_stderr(_Log(sys.stderr)), contextlib.redirect_stdout(output):
        code = _ended(argv)
        output.flush()
        if output.problem is not None:
            words = f"its output cannot be written: {output.problem.strerror}; what it did stands"
            print(f"shortlist {' '.join(argv[:1])}: {words}", file=sys.stderr)
            print("  next: shortlist history shows what was decided", file=sys.stderr)
            code = code or 1
    return code


def overview() -> str:
    """The verbs, grouped by what they are about."""
    lines = [
        "Shortlist: precomputed lists, published as versions, re-ranked in the request.",
        "",
        "usage: shortlist VERB [OPTIONS]",
        "",
    ]
    for group, (_, verbs) in VERBS.items():
        lines += [f"{group}:", *(f"  {verb:<12} {words}" for verb, words in verbs.items()), ""]
    return "\n".join([*lines, "shortlist VERB --help tells the options of a verb."])


def module_of(verb: str) -> str | None:
    """The module whose command line holds the verb."""
    return next((module for module, verbs in VERBS.values() if verb in verbs), None)


class _Output:
    """Standard output of which the verb hears nothing: neither what it does nor its exit code hangs on a reader."""

    def __init__(self, stream: TextIO) -> None:
        self.problem: OSError | None = None
        """Why something is lost that somebody may have wanted; a reader who goes has read enough."""
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.problem = error
        nowhere = os.open(os.devnull, os.O_WRONLY)  # also for what is still buffered, and would fail again at the exit
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


class _Log(_Output):
    """Standard error, of which lines may be lost: a night is not lost with them."""

    def _lose(self, error: OSError) -> None:
        pass


def _mend_streams() -> None:
    """Open to nowhere what the caller has closed: the next file would have its number, and what Java prints in it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: PTH123, SIM115 it takes the lowest number that is free
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error does what it cannot show


def _ended(argv: Sequence[str]) -> int:  # noqa: PLR0911 one return for each way to end
    """The exit code of one verb. This is the only place that turns errors into messages."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if argv[0] in ("-V", "--version"):
        from schemas import __version__

        print(f"shortlist {__version__}")
        return 0
    module = module_of(argv[0])
    if module is None:
        return _unknown(argv[0])
    from schemas.errors import ShortlistError

    _warn_of_variables(argv[0])
    try:
        app = importlib.import_module(module).app
        return _call(app, argv)
    except ShortlistError as error:
        from prediction_store.terminal import printable  # it may quote what others wrote

        print(f"shortlist {argv[0]}: {printable(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  next: {printable(error.hint)}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        return _missing(argv[0], module, error)
    except KeyboardInterrupt:
        print(f"shortlist {argv[0]}: interrupted; nothing half-done is visible, run it again to go on", file=sys.stderr)
        return 130


def _warn_of_variables(verb: str) -> None:
    """Tell of variables that set nothing, although they look like it."""
    if not any(name.startswith("SHORTLIST_") for name in os.environ):
        return
    from schemas.config_file import misspelled

    for name, right in misspelled(os.environ):
        print(f"shortlist {verb}: the environment variable {name} is not read", file=sys.stderr)
        print(f"  next: write {right}, with two underscores between section and key", file=sys.stderr)


def _call(app: Callable[..., object], argv: Sequence[str]) -> int:
    """Let Typer parse and run: it prints help and usage errors itself, and ends with SystemExit."""
    try:
        app(list(argv), prog_name="shortlist")
    except SystemExit as end:
        if end.code == 130:  # what Typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt from end
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _unknown(verb: str) -> int:
    import difflib

    near = difflib.get_close_matches(verb, [v for _, verbs in VERBS.values() for v in verbs], n=1)
    print(f"shortlist: there is no verb {verb!r}" + (f"; did you mean {near[0]!r}?" if near else ""), file=sys.stderr)
    print("  next: shortlist --help lists the verbs", file=sys.stderr)
    return 2


def _missing(verb: str, module: str, error: ModuleNotFoundError) -> int:
    extra = EXTRA_OF.get(module)
    if extra is None or (error.name or "").split(".")[0] in ("schemas", "prediction_store", "reranker", "jobs"):
        raise error
    print(f"shortlist {verb}: {error.name} is not installed here", file=sys.stderr)
    print(f"  next: pip install 'shortlist-recommender[{extra}]'", file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
