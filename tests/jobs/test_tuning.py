"""Tuning: the validation split chooses, a gain must be clear, and nothing that is finished is done again."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from blocks_shop import DAY, small_config, write_prepared

import shortlist
from jobs import datasets, model, train, tuning
from jobs.checkpoint import Epoch, Progress
from jobs.encoder import Encoder
from jobs.errors import NothingToTuneError, TrainingDivergedError
from schemas.config import Config
from schemas.errors import UsageError


@dataclasses.dataclass
class Trainer:
    """Stands for `train.choose`: its recall is a function of the settings."""

    recall: dict[str, float]
    asked: list[train.Assignment] = dataclasses.field(default_factory=list)
    dies_after: int = 99

    def __call__(self, assignment: train.Assignment) -> Progress:
        if len(self.asked) == self.dies_after:
            raise KeyboardInterrupt
        self.asked.append(assignment)
        found = self.recall[f"{assignment.config.similarity} {assignment.config.dimensions}"]
        if found < 0:
            raise TrainingDivergedError("the loss is nan")
        return Progress([Epoch(0, None, found)], 0, True)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = small_config(tmp_path, dimensions=64)
    write_prepared(config)
    return config


def tuned(config: Config, monkeypatch: pytest.MonkeyPatch, trainer: Trainer) -> list[tuning.Trial]:
    monkeypatch.setattr(train, "choose", trainer)
    return tuning.run(config, DAY, ["dimensions", "similarity"])[1]


def test_the_best_of_one_knob_is_kept_while_the_next_is_turned(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    recalls = {"cosine 64": 0.3, "dot 64": 0.4, "dot 128": 0.5, "dot 256": 0.45}
    trials = tuned(config, monkeypatch, Trainer(recalls))
    asked = [(trial.settings["similarity"], trial.settings["dimensions"]) for trial in trials]
    assert asked == [("cosine", 64), ("dot", 64), ("dot", 128), ("dot", 256)]
    assert tuning.best(trials).recall == 0.5
    assert tuning.advice(trials).splitlines()[1:] == ["[train]", 'similarity = "dot"', "dimensions = 128"]


def test_the_settings_can_be_pasted_as_they_were_tried() -> None:
    settings: dict[str, str | int | float] = {"similarity": "dot", "dimensions": 256, "learning_rate": 0.05 / 3}
    before = dict.fromkeys(settings, 0)
    trials = [
        tuning.Trial(settings=tried, recall=recall, best_epoch=1, seconds=1.0, is_better=True)
        for tried, recall in ((before, 0.3), (settings, 0.4))
    ]
    assert tomllib.loads(tuning.advice(trials)) == {"train": settings}


def test_a_gain_within_the_noise_changes_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    recalls = {"cosine 64": 0.3, "dot 64": 0.3009, "cosine 128": 0.3011, "cosine 256": 0.2}
    trials = tuned(config, monkeypatch, Trainer(recalls))
    assert tuning.best(trials) == trials[0]
    assert tuning.advice(trials).startswith("# the settings as they are: recall 0.3000")


def test_settings_that_diverge_lose(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    recalls = {"cosine 64": 0.3, "dot 64": -1.0, "cosine 128": 0.5, "cosine 256": -1.0}
    assert tuning.best(tuned(config, monkeypatch, Trainer(recalls))).settings["dimensions"] == 128


def test_a_killed_tuning_repeats_no_finished_trial_but_one_whose_file_is_torn(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalls = {"cosine 64": 0.3, "dot 64": 0.4, "dot 128": 0.5, "dot 256": 0.45}
    with pytest.raises(KeyboardInterrupt):
        tuned(config, monkeypatch, Trainer(recalls, dies_after=2))
    finished = (Path(config.paths.workspace) / DAY / ".tuning.draft").glob("*.json")
    torn = max(finished, key=lambda file: file.stat().st_mtime_ns)
    torn.write_bytes(b"")  # as a full disk leaves it
    rest = Trainer(recalls)
    trials = tuned(config, monkeypatch, rest)
    assert [assignment.config.dimensions for assignment in rest.asked] == [64, 128, 256]
    assert [trial.recall for trial in trials] == [0.3, 0.4, 0.5, 0.45]
    again = Trainer(recalls)
    keeping = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, keep_days=30))
    for same in (config, keeping):
        assert tuned(same, monkeypatch, again) == trials
    assert again.asked == []


def test_another_encoder_begins_anew(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def letters(texts: Sequence[str]) -> np.ndarray:
        return np.array([[text.count(chr(97 + k)) for k in range(26)] for text in texts], np.float16)

    reading = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, text="sentences"))
    recalls = {"cosine 64": 0.3, "dot 64": 0.4, "dot 128": 0.5, "dot 256": 0.45}
    asked = []
    for name in ("one", "one", "another"):
        monkeypatch.setattr(tuning, "find_encoder", lambda name=name: Encoder(name, 26, letters))
        trainer = Trainer(recalls)
        tuned(reading, monkeypatch, trainer)
        asked.append(len(trainer.asked))
    assert asked == [4, 0, 4]


def test_another_revision_of_the_training_begins_anew(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    recalls = {"cosine 64": 0.3, "dot 64": 0.4, "dot 128": 0.5, "dot 256": 0.45}
    for dies_after in (2, 99):  # half-done, and done
        with contextlib.suppress(KeyboardInterrupt):
            tuned(config, monkeypatch, Trainer(recalls, dies_after=dies_after))
        monkeypatch.setitem(datasets.REVISION, "model", datasets.REVISION["model"] + 1)
        trainer = Trainer(recalls)
        tuned(config, monkeypatch, trainer)
        assert len(trainer.asked) == 4


def test_a_trial_finds_what_the_training_itself_finds(tmp_path: Path) -> None:
    config = small_config(tmp_path, max_epochs=2)
    write_prepared(config, noise=True)
    _, trials = tuning.run(config, DAY, ["similarity"])
    train.run(config, DAY)
    _, card = model.load(datasets.open_dataset(config.paths.workspace, DAY, "model").path)
    assert trials[0].recall == card.curve[card.best_epoch].recall
    assert [trial.settings["similarity"] for trial in trials] == ["cosine", "dot"]


def test_help_names_every_knob(capsys: pytest.CaptureFixture[str]) -> None:
    assert shortlist.run(["tune", "--help"]) == 0
    said = capsys.readouterr().out
    assert [knob for knob in tuning.KNOBS if knob not in said] == []


def test_an_unknown_knob_is_refused_by_name(config: Config) -> None:
    with pytest.raises(UsageError, match="no knob 'sped'"):
        tuning.run(config, DAY, ["sped"])


def test_nothing_can_be_tuned_where_nobody_is_held_out(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "choose", lambda _: Progress([Epoch(0, None, None)], 0, True))
    with pytest.raises(NothingToTuneError, match="validation split"):
        tuning.run(config, DAY, ["similarity"])


def test_the_front_door_knows_the_verb() -> None:
    assert shortlist.module_of("tune") == "jobs.cli"


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_threads_that_wait_sleep_before_torch_is_loaded(tmp_path: Path, verb: str) -> None:
    code = """if True:
        import os, sys, shortlist

        class Watch:
            def find_spec(self, name, *_):
                if name == "torch":
                    os._exit(0 if os.environ.get("OMP_WAIT_POLICY") == "passive" else 9)

        sys.meta_path.insert(0, Watch())
        shortlist.run([sys.argv[1], "--day", "2026-01-02"])
    """
    done = subprocess.run([sys.executable, "-c", code, verb], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
