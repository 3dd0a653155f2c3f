"""Datasets whose files a test may change."""

from __future__ import annotations

import msgspec

from jobs.datasets import MANIFEST, Dataset


def editable(dataset: Dataset) -> Dataset:
    """The dataset, whose manifest says nothing of its files any more, as one of an earlier release."""
    manifest = msgspec.structs.replace(dataset.manifest, files={})
    (dataset.path / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return dataset
