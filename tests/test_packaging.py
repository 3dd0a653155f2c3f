"""What setup.cfg installs, against what lies in the packages."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {".py", ".pyi", ".c", ".h", ".so"}
"""Modules, what they are compiled from and to: setuptools finds them without being told."""

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PACKAGES = SETUP["options"]["packages"].split()
DATA = {f"{package}/{file}" for package, files in SETUP["options.package_data"].items() for file in files.split()}


def files() -> list[Path]:
    """Every file of the packages that are installed."""
    folders = sorted({package.split(".")[0] for package in PACKAGES})
    found = [file for name in folders for file in (ROOT / name).rglob("*") if file.is_file()]
    return [file.relative_to(ROOT) for file in found if file.parent.name != "__pycache__"]


def test_every_package_is_installed() -> None:
    assert sorted(PACKAGES) == sorted({".".join(file.parent.parts) for file in files() if file.suffix == ".py"})


def test_every_file_that_is_no_source_is_installed() -> None:
    assert sorted(DATA) == sorted(str(file) for file in files() if file.suffix not in SOURCES)


def test_what_every_verb_imports_is_compiled_wherever_the_checkout_lies(tmp_path: Path) -> None:
    """The line of `make install`, in a folder whose name has a blank in it."""
    folder = tmp_path / "a b"
    for package in ("typer", "rich", "msgspec"):
        (folder / "site" / package).mkdir(parents=True)
        (folder / "site" / package / "__init__.py").touch()
    for package in ("schemas", "prediction_store"):
        (folder / package).mkdir()
    (folder / "shortlist.py").touch()
    recipe = re.search(r"compiled here, .*\n\t@([^@]*)\n\t@touch", (ROOT / "Makefile").read_text())
    assert recipe and "compileall" in recipe[1]
    line = recipe[1].replace("$(BIN)/python", shlex.quote(sys.executable)).replace("$$", "$")
    environ = {"PATH": os.defpath, "PYTHONPATH": str(folder / "site")}
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    compiled = {path.parent.parent.name for path in folder.rglob("*.pyc")}
    assert compiled == {"typer", "rich", "msgspec", folder.name}


def test_a_type_checker_is_told_that_the_client_and_what_it_returns_are_typed() -> None:
    assert {f"{package}/py.typed" for package in ("schemas", "prediction_store", "reranker")} <= DATA


def test_the_source_distribution_has_all_that_is_installed_and_no_test(tmp_path: Path) -> None:
    listing = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", tmp_path]
    subprocess.run(listing, cwd=ROOT, check=True, capture_output=True)
    listed = (tmp_path / "shortlist_recommender.egg-info" / "SOURCES.txt").read_text().split("\n")
    assert {str(file) for file in files() if file.suffix != ".so"} <= set(listed)
    assert not [file for file in listed if file.startswith("tests/")]
