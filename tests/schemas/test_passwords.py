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


SPARK_SECRETS = [
    ("spark.hadoop.fs.s3a.secret.key", "hush"),
    ("spark.hadoop.fs.s3a.access.key", "hush"),
    ("spark.hadoop.fs.azure.account.OAuth2.Client.SECRET", "hush"),
    ("spark.kubernetes.authenticate.submission.oauthToken", "hush"),
    ("spark.executor.extraJavaOptions", "-Djavax.net.ssl.trustStorePassword=hush"),
    ("spark.hadoop.store", "https://ann:hush@files"),
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("name", "value"), SPARK_SECRETS)
def test_config_prints_no_secret_of_spark(
    name: str, value: str, as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, f"[spark.conf]\n'{name}' = '{value}'\n'spark.executor.cores' = '2'\n")
    print_config(file, as_json=as_json)
    said = capsys.readouterr().out
    assert name in said
    assert '"spark.executor.cores": "2"' in said or '"spark.executor.cores" = "2"' in said
    assert "hush" not in said


@pytest.mark.parametrize(("name", "value"), SPARK_SECRETS)
def test_a_file_with_a_secret_of_spark_hidden_is_refused(
    name: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_config(overrides=[f"spark.conf.{name}={value}"])
    file = write(tmp_path, capsys.readouterr().out)
    with pytest.raises(ConfigError) as refused:
        load(file, environ={})
    assert refused.value.message.startswith(f"spark.conf.{name} (from shortlist.toml) has *** for its password")
    assert "SHORTLIST_SPARK__CONF " in f"{refused.value.hint} "
    assert load(file, [f"spark.conf={{ '{name}' = '{value}' }}"], {}).config.spark.conf == {name: value}


@pytest.mark.parametrize(
    "text",
    [
        "[spark.conf]\nspark.hadoop.fs.s3a.secret.key = 'hush'",
        "[spark]\nconf = {'spark.hadoop.fs.s3a.secret.key' = ['hush']}",
        "[spark]\nconf = 'spark.hadoop.fs.s3a.secret.key=hush'",
        "[sessions]\nredis_url = ['redis://ann:hush@cache']",
    ],
)
def test_a_wrong_value_in_the_file_is_told_without_its_secret(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted") as refused:
        load(write(tmp_path, text), environ={})
    assert "hush" not in refused.value.message
