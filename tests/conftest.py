"""What every test shares: threads, a plotting backend without a window, quiet third parties.

Threads: one in each of the processes of `make test`; in a process alone OMP_NUM_THREADS, by default two.
"""

from __future__ import annotations

import json
import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # whatever the process that started it has: they share the cores
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["MPLBACKEND"] = "Agg"

import matplotlib
import numpy as np
import pytest
import torch

from pvlib import paths
from pvlib.study import compiled

compiled.compile_librosa()  # by one of the processes of `make test`
matplotlib.use("Agg")
THREADS = int(os.environ["OMP_NUM_THREADS"])
torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _same_threads_after_each_test():
    """Some packages set torch's threads on import; a test must not slow down the next."""
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture
def toy_corpus(tmp_path, monkeypatch):
    """Eight utterances of noise for train, train-voices and dev, of four speakers; nothing touches the repository."""
    rng = np.random.default_rng(7)
    monkeypatch.setattr(paths, "WORLD", tmp_path / "world")
    monkeypatch.setattr(paths, "TRAINING", tmp_path / "training")
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "checkpoints")
    paths.WORLD.mkdir()
    for split in ("train", "train-voices", "dev"):
        rows, sound, offset = [], [], 0
        for k in range(8):
            samples = 26_000 + 500 * k
            rows.append(
                {
                    "utterance": f"{split}-{k}",
                    "speaker": f"s{k % 4}",
                    "room": f"r{k % 3}",
                    "base_voice": f"en+v{k}",
                    "text": "red fox",
                    "offset": offset,
                    "samples": samples,
                    "word_times": [["red", 0.1, 0.5], ["fox", 0.5, 1.05]],
                }
            )
            sound.append((0.1 * rng.normal(size=samples) * 32767).astype(np.int16))
            offset += samples
        (paths.WORLD / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        (paths.WORLD / f"{split}.pcm").write_bytes(np.concatenate(sound).tobytes())
