"""One module makes changes durable; one locks; two open LMDB for writing; one makes and parses names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import prediction_store

ROOMS = sorted(Path(prediction_store.__path__[0]).rglob("*.py"))
CHANGING = {
    "fsync", "fdatasync", "rename", "renames", "replace_file", "link", "symlink", "unlink", "remove", "rmdir", "rmtree",
    "mkdir", "makedirs", "chmod", "truncate", "write_text", "write_bytes", "hardlink_to", "symlink_to", "touch",
    "tofile", "savez", "save", "mkstemp", "mkdtemp", "copyfile", "move",
}  # fmt: skip
READ_MODES = {"r", "rb", "rt"}


def calls(room: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Name of the function, and of what it is called on, for each call in a file."""
    for node in ast.walk(ast.parse(room.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                yield node.func.attr, owner, node
            elif isinstance(node.func, ast.Name):
                yield node.func.id, "", node


def opens_for_writing(name: str, owner: str, call: ast.Call) -> bool:
    if name not in ("open", "fdopen") or owner in ("lmdb", "Version", "cls"):
        return False
    if owner == "os":
        flags = ast.unparse(call)
        return "os.O_RDONLY" not in flags or "os.O_CREAT" in flags or "os.O_TRUNC" in flags
    modes = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    return not texts or not set(texts) <= READ_MODES


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.stem)
def test_only_durable_changes_the_disk(room: Path) -> None:
    if room.stem == "durable":
        return
    found = [
        f"{room.name}:{call.lineno} {owner}.{name}"
        for name, owner, call in calls(room)
        if (name in CHANGING and owner != "durable") or opens_for_writing(name, owner, call)
    ]
    assert not found


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.stem)
def test_only_locks_locks(room: Path) -> None:
    found = [call.lineno for name, _, call in calls(room) if name in ("flock", "lockf")]
    assert bool(found) == (room.stem == "locks")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.stem)
def test_lmdb_is_opened_for_writing_in_one_place_for_versions_and_one_for_live_facts(room: Path) -> None:
    writing = []
    for name, owner, call in calls(room):
        settings = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if owner == "lmdb" and name in ("open", "Environment"):
            assert settings.get("lib_version") == "LIB_VERSION", "the file format is pinned"
            if room.stem == "growing":
                continue  # opens as it is told by whoever calls `open_growing`
            assert settings.get("lock") == "False"
        elif name == "open_growing":
            assert settings.get("lock", "True") != "False", "others write meanwhile"
            assert "sync" not in settings and "metasync" not in settings, "a commit is durable"
        else:
            continue
        assert "writemap" not in settings, "a full disk would kill the process"
        if settings.get("readonly") != "True":
            writing.append(call.lineno)
    assert len(writing) == (1 if room.stem in ("shards", "live_environment") else 0)
