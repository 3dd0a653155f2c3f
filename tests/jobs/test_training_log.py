"""Event files that TensorBoard reads: what was written is found again, and a training that goes on appends."""

from __future__ import annotations

from pathlib import Path

import pytest
from blocks_shop import DAY, small_config, write_prepared
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from jobs import checkpoint, train
from jobs.checkpoint import Epoch
from jobs.model import load
from jobs.training_log import TrainingLog
from schemas.config import Config


def events_in(folder: Path) -> list[Event]:
    """The events of all files of a folder, in the order of writing; each record's checksums are checked."""
    found = []
    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            header, length = data[place : place + 8], int.from_bytes(data[place : place + 8], "little")
            body = data[place + 12 : place + 12 + length]
            checks = data[place + 8 : place + 12], data[place + 12 + length : place + 16 + length]
            assert [int.from_bytes(check, "little") for check in checks] == [masked_crc32c(header), masked_crc32c(body)]
            found.append(Event.FromString(body))
            place += 16 + length
    return found


def scalars(events: list[Event], tag: str) -> list[tuple[int, float]]:
    """(step, value) of a scalar, without what the start of a later session takes back."""
    found: list[tuple[int, float]] = []
    for event in events:
        if event.session_log.status == SessionLog.START:
            found = [point for point in found if point[0] < event.step]
        found += [(event.step, value.simple_value) for value in event.summary.value if value.tag == tag]
    return found


def logs_of(config: Config, phase: str = train.CHOOSE) -> Path:
    (folder,) = (Path(config.paths.workspace) / DAY / "logs" / "train").glob(f"*-{phase}")
    return folder


def test_a_training_can_be_read_by_tensorboard(tmp_path: Path) -> None:
    config = small_config(tmp_path, initialise="random")
    write_prepared(config)
    examples = train.run(config, DAY)
    events = events_in(logs_of(config))
    _, card = load(Path(config.paths.workspace) / DAY / "model")
    recalls = scalars(events, "recall")
    assert [value for _, value in recalls] == pytest.approx([point.recall for point in card.curve])
    per_epoch = recalls[1][0]
    assert [step for step, _ in recalls] == [per_epoch * epoch for epoch in range(4)]
    assert [value for _, value in scalars(events, "epoch_loss")] == pytest.approx([p.loss for p in card.curve[1:]])
    losses, rates = scalars(events, "loss"), scalars(events, "learning_rate")
    assert [step for step, _ in losses] == sorted(step for step, _ in losses)
    assert len(losses) == len(rates) == len(scalars(events, "examples_per_second")) > 10
    assert losses[0][1] > losses[-1][1]
    assert rates[0][1] == pytest.approx(0.01)
    assert [value for _, value in rates] == sorted((value for _, value in rates), reverse=True)
    refit = scalars(events_in(logs_of(config, train.REFIT)), "loss")
    assert refit
    assert examples.rows["examples"] == pytest.approx(refit[-1][0] / card.best_epoch, rel=0.05)


def test_a_training_that_goes_on_appends_and_takes_back_what_it_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, whole = small_config(tmp_path / "killed"), small_config(tmp_path / "whole")
    save = checkpoint.save

    def die_in_the_second(folder: Path, state: checkpoint.Progress, tensors: dict) -> None:
        if len(state.curve) == 3:
            raise KeyboardInterrupt
        save(folder, state, tensors)

    for each in (config, whole):
        write_prepared(each)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", die_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, DAY)
    train.run(config, DAY)
    train.run(whole, DAY)
    assert len(list(logs_of(config).iterdir())) == 2
    for tag in ("loss", "recall", "learning_rate"):
        assert scalars(events_in(logs_of(config)), tag) == scalars(events_in(logs_of(whole)), tag)


def test_a_log_that_goes_on_in_the_same_second_loses_nothing(tmp_path: Path) -> None:
    for epochs, loss in ((None, 3.0), (1, 4.0)):
        with TrainingLog(tmp_path / "logs", per_epoch=10, epochs=epochs) as log:
            log.end(Epoch((epochs or 0) + 1, loss, None))
    assert scalars(events_in(tmp_path / "logs"), "epoch_loss") == [(10, 3.0), (20, 4.0)]


def test_another_training_of_the_same_name_begins_its_log_anew(tmp_path: Path) -> None:
    for loss in (3.0, 4.0):
        with TrainingLog(tmp_path / "logs", per_epoch=10, epochs=None) as log:
            log.end(Epoch(1, loss, None))
    assert scalars(events_in(tmp_path / "logs"), "epoch_loss") == [(10, 4.0)]


def test_an_epoch_is_one_line_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(tmp_path, refit=False)
    write_prepared(config)
    train.run(config, DAY)
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch=" in line]
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        assert f"epoch={number} " in line
        assert all(f"{name}=" in line for name in ("loss", "recall", "examples_per_second"))
