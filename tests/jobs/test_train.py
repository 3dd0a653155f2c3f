"""Training: known structure is learned and noise is not, the same seed gives the same bytes, a kill costs nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.dataset
import pytest
import torch
from blocks_shop import BLOCKS, COLD_ITEMS, DAY, ITEMS, USERS, block_of, small_config, write_prepared

from jobs import checkpoint, datasets, fit, kept_model, known, model, order_fit, task, train
from jobs.errors import DatasetDamagedError, NothingToTrainError, TrainingDivergedError
from jobs.features import item_features
from jobs.list_order import BY_PRODUCTS
from jobs.towers import ItemTensors, TwoTowers
from schemas.config import Config
from schemas.data_config import Split
from schemas.tables import TEST


def trained_model(config: Config) -> tuple[TwoTowers, model.Model]:
    return model.load(datasets.open_dataset(config.paths.workspace, DAY, "model").path)


def item_vectors(config: Config, towers: TwoTowers) -> torch.Tensor:
    prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    items = task.read_sorted(prepared.part("items"), "item_index")
    with torch.no_grad():
        return towers.item(ItemTensors.of(item_features(items, towers.architecture.encoding)))


def weights_bytes(config: Config) -> bytes:
    return datasets.open_dataset(config.paths.workspace, DAY, "model").part(model.WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A configuration whose prepared blocks have been trained on."""
    config = small_config(tmp_path_factory.mktemp("blocks"))
    write_prepared(config)
    train.run(config, DAY)
    return config


def test_a_block_structure_is_learned(learned: Config) -> None:
    _, card = trained_model(learned)
    assert card.curve[card.best_epoch].recall == pytest.approx(1.0, abs=0.01)


def test_a_block_structure_is_learned_from_random_numbers_too(tmp_path: Path) -> None:
    config = small_config(tmp_path, initialise="random", max_epochs=6)
    write_prepared(config)
    train.run(config, DAY)
    _, card = trained_model(config)
    assert card.curve[card.best_epoch].recall > 0.95


