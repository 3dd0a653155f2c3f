"""Judge the lists: what users did after the training data ended, against what they were offered, and against others.

Two datasets. `evaluation` is made of the day's own data alone; its report.json goes into the version, and its
fingerprint into what the version is known by. `report` adds the version that was served before, and is for people:
nothing is made from it. So what happens to lie in the store changes no version. Streams over the judged lists; what it
keeps per user are a few numbers.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset

from jobs import candidate_files, datasets
from jobs.datasets import DAY_SECONDS, Dataset
from jobs.errors import DatasetDamagedError, MissingDatasetError, NothingToJudgeError
from jobs.evaluation import bootstrap, content
from jobs.evaluation.held_out import HeldOut, read_held_out
from jobs.evaluation.judged import Judged, first_of, judge
from jobs.evaluation.offered import offered
from jobs.evaluation.page import FEW_USERS, off_by, page_of
from jobs.evaluation.previous import find_previous, judge_previous
from jobs.evaluation.strangers import find_strangers, with_popular
from jobs.evaluation.summary import OURS, Summary, add_to_segments, difference, said_of, segments
from jobs.progress import Report
from prediction_store.errors import StoreError
from schemas.config import Config, Retrieve, deciding
from schemas.data_config import Split

ACTIVE_DAYS = 30
BATCH_USERS = 512
REPORT = "report.json"
PAGE = "report.html"
ROWS = "judged.npy"
NO_CONTENT = "the items have neither title nor category nor brand that tells them apart"
NO_PREVIOUS = (
    "the store has no version that was current and knows nothing of what is judged here: made from data that ends"
    " before the test part begins"
)


def run(config: Config, day: str) -> Report:
    """Write `evaluation`, what the lists are worth beside those of baselines, and `report`, the same as a page.

    A user is judged on the items of the test interactions, without those that the policy left out of the list because
    the user had consumed them before: nobody could have been offered these. With no test interactions at all, as on
    the first days of a shop, the report says 0 users and its measures are null; that judges nothing and is no error.

    Raises:
        NothingToJudgeError: there are test interactions, and not one list or not one item of them can be judged.
    """
    started = time.monotonic()
    prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
    embeddings = datasets.open_dataset(config.paths.workspace, day, "embeddings")
    candidates = datasets.open_dataset(config.paths.workspace, day, "candidates")
    is_new = _evaluate(config, day, prepared, embeddings, candidates)
    evaluation = datasets.open_dataset(config.paths.workspace, day, "evaluation")
    is_new |= _report(config, day, prepared, candidates, evaluation)
    report = datasets.open_dataset(config.paths.workspace, day, "report")
    details = {**_headline(report), **_few(evaluation.rows["users"], config.split), "page": str(report.part(PAGE))}
    seconds = time.monotonic() - started
    return Report(step="evaluate", day=day, rows=evaluation.rows, seconds=seconds, skipped=not is_new, details=details)


def _evaluate(config: Config, day: str, prepared: Dataset, embeddings: Dataset, candidates: Dataset) -> bool:
    """Make `evaluation`; False: it was there."""
    inputs, settings = [prepared, embeddings, candidates], [deciding(config.retrieve), config.lists]
    with datasets.step(config.paths.workspace, day, "evaluation", inputs=inputs, settings=settings) as draft:
        if draft.is_complete:
            return False
        held_out = _held_out(config.retrieve, prepared, candidates)
        strangers = find_strangers(prepared, held_out, config.lists)
        lists = offered(config.retrieve, prepared, embeddings, candidates, scratch=draft.path, size=BATCH_USERS)
        ours = judge(with_popular(lists, strangers), held_out)
        found = _judge_all(prepared, candidates, ours, held_out)
        found["users_without_list"] = int(strangers.is_one[ours.rows["user"]].sum())
        said = sorted(candidates.manifest.extra.keys() - {datasets.CHANGED_ONLY})
        found["search"] = {name: candidates.extra(name) for name in said}
        found["active"] = _active(prepared, candidates, datasets.known_until(prepared))
        datasets.write_json(draft.path / REPORT, found)
        np.save(draft.path / ROWS, ours.rows)
        draft.rows["users"] = found["users"]
    return True


def _judge_all(prepared: Dataset, candidates: Dataset, ours: Judged, held_out: HeldOut) -> dict[str, Any]:
    """The report on our lists and on the baselines."""
    if len(held_out.all_wanted.user) and not len(ours.rows):
        raise NothingToJudgeError(
            f"{len(held_out.all_wanted.user)} test interactions, and no list of their users that they could judge",
            hint=f"hold out more: split.test_days; or remove {candidates.path} and run again: shortlist retrieve",
        )
    listed = _listed(candidates)
    others = {"popularity": judge(first_of(held_out, listed, BATCH_USERS), held_out)}
    left_out = {}
    vectors = content.read_vectors(prepared, held_out)
    if vectors is None:
        left_out["content"] = NO_CONTENT
    else:
        sample = content.sample_users(ours.rows["user"], vectors)
        others["content"] = judge(content.content_lists(prepared, held_out, vectors, sample), held_out)
    found: dict[str, Any] = _facts(held_out, ours)
    summary = Summary(ours.rows["user"])
    found |= said_of(summary, ours, held_out)
    found["segments"] = segments(ours, held_out)
    add_to_segments(summary, found["segments"], OURS, ours.rows)
    for name, theirs in others.items():
        found[name] = _against(summary, ours.rows, theirs, held_out)
        add_to_segments(summary, found["segments"], name, theirs.rows)
    summary.fill()
    found["left_out"] = left_out
    return found


def _against(summary: Summary, ours: np.ndarray, theirs: Judged, held_out: HeldOut) -> dict[str, Any]:
    """What is to be said of another ranking than ours, which is a ROW array."""
    found = {"users": len(theirs.rows)} | said_of(summary, theirs, held_out)
    return found | {"difference": difference(summary, ours, theirs.rows)}


def _facts(held_out: HeldOut, ours: Judged) -> dict[str, Any]:
    is_cold = held_out.known_items[held_out.wanted.item] == 0
    first, last = held_out.time or (None, None)
    return {
        "users": len(ours.rows),
        "interactions": len(held_out.wanted.user),
        "items": len(held_out.known_items),
        "cold_items_share": round(float(is_cold.mean()), 6) if len(is_cold) else None,
        "test_from": first,
        "test_to": last,
        "bootstrap": {"resamples": bootstrap.RESAMPLES, "confidence": bootstrap.CONFIDENCE},
    }


def _report(config: Config, day: str, prepared: Dataset, candidates: Dataset, evaluation: Dataset) -> bool:
    """Make `report`; False: it was there, compared with the same version."""
    found = msgspec.json.decode(evaluation.part(REPORT).read_bytes(), type=dict[str, Any])
    known = _compared_with(config.paths.workspace, day, evaluation)
    root = Path(config.paths.store)
    record = find_previous(root, found["test_from"], known) if found["users"] else None
    with datasets.step(
        config.paths.workspace,
        day,
        "report",
        inputs=[evaluation],
        outside={"previous": record.manifest_sha256 if record else ""},
    ) as draft:
        if draft.is_complete:
            return False
        if record is None:
            found["left_out"]["previous"] = NO_PREVIOUS
        else:
            held_out = _held_out(config.retrieve, prepared, candidates)
            try:
                ours = np.load(evaluation.part(ROWS))
                theirs, which = judge_previous(root, record, prepared, held_out, ours["user"])
                summary = Summary(ours["user"])
                found["previous"] = which | _against(summary, ours, theirs, held_out)
                add_to_segments(summary, found["segments"], "previous", theirs.rows)
                summary.fill()
            except StoreError as error:  # whatever is wrong with an old version, tonight's is made
                found["left_out"]["previous"] = f"{record.version} cannot be read: {error.message}"
        datasets.write_json(draft.path / REPORT, found)
        (draft.path / PAGE).write_text(page_of(found, day), encoding="utf-8")
    return True


def _compared_with(workspace: str, day: str, evaluation: Dataset) -> str:
    """The manifest's digest of the version that the finished report of the same evaluation has; "": none.

    That version may be retired by now, and the report is none the worse for it.
    """
    try:
        inputs = datasets.open_dataset(workspace, day, "report").manifest.inputs
    except (DatasetDamagedError, MissingDatasetError):
        return ""
    return inputs["previous"] if inputs["evaluation"] == evaluation.fingerprint else ""


def _headline(report: Dataset) -> dict[str, float | None]:
    found = msgspec.json.decode(report.part(REPORT).read_bytes(), type=dict[str, Any])
    rankings = {"recall": found} | {name: found[name] for name in ("popularity", "previous") if name in found}
    return {f"{name}@{k}": ranking["recall"][k] for k in ("20", "100") for name, ranking in rankings.items()}


def _few(users: int, config: Split) -> dict[str, str]:
    """A warning where too few users are judged to tell much."""
    if users >= FEW_USERS:
        return {}
    found = "nobody is judged"
    if users:
        found = f"{users} users are judged: by chance alone a recall may be off by {off_by(users)}"
    is_by_time = config.strategy == "time"
    remedy = "raise split.test_days" if is_by_time else "lower split.test_per_user or split.validation_per_user"
    return {"warning_users": f"{found}; {remedy}"}


def _held_out(config: Retrieve, prepared: Dataset, candidates: Dataset) -> HeldOut:
    order = np.load(candidates.part("order.npy"))
    return read_held_out(prepared, order, drop_consumed=config.consumed == "drop")


def _active(prepared: Dataset, candidates: Dataset, end: int) -> dict[str, int]:
    """Users with an interaction in the last `ACTIVE_DAYS` days before `end`, and those of them with a list."""
    is_active, has_list = (np.zeros(prepared.rows["users"], dtype=bool) for _ in range(2))
    since = pa.dataset.field("time") >= end - ACTIVE_DAYS * DAY_SECONDS
    for batch in prepared.arrow("interactions").to_batches(columns=["user_index"], filter=since):
        is_active[batch.column("user_index").to_numpy()] = True
    for batch in candidate_files.read_all(candidates.part("users"), BATCH_USERS):
        is_filled = np.diff(batch.column("items").offsets.to_numpy()) > 0
        has_list[batch.column("user_index").to_numpy()[is_filled]] = True
    return {"days": ACTIVE_DAYS, "users": int(is_active.sum()), "covered": int((is_active & has_list).sum())}


def _listed(candidates: Dataset) -> np.ndarray:
    """int32[lists]: the users who have a list to be judged, ascending."""
    batches = candidate_files.read_all(candidates.part("evaluation"), BATCH_USERS)
    users = [batch.column("user_index").to_numpy() for batch in batches]
    return np.sort(np.concatenate([np.empty(0, np.int32), *users]))
