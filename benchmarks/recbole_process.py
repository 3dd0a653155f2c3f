"""RecBole in an environment of its own: the pairs as its files, training there as a process that tells how it goes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import yelp
from benchmarks.peers import MissingPeerError

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-recbole/bin/python"
BPR: dict[str, Any] = {"embedding_size": 64, "learning_rate": 1e-3}
"""RecBole's own defaults, spelled out, as is BATCH."""
BATCH = 2048
LIGHTGCN: dict[str, Any] = BPR | {"n_layers": 3, "reg_weight": 1e-4, "require_pow": True}
"""As published, with BATCH of the authors' PyTorch version. Source: He et al. 2020, LightGCN, section 4.1.2."""


def peer(folder: Path, pairs: Path, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Train in RecBole's environment; yields and prints what it tells."""
    if not PYTHON.exists():
        raise MissingPeerError(".venv-recbole is not there: make install-recbole")
    loading = {
        "data_path": str(pairs),
        "benchmark_filename": ["train", "valid", "test"],
        "train_batch_size": order["batch"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "use_gpu": False,
        "seed": order["seed"],
    }
    file = folder / "order.json"
    file.write_text(json.dumps(order | {"settings": order["settings"] | loading}))
    command = [str(PYTHON), "-I", str(ROOT / "benchmarks/recbole_peer.py"), str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": str(order["threads"])}
    with (
        (folder / "stderr").open("w+") as complaints,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                if "steps" not in (fact := json.loads(line)):
                    print(f"  RecBole {order['model']}: {line.strip()}", flush=True)
                yield fact
        if process.wait():
            complaints.seek(0)
            said = complaints.read()[-3000:]
            raise RuntimeError(f"RecBole's {order['model']} ended with {process.returncode}:\n{said}")


def write_pairs(data: yelp.Yelp, folder: Path) -> Path:
    """RecBole's atomic files. It wants three parts; the test part makes two of them, so that it numbers every item."""
    files = folder / "pairs"
    files.mkdir()
    for part, pairs in (("train", data.train), ("valid", data.test), ("test", data.test)):
        lines = "".join(f"{user}\t{item}\n" for user, item in zip(*(side.tolist() for side in pairs), strict=True))
        (files / f"pairs.{part}.inter").write_text(f"user_id:token\titem_id:token\n{lines}")
    return folder
