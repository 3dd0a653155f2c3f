"""Read a draft back before it is sealed: look at every record and hash every file, side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prediction_store import contents, layout
from prediction_store.errors import BuildError
from prediction_store.shards import open_shard
from prediction_store.survey import Survey, Wanted
from schemas.manifest import FileFacts


def read_back(draft: Path, wanted: Wanted) -> tuple[Survey, dict[str, FileFacts]]:
    """What stands in the shards of a draft, and size and digest of each of its files.

    Raises:
        BuildError: a record is not as it must be.
        DamagedVersionError: the disk cannot read a file.
    """
    with ThreadPoolExecutor(max_workers=1) as beside:  # hashing leaves the interpreter to the survey
        hashing = beside.submit(_hash_files, draft)
        survey = _survey(draft, wanted)
        return survey, hashing.result()


def _survey(draft: Path, wanted: Wanted) -> Survey:
    survey = Survey(wanted)
    for number in range(wanted.shards):
        file = layout.shard_file(number)
        with open_shard(draft / file) as shard:
            survey.add(file, shard, number)
    if survey.n_problems:
        raise BuildError(f"{survey.n_problems} wrong records, the first: {'; '.join(survey.problems[:3])}")
    return survey


def _hash_files(draft: Path) -> dict[str, FileFacts]:
    return {
        name: FileFacts(path.stat().st_size, contents.sha256_of(path)) for name, path in layout.files_of(draft).items()
    }
