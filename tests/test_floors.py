"""The architecture, enforced: a file imports only from the floors below its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ["schemas", "prediction_store", "reranker", "jobs", "dags"]
FORBIDDEN_IN_RERANKER = ["torch", "pyspark", "airflow", "pandas", "pyarrow", "faiss", "jobs"]
MAY_IMPORT = {
    "schemas": {"isal", "msgspec", "msgpack", "numpy", "pyarrow", "typer"},
    "prediction_store": {"msgspec", "msgpack", "numpy", "lmdb", "obstore", "typer", "rich"},
    "dags": {"airflow"},
}
"""Third-party packages of the floors that keep a short list. pyarrow only in the tables module: see below."""

FILES = [file for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]


def imports(file: Path) -> set[str]:
    """Top-level names of every import in a file, also those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_from_the_floors_below(file: Path) -> None:
    floor = FLOORS.index(file.relative_to(ROOT).parts[0])
    above = set(FLOORS[floor + 1 :])
    assert not imports(file) & above, f"{file.name} reaches up to {imports(file) & above}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_what_its_floor_may(file: Path) -> None:
    floor = file.relative_to(ROOT).parts[0]
    if floor not in MAY_IMPORT:
        return
    foreign = imports(file) - set(sys.stdlib_module_names) - set(FLOORS)
    assert foreign <= MAY_IMPORT[floor], f"{file.name} imports {foreign - MAY_IMPORT[floor]}"


def test_only_the_tables_module_of_the_schemas_knows_arrow() -> None:
    users = [file.name for file in (ROOT / "schemas").glob("*.py") if "pyarrow" in imports(file)]
    assert users == ["tables.py"]


def test_dags_import_nothing_of_ours() -> None:
    for file in (ROOT / "dags").glob("*.py"):
        assert not imports(file) & {"schemas", "prediction_store", "reranker", "jobs", "shortlist"}, file.name


def test_a_running_reranker_has_loaded_nothing_heavy() -> None:
    code = (
        "import sys, pkgutil, importlib, reranker\n"
        "for m in pkgutil.walk_packages(reranker.__path__, 'reranker.'): importlib.import_module(m.name)\n"
        f"heavy = sorted(set({FORBIDDEN_IN_RERANKER!r}) & set(sys.modules))\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_file_has_a_name_that_says_nothing() -> None:
    names = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base", "processor"}
    assert not [file for file in FILES if file.stem in names]
