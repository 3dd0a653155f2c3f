"""Which shards of a version are on this host: all of them, unless held.json beside the manifest says otherwise."""

from __future__ import annotations

from pathlib import Path

from prediction_store import contents, layout
from prediction_store.errors import DamagedVersionError, FormatError, NewerFormatError
from schemas.held import ShardRange, decode_held
from schemas.manifest import FileFacts, Manifest


def held_shards(path: Path, manifest: Manifest) -> ShardRange:
    """The shards that a sealed version at `path` has here.

    Raises:
        DamagedVersionError: held.json cannot be read, or is not about this version.
        NewerFormatError: a later Shortlist has written it.
    """
    try:
        held = decode_held(contents.read_document(path / layout.HELD))
    except (FileNotFoundError, NotADirectoryError):
        return ShardRange(0, manifest.shards - 1, manifest.shards)
    except NewerFormatError:
        raise
    except FormatError as error:
        raise DamagedVersionError(f"version {manifest.name}: {error.message}") from error
    if held.version != manifest.name or held.shards.of != manifest.shards:
        raise DamagedVersionError(
            f"version {manifest.name}: held.json is about {held.shards} of version {held.version};"
            f" there are {manifest.shards} shards"
        )
    return held.shards


def is_whole(held: ShardRange) -> bool:
    """True when every shard is here."""
    return len(held.numbers) == held.of


def files_with(manifest: Manifest, held: ShardRange) -> dict[str, FileFacts]:
    """The files of a version that a host with these shards has: every file but the other shards."""
    elsewhere = {layout.shard_file(number) for number in range(manifest.shards) if number not in held.numbers}
    return {file: facts for file, facts in manifest.files.items() if file not in elsewhere}
