"""The verb `config`."""

from __future__ import annotations

import typer

from schemas.options import ConfigOption, JsonOption, SetOption

app = typer.Typer(add_completion=False)


@app.callback()  # with one command and no callback, Typer would leave out the verb
def verbs() -> None:
    """Shortlist itself."""


@app.command()
def config(path: ConfigOption = None, overrides: SetOption = [], as_json: JsonOption = False) -> None:
    """Print the effective configuration, and where each value came from: a file that can be used as one.

    The password of a URL, and what Spark hides of its settings, is shown as ***; a file with that in its place is
    refused.

    Example: shortlist config --set train.max_epochs=4
    """
    import json

    from schemas.config_file import flatten, load
    from schemas.passwords import hide

    loaded = load(path, overrides)
    rows = [(key, hide(key, value)) for key, value in flatten(loaded.config)]
    if as_json:
        print(json.dumps({key: {"value": value, "source": loaded.sources[key]} for key, value in rows}, indent=2))
        return
    sections: dict[str, list[str]] = {}
    for key, value in rows:
        section, name = key.rsplit(".", 1)
        line = f"{name} = {_toml(value)}"
        sections.setdefault(section, []).append(f"{line:<64} # {loaded.sources[key]}")
    print(f"# file: {loaded.file or 'none'}")
    for section, lines in sections.items():
        print(f"\n[{section}]", *lines, sep="\n")


def _toml(value: object) -> str:
    import json

    if isinstance(value, str):
        return _toml_text(value)
    if isinstance(value, dict):
        entries = ", ".join(f"{_toml_text(key)} = {_toml(entry)}" for key, entry in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(entry) for entry in value)}]"
    return json.dumps(value)


def _toml_text(text: str) -> str:
    """In quotes and in ASCII, so that a file of it is UTF-8 whatever the terminal's encoding."""
    import json
    import re

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"  # where JSON would have two of the former

    return re.sub("[^ -~]", escaped, json.dumps(text, ensure_ascii=False))
