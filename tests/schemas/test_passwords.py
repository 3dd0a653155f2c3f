"""Passwords in the configuration are neither shown nor taken back hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.cli import config as print_config
from schemas.config_file import load
from schemas.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    file = folder / "shortlist.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://:secret@cache:6379/0", "redis://:***@cache:6379/0"),
        ("redis://ann:secret@cache/0?socket_timeout=1", "redis://ann:***@cache/0?socket_timeout=1"),
        ("redis://ann:secret/secret#secret@secret@cache", "redis://ann:***@cache"),
        ("redis://cache/0?password=secret&username=ann", "redis://cache/0?password=***&username=ann"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
    ],
)
def test_config_prints_no_password_of_a_url(
    url: str, printed: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_config(overrides=[f"sessions.redis_url={url}"], as_json=as_json)
    said = capsys.readouterr().out
    assert f'"{printed}"' in said
    assert "secret" not in said


@pytest.mark.parametrize("url", ["redis://:secret@cache:6379/0", "redis://cache/0?password=secret"])
def test_a_file_with_the_password_hidden_is_refused(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_config(overrides=[f"sessions.redis_url={url}"])
    file = write(tmp_path, capsys.readouterr().out)
    with pytest.raises(ConfigError, match=r"sessions\.redis_url \(from shortlist\.toml\) has \*\*\* for its password"):
        load(file, environ={})
    assert load(file, [f"sessions.redis_url={url}"], {}).config.sessions.redis_url == url


def test_a_wrong_value_is_told_without_its_password() -> None:
    with pytest.raises(ConfigError, match="traces_endpoint") as refused:
        load(None, ["serve.traces_endpoint=htp://ann:secret@traces"], {})
    assert "secret" not in refused.value.message
