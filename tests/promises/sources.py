"""What a finding depends on: the product and the trials. When either changes, it has to be found anew."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
PRODUCT: Final = ("schemas", "prediction_store", "reranker", "jobs")


@cache
def digest_of(module: str) -> str:
    """Of every source that `promises.module` depends on."""
    product = [path for folder in PRODUCT for path in sorted((TESTS.parent / folder).rglob("*.py"))]
    digest = sha256()
    for path in [*product, *sorted(_imported_by(TESTS / "promises" / f"{module}.py"))]:
        digest.update(str(path.relative_to(TESTS.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _imported_by(path: Path) -> set[Path]:
    """A file in tests/ and all files there that it imports, or that those import."""
    found, left = {path}, [path]
    while left:
        for other in _imports(left.pop()):
            if other.is_file() and other not in found:
                found.add(other)
                left.append(other)
    return found


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (TESTS / f"{alias.name.replace('.', '/')}.py" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            folder = TESTS / node.module.replace(".", "/")
            yield folder.with_suffix(".py")
            yield from (folder / f"{alias.name}.py" for alias in node.names)
