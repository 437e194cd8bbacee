"""What the trainers of SV2TTS share: the voices of a split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm.auto import tqdm

from pvlib import paths
from pvlib.audio import CLIP_SAMPLES
from pvlib.speaker import GE2E
from pvlib.training.common import TrainingError
from pvlib.training.features import mel_cache
from pvlib.world import corpus as world

SAVE_EVERY = 500  # voices


def voices(split: str, wanted: Sequence[int] | None = None) -> np.ndarray:
    """Resemblyzer's embedding of utterances of a split, whole and by their first second: (utterances, 2, 256).

    wanted: those that are needed, default all; the others may be zeros. Made once, with a progress bar, and kept as
    build/world/<split>.ge2e.npz with the corpus it was made of; an interrupted run goes on where it stopped.
    Raises CorpusError when the corpus is missing, TrainingError when the file cannot be written.
    """
    corpus = world.open_split(split)
    mel_cache(split)  # whose card names the corpus
    key = json.loads((paths.WORLD / f"{split}.mel.json").read_text())["corpus"]
    path = paths.WORLD / f"{split}.ge2e.npz"
    embeddings = np.zeros((len(corpus), 2, GE2E.dimension), np.float32)
    try:
        with np.load(path) as kept:
            if str(kept["corpus"]) == key:
                embeddings = kept["embeddings"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass  # absent, damaged or of another form: made below
    missing = [i for i in (range(len(corpus)) if wanted is None else wanted) if not embeddings[i].any()]
    encoder = GE2E()
    for done, i in enumerate(tqdm(missing, desc=f"voices of {split}", mininterval=5, disable=not missing), 1):
        wave = corpus.wave(i)
        embeddings[i] = encoder.embed([wave, wave[:CLIP_SAMPLES]]).numpy()
        if done % SAVE_EVERY == 0 or done == len(missing):
            _save(path, key, embeddings)
    return embeddings


def _save(path: Path, key: str, embeddings: np.ndarray) -> None:
    try:
        with paths.appearing(path) as partial, partial.open("wb") as file:
            np.savez(file, corpus=key, embeddings=embeddings)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error}; free some space and run again") from error
