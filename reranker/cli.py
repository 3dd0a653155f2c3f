"""The verbs `serve`, `lookup`, `outcomes`, `replay`, `skew`, `forget` and `tokens`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer

from reranker.tokens_cli import tokens
from schemas.options import ConfigOption, JsonOption, SetOption

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.add_typer(tokens, name="tokens")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: serve.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0: any free one, which is printed.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes. Default: serve.workers.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Answer HTTP requests until SIGTERM or Ctrl-C; follows every cutover and rollback.

    Example: shortlist serve --port 0
    """
    from importlib.util import find_spec
    from pathlib import Path

    from reranker import log
    from reranker.rules import Rules
    from reranker.serve import serve as run
    from reranker.tokens import read_tokens
    from reranker.traces import require_extra
    from schemas.config_file import load_config

    given = {"host": host, "port": port, "workers": workers}
    options = [f"serve.{key}={value}" for key, value in given.items() if value is not None]
    settings = load_config(config, [*overrides, *options])
    # What is not there, or cannot be read, is told here, and not by a worker.
    for name in ("httptools", "prometheus_client", "starlette", "uvicorn"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
    Rules.of(settings.serve.rules)
    if settings.serve.tokens_file:
        read_tokens(Path(settings.serve.tokens_file))
    require_extra(settings.serve)
    if settings.sessions.enabled and settings.sessions.backend == "redis":
        from reranker.last_minutes import opener

        opener(settings)().close()  # connects to nothing
    log.configure()
    count = settings.serve.workers
    run(settings, lambda url: print(f"serving on {url} with {count} worker{'s' if count > 1 else ''}", flush=True))


@app.command()
def lookup(  # noqa: PLR0917 the options of the command line
    user: Annotated[str, typer.Argument(help="Whose answer.")],
    k: Annotated[int, typer.Option("--k", "-k", help="How many items.")] = 10,
    session: Annotated[str, typer.Option(help="What the user just did, oldest first: ITEM[:EVENT],…")] = "",
    segment: Annotated[str | None, typer.Option(help="Whose popular list to fall back to.")] = None,
    exclude: Annotated[str, typer.Option(help="Items to leave out: ITEM,…")] = "",
    placement: Annotated[str, typer.Option(help="Where it would be shown: whose rules hold.")] = "home",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Print the answer a server would give for one user, and why. Needs no server.

    Example: shortlist lookup u00042 --session i00007,i00011:cart
    """
    import msgspec

    from prediction_store.place import store_of
    from reranker.recommend import open_reranker
    from reranker.requests import convert_request
    from schemas.config_file import load_config

    settings = load_config(config, overrides)
    store_of(settings)
    # The first answer of a process is slow, and nobody waits for it.
    settings = msgspec.structs.replace(settings, serve=msgspec.structs.replace(settings.serve, deadline_ms=0.0))
    serve, weighed = settings.serve, settings.data.interactions.event_weights
    event_types = {"view", *serve.session_event_weights, *serve.bought_events, *weighed}
    fields = {
        "user": user,
        "k": k,
        "session": [_event(text, event_types) for text in _entries(session)],
        "exclude": _entries(exclude),
        "context": {"segment": segment},
        "placement": placement,
        "explain": True,
    }
    request = convert_request(fields)
    with open_reranker(settings) as reranker:
        answer = reranker.recommend(request)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    else:
        from reranker.terminal import print_answer

        print_answer(answer, user)


@app.command()
def replay(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The `request_id` of the answer.")],
    *,
    by_settings_of_today: Annotated[
        bool, typer.Option("--settings-of-today", help="By these, and not those of then: what they would change.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Make an answer of the log again from its version, by the settings and live facts of then.

    Exit 0: the same bit for bit; 1: it differs, and where.

    2: the log does not hold it; 3: its version has been retired.

    Example: shortlist replay 5f0c7a1e9b3d42688c15e0f7a9d3b642
    """
    import os

    from reranker.serve import ONE_THREAD

    # As in a worker, and before numpy is loaded: the order of a sum may depend on the threads that share it.
    os.environ.update(ONE_THREAD)
    import msgspec

    from prediction_store.terminal import print_line
    from reranker.answered import facts_of
    from reranker.errors import ReplayDiffersError
    from reranker.replay import replay as make_again
    from schemas.config_file import load_config

    settings = load_config(config, overrides)
    found = make_again(settings, request_id, by_settings_of_today=by_settings_of_today)
    if as_json:
        facts = {"equal": found.is_equal, "differences": found.differences, "recorded": facts_of(found.recorded)}
        print(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())
    elif found.is_equal:
        shown = found.recorded.shown.items
        print(f"equal bit for bit: {len(shown)} items of version {found.recorded.version}, rung {found.recorded.rung}")
    else:
        for line in found.differences:
            print_line(line)
    if not found.is_equal:
        raise ReplayDiffersError(f"the answer of version {found.recorded.version} differs from the one in the log")


@app.command()
def outcomes(
    by: Annotated[
        str, typer.Option(help="What to compare: version, day, placement, holdout, rung or position.")
    ] = "version",
    days: Annotated[float, typer.Option(min=0.01, max=36_500, help="Answers of so many days, until now.")] = 7.0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Count what users did with what they were shown, by the answers and events of the log.

    2: the log has no answer of that time.

    Example: shortlist outcomes --by rung --days 1
    """
    import time

    from prediction_store.place import require_log
    from prediction_store.terminal import print_json
    from reranker.errors import NotInLogError
    from reranker.outcomes import BY
    from reranker.outcomes import outcomes as count
    from reranker.terminal import print_outcomes, watch_segments
    from schemas.config_file import load_config
    from schemas.errors import UsageError

    if by not in BY:
        raise UsageError(f"--by {by!r}: wanted one of {', '.join(BY)}", hint="shortlist outcomes --help")
    now, settings = time.time(), load_config(config, overrides)
    require_log(settings)
    found = count(settings, by, now - days * 86_400, now, watch=watch_segments)
    if as_json:
        print_json(found.facts())
    elif found.groups:
        print_outcomes(found)
    if not found.groups:
        raise NotInLogError(
            f"the log has no answer of the last {days:g} days", hint="set log.answers, or look further back with --days"
        )


@app.command()
def skew(  # noqa: PLR0917 the options of the command line
    answers: Annotated[int, typer.Option(min=1, help="How many logged answers are made again.")] = 500,
    tolerance: Annotated[float, typer.Option(min=0.0, help="How far a signal may be from what was logged.")] = 1e-5,
    most_psi: Annotated[
        float | None, typer.Option("--most-psi", min=0.0, help="Exit 1 above this PSI; without: it is only told.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Compare the signals of logged answers with the same ones made again. Exit 0: alike; 1: some are too far apart.

    2: the log has no answer that can be made again.

    PSI: how far a signal is from its spread where the weights were learned; below 0.1 stable, above 0.25 changed.

    Example: shortlist skew --answers 1000
    """
    import os

    from reranker.serve import ONE_THREAD

    os.environ.update(ONE_THREAD)  # as for `replay`
    import msgspec

    from prediction_store.place import require_log
    from reranker.errors import NotInLogError, SkewError
    from reranker.skew import skew as compare
    from reranker.terminal import print_skew
    from schemas.config_file import load_config

    settings = load_config(config, overrides)
    require_log(settings)
    found = compare(settings, answers)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found.facts()), indent=2).decode())
    else:
        print_skew(found)
    if not found.answers:
        raise NotInLogError(
            "the log has no answer that can be made again",
            hint="set log.answers; answers of retired versions cannot be made again",
        )
    apart = [signal.name for signal in found.signals if not signal.most <= tolerance]
    if apart:
        raise SkewError(f"signals are further than {tolerance:g} from what was served: {', '.join(apart)}")
    moved = [] if most_psi is None or found.drift is None else found.drift.above(most_psi)
    if moved:
        raise SkewError(
            f"signals are spread differently from where the weights were learned, with a PSI above {most_psi:g}:"
            f" {', '.join(moved)}"
        )