def test_noise_is_not_learned(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    write_prepared(config, noise=True)
    train.run(config, DAY)
    _, card = trained_model(config)
    chance = 1 / BLOCKS
    assert card.curve[card.best_epoch].recall < chance + 0.12  # the best of four epochs is a little lucky


def test_a_cold_item_lands_among_the_items_with_its_content(learned: Config) -> None:
    towers, _ = trained_model(learned)
    vectors = item_vectors(learned, towers)
    nearest = (vectors[ITEMS:] @ vectors[:ITEMS].T).topk(10).indices.numpy()
    for block in range(COLD_ITEMS):
        assert (block_of(nearest[block], ITEMS) == block).all(), f"cold item of block {block}"


def test_the_same_seed_gives_the_same_bytes(learned: Config, tmp_path: Path) -> None:
    again = small_config(tmp_path)
    write_prepared(again)
    train.run(again, DAY)
    assert weights_bytes(again) == weights_bytes(learned)
    assert trained_model(again)[1] == trained_model(learned)[1]


def test_another_seed_gives_other_numbers(learned: Config, tmp_path: Path) -> None:
    other = small_config(tmp_path, seed=8)
    write_prepared(other)
    train.run(other, DAY)
    assert weights_bytes(other) != weights_bytes(learned)


def test_a_second_run_finds_nothing_to_do(learned: Config) -> None:
    before = weights_bytes(learned)
    assert train.run(learned, DAY).skipped
    assert weights_bytes(learned) == before


def test_saved_and_loaded_towers_are_identical(learned: Config, tmp_path: Path) -> None:
    towers, card = trained_model(learned)
    progress = checkpoint.Progress(card.curve, card.best_epoch, True)
    saved = model.save(tmp_path, towers, progress, temperature=card.temperature, order=card.order)
    assert saved == card
    again, _ = model.load(tmp_path)
    assert torch.equal(item_vectors(learned, again), item_vectors(learned, towers))


def test_no_pickle_and_no_checkpoint_stay_in_the_model(learned: Config) -> None:
    folder = datasets.open_dataset(learned.paths.workspace, DAY, "model").path
    files = {"manifest.json", model.CARD, model.WEIGHTS, *kept_model.IDS.values()}
    assert {path.name for path in folder.iterdir()} == files


def test_training_never_reads_the_test_split(learned: Config) -> None:
    prepared = datasets.open_dataset(learned.paths.workspace, DAY, "prepared")
    reading = task.Reading("keep", "time")
    read = task.read_task(prepared, learned.train, reading, made_at=0, device=torch.device("cpu"))
    table = pyarrow.dataset.dataset(prepared.part("interactions")).to_table().to_pandas()
    assert read.counts.users.sum() == (table.split == 0).sum()
    tested = set(table[table.split == TEST].user_index) - set(table[table.split == 1].user_index)
    assert tested
    assert not tested & set(read.validation.users.tolist())


def test_the_test_split_changes_no_bit_of_the_model(learned: Config, tmp_path: Path) -> None:
    other = small_config(tmp_path)
    write_prepared(other, test_seed=77)
    train.run(other, DAY)
    assert weights_bytes(other) == weights_bytes(learned)
    assert trained_model(other)[1] == trained_model(learned)[1]


def test_what_users_come_back_to_is_learned_for_the_order_of_lists(tmp_path: Path) -> None:
    found = {}
    for name, habits, settings in (
        ("habits", True, {}),
        ("no habits", False, {}),
        ("by products", True, {"order": "products"}),
        ("without popularity", True, {"popularity_debias": 0.5}),
    ):
        config = small_config(tmp_path / name, max_epochs=1, **settings)
        write_prepared(config, habits=habits, popular=8)
        details = train.run(config, DAY).details
        found[name] = trained_model(config)[1].order
        assert details["order"] == ("products" if found[name] == BY_PRODUCTS else "learned")
    assert found["by products"] == BY_PRODUCTS
    five_times = {name: float(order.of_times(np.log1p([5]))[0]) for name, order in found.items()}
    assert five_times["habits"] > 0.1 > five_times["no habits"]
    assert (found["without popularity"].recent, five_times["without popularity"] > 0.1) == (0.0, True)


def test_the_last_events_of_each_user_are_no_ground_for_an_order(tmp_path: Path) -> None:
    config = small_config(tmp_path, max_epochs=1)
    config = msgspec.structs.replace(config, split=Split(strategy="per_user"))
    write_prepared(config, habits=True)
    assert train.run(config, DAY).details["order"] == "products"


def test_the_slice_tells_how_often_each_item_of_a_list_was_met(
    learned: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = datasets.open_dataset(learned.paths.workspace, DAY, "prepared")
    reading = task.Reading("keep", "time")
    read = task.read_task(prepared, learned.train, reading, made_at=0, device=torch.device("cpu"))
    towers, _ = trained_model(learned)
    found = known.write_known(prepared, np.arange(ITEMS + COLD_ITEMS), tmp_path / "known", before=1)
    recent = np.arange(ITEMS + COLD_ITEMS, dtype=np.float32)  # so that a list tells its items
    every_item = found._replace(recent=recent, late=found.late[:5])
    lists = read.validation.lists(towers, read.items, read.users, every_item, 30)
    assert {part.shape for part in lists[:4]} == {(len(read.validation.users), 30 + 5 + known.LATE_ITEMS)}
    rows = pyarrow.dataset.dataset(prepared.part("interactions")).to_table().to_pylist()
    assert lists.times.sum() > 100
    joined = 0
    for place, user in enumerate(read.validation.users.tolist()):
        met = slice(found.starts[user], found.ends[user])
        times = dict(zip(found.items[met].tolist(), found.times[met].tolist(), strict=True))
        assert set(times) == {row["item_index"] for row in rows if row["user_index"] == user and not row["split"]}
        wanted = {row["item_index"] for row in rows if row["user_index"] == user and row["split"] == 1}
        is_there = np.isfinite(lists.products[place])
        items = lists.recent[place, is_there].astype(int).tolist()
        assert len(items) == len(set(items))
        assert set(items[30:]) == {*times, *found.late[:5].tolist()} - set(items[:30])
        assert (np.diff(lists.products[place, :30]) <= 0).all()
        assert lists.products[place, is_there][30:].max(initial=-np.inf) <= lists.products[place, 29]
        assert lists.times[place, is_there].tolist() == [times.get(item, 0.0) for item in items]
        assert lists.is_wanted[place, is_there].tolist() == [item in wanted for item in items]
        assert not lists.is_wanted[place, ~is_there].any()
        joined += len(items) - 30
        assert lists.wanted[place] == len(wanted)
    assert joined > 50
    monkeypatch.setattr(order_fit, "MOST_USERS", len(read.validation.users) - 1)
    some = read.validation.lists(towers, read.items, read.users, every_item, 30)
    for part, every in zip(some, lists, strict=True):
        np.testing.assert_array_equal(part, every[::2])


def test_the_last_training_learns_the_validation_split_unless_told_not_to(learned: Config, tmp_path: Path) -> None:
    config = small_config(tmp_path, refit=False)
    write_prepared(config)
    train.run(config, DAY)
    assert trained_model(config)[1].curve == trained_model(learned)[1].curve, "the epoch is chosen in the same way"
    assert weights_bytes(config) != weights_bytes(learned)
    prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    reading, cpu = task.Reading("keep", "time"), torch.device("cpu")
    read = task.read_task(prepared, config.train, reading, made_at=0, device=cpu, learn_validation=True)
    split = pyarrow.dataset.dataset(prepared.part("interactions")).to_table().column("split").to_numpy()
    assert read.counts.users.sum() == (split < TEST).sum()
    assert not len(read.validation.users)


def killed_after(checkpoints: int, monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """Run a training that dies right after so many checkpoints."""
    save, saved = checkpoint.save, []

    def save_and_die(folder: Path, state: checkpoint.Progress, tensors: dict[str, torch.Tensor]) -> None:
        save(folder, state, tensors)
        saved.append(state)
        if len(saved) == checkpoints:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, DAY)


@pytest.mark.parametrize("checkpoints", [1, 2, 4, 5])
def test_a_training_interrupted_after_any_epoch_ends_with_the_same_bytes(
    learned: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: int
) -> None:
    """The start and three epochs choose; the fifth checkpoint is the start of the training on both splits."""
    config = small_config(tmp_path)
    write_prepared(config)
    killed_after(checkpoints, monkeypatch, config)
    trained = []
    original = fit._train_epoch
    monkeypatch.setattr(
        fit, "_train_epoch", lambda *a, last, **k: trained.append(last.epoch + 1) or original(*a, last=last, **k)
    )
    train.run(config, DAY)
    every = [0, 1, 2, 3, *range(trained_model(learned)[1].best_epoch + 1)]
    assert trained == [epoch for epoch in every[checkpoints:] if epoch], "finished epochs are not trained again"
    assert weights_bytes(config) == weights_bytes(learned)


def test_a_training_killed_by_the_system_ends_with_the_same_bytes(learned: Config, tmp_path: Path) -> None:
    config = small_config(tmp_path)
    write_prepared(config)
    settings = tmp_path / "config.json"
    settings.write_bytes(msgspec.json.encode(config))
    code = f"""
        import os, signal, pathlib, msgspec
        from jobs import checkpoint, train
        from schemas.config import Config
        save = checkpoint.save
        def save_and_die(folder, state, tensors):
            if len(state.curve) == 3:  # in the middle of writing the second epoch's checkpoint
                (folder / ".checkpoint.safetensors").write_bytes(b"torn")
                os.kill(os.getpid(), signal.SIGKILL)
            save(folder, state, tensors)
        checkpoint.save = save_and_die
        train.run(msgspec.json.decode(pathlib.Path({str(settings)!r}).read_bytes(), type=Config), {DAY!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (Path(config.paths.workspace) / DAY / "model").exists()
    train.run(config, DAY)
    assert weights_bytes(config) == weights_bytes(learned)


def test_an_unreadable_checkpoint_means_training_from_the_beginning(learned: Config, tmp_path: Path) -> None:
    (tmp_path / checkpoint.NAME).write_bytes(b"torn")
    assert checkpoint.load(tmp_path) is None


def test_other_settings_do_not_take_up_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(tmp_path)
    write_prepared(config)
    killed_after(2, monkeypatch, config)
    other = small_config(tmp_path, max_epochs=1)
    train.run(other, DAY)
    assert len(trained_model(other)[1].curve) == 2


@pytest.mark.parametrize(
    ("loss", "advice"), [(float("nan"), "learning_rate"), (float("inf"), "learning_rate"), (0.0, "temperature")]
)
def test_a_loss_that_cannot_be_stops_the_training_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float, advice: str
) -> None:
    config = small_config(tmp_path)
    write_prepared(config)
    original = fit.batch_loss
    calls = []

    def broken(*arguments: object) -> torch.Tensor:
        calls.append(1)
        return original(*arguments) * (loss if len(calls) == 2 else 1.0)

    monkeypatch.setattr(fit, "batch_loss", broken)
    with pytest.raises(TrainingDivergedError, match=r"epoch 1, step 1") as stopped:
        train.run(config, DAY)
    assert advice in stopped.value.hint
    assert not (Path(config.paths.workspace) / DAY / "model").exists()


def test_even_the_highest_learning_rate_overflows_nothing(tmp_path: Path) -> None:
    config = small_config(tmp_path, learning_rate=1.0)
    write_prepared(config)
    train.run(config, DAY)
    assert np.isfinite([point.loss for point in trained_model(config)[1].curve[1:]]).all()


def test_patience_ends_a_training_that_gets_no_better(learned: Config, tmp_path: Path) -> None:
    config = small_config(tmp_path, max_epochs=50, patience=2)
    write_prepared(config)
    train.run(config, DAY)
    _, card = trained_model(config)
    assert len(card.curve) - 1 == card.best_epoch + 2


def test_an_empty_train_split_is_named(tmp_path: Path, make_world: type) -> None:
    config = small_config(tmp_path)
    world = make_world(events=[(0, 1, 1.0, 1_000, False, TEST)])
    world.write(Path(config.paths.workspace))
    with pytest.raises(NothingToTrainError, match="train split"):
        train.run(config, "2026-03-02")


def test_interactions_that_all_weigh_nothing_are_told_by_the_setting(tmp_path: Path, make_world: type) -> None:
    config = small_config(tmp_path)
    make_world(events=[(k % 10, k % 13, 0.0, 86_400 * k, False, 0) for k in range(200)]).write(config.paths.workspace)
    with pytest.raises(NothingToTrainError) as caught:
        train.run(config, "2026-03-02")
    assert "data.interactions.event_weights" in str(caught.value.hint)


def test_no_validation_split_keeps_the_last_epoch(tmp_path: Path, make_world: type) -> None:
    config = small_config(tmp_path)
    events = [(k % 10, (k * 7) % 13, 1.0, 86_400 * k, False, 0) for k in range(200)]
    make_world(events=events).write(Path(config.paths.workspace))
    train.run(config, "2026-03-02")
    _, card = model.load(datasets.open_dataset(config.paths.workspace, "2026-03-02", "model").path)
    assert card.best_epoch == 3
    assert {point.recall for point in card.curve} == {None}


@pytest.mark.parametrize("file", [model.CARD, model.WEIGHTS])
def test_a_torn_model_is_refused_by_name(learned: Config, tmp_path: Path, file: str) -> None:
    folder = datasets.open_dataset(learned.paths.workspace, DAY, "model").path
    for name in (model.CARD, model.WEIGHTS):
        data = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2] if name == file else data)
    with pytest.raises(DatasetDamagedError, match=str(tmp_path)):
        model.load(tmp_path)


def test_a_model_whose_card_is_not_in_utf_8_is_refused(learned: Config, tmp_path: Path) -> None:
    folder = datasets.open_dataset(learned.paths.workspace, DAY, "model").path
    shutil.copyfile(folder / model.WEIGHTS, tmp_path / model.WEIGHTS)
    (tmp_path / model.CARD).write_bytes((folder / model.CARD).read_bytes().replace(b"cosine", b"c\xffsine"))
    with pytest.raises(DatasetDamagedError, match=f"the model in {tmp_path} cannot be read"):
        model.load(tmp_path)


def test_torch_is_left_as_it_was(learned: Config, tmp_path: Path) -> None:
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    threads = torch.get_num_threads()
    config = small_config(tmp_path, max_epochs=1)
    write_prepared(config)
    train.run(config, DAY)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_users_of_a_block_are_nearest_to_its_items_with_and_without_their_id(learned: Config) -> None:
    prepared = datasets.open_dataset(learned.paths.workspace, DAY, "prepared")
    reading = task.Reading("keep", "time")
    read = task.read_task(prepared, learned.train, reading, made_at=datasets.end_of(DAY), device=torch.device("cpu"))
    towers, _ = trained_model(learned)
    vectors = item_vectors(learned, towers)
    users = np.flatnonzero(read.counts.users > 2)
    known = read.shards.known(read.shards.read(0))
    pooled = towers.user.pool(vectors, *map(torch.from_numpy, known.last(users, 8)))
    for keep in (True, False):
        with torch.no_grad():
            found = towers.user(read.users.take(torch.from_numpy(users)), pooled, torch.full((len(users),), keep))
        best = (found @ vectors[:ITEMS].T).topk(10).indices.numpy()
        right = (block_of(best, ITEMS) == block_of(users, USERS)[:, None]).mean()
        assert right > 0.97, f"keep id: {keep}"
