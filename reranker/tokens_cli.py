"""The verb `tokens`: who may ask a server what. Each parses, calls one function and prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import UsageError
from schemas.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from pathlib import Path

tokens = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="""The tokens in the file that serve.tokens_file names. Servers see a change at their next request.

    Example: shortlist tokens new shop --role read
    """,
)
NameArgument = Annotated[str, typer.Argument(help="Whose token it is: letters, digits and . _ -")]


@tokens.command()
def new(
    name: NameArgument,
    role: Annotated[str, typer.Option(help="read: ask; write: also events; operate: also change items.")],
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Make a token and print it. Only its hash is kept: it cannot be printed again.

    Example: shortlist tokens new shop --role write
    """
    from reranker.tokens import add_token

    print(add_token(_file(config, overrides), name, role))


@tokens.command("list")
def list_tokens(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Names and roles of the tokens.

    Example: shortlist tokens list
    """
    import json

    from reranker.tokens import read_tokens

    found = [(token.name, token.role) for token in read_tokens(_file(config, overrides))]
    if as_json:
        print(json.dumps([{"name": name, "role": role} for name, role in found], indent=2))
    else:
        width = max([len(name) for name, _ in found], default=0)
        for name, role in found:
            print(f"{name:<{width}}  {role}")


@tokens.command()
def revoke(
    name: NameArgument,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Take a token back; the next request with it is refused.

    Example: shortlist tokens revoke shop
    """
    from reranker.tokens import revoke_token

    revoke_token(_file(config, overrides), name)


def _file(config: Path | None, overrides: list[str]) -> Path:
    from pathlib import Path

    from schemas.config_file import load_config

    named = load_config(config, overrides).serve.tokens_file
    if not named:
        hint = 'in the configuration: [serve] tokens_file = "tokens"; or --set serve.tokens_file=FILE'
        raise UsageError("serve.tokens_file names no file", hint=hint)
    return Path(named)