@app.command()
def forget(
    users: Annotated[list[str], typer.Argument(metavar="USER...", help="Whom to forget.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Take users out of the serving log, and tell which versions have a list of theirs. Servers may run.

    Take them out of your own tables, too: the next version is made from both.

    Exit 1: some of it is still being written; run it again after log.segment_minutes.

    Example: shortlist forget u00042
    """
    from prediction_store.place import require_log
    from prediction_store.terminal import print_json
    from reranker.errors import LogBusyError
    from reranker.forget import forget as take_out
    from reranker.terminal import print_forgotten, watch_segments
    from schemas.config_file import load_config

    settings = load_config(config, overrides)
    require_log(settings)  # or nobody would know that nothing has been taken out
    found = take_out(settings, frozenset(users), watch=watch_segments)
    if as_json:
        print_json(found.facts())
    else:
        print_forgotten(found, settings.sessions.ttl_minutes)
    if found.in_use:
        count = len(found.in_use)
        raise LogBusyError(
            f"servers still append to {count} segment{'s' if count > 1 else ''} that hold something of them",
            hint=f"run it again in {settings.log.segment_minutes:g} minutes, or when the servers have stopped",
        )


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _event(text: str, known: Collection[str]) -> dict[str, str]:
    """ITEM or ITEM:EVENT; an id may hold colons itself, so that only a known event type is taken for one."""
    item, colon, event = text.rpartition(":")
    return {"item": item, "event": event} if colon and item and event in known else {"item": text}
