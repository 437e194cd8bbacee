"""What the trainers of SV2TTS share: the voices of a split."""

from __future__ import annotations

import json
import os
from zipfile import BadZipFile

import numpy as np
from tqdm.auto import tqdm

from pvlib import paths
from pvlib.audio import CLIP_SAMPLES
from pvlib.speaker import GE2E
from pvlib.training.common import TrainingError
from pvlib.training.features import mel_cache
from pvlib.world import corpus as world


def voices(split: str) -> np.ndarray:
    """Resemblyzer's embedding of each utterance of a split, whole and by its first second: (utterances, 2, 256).

    Made once, with a progress bar, and kept as build/world/<split>.ge2e.npz with the corpus it was made of.
    Raises CorpusError when the corpus is missing, TrainingError when the file cannot be written.
    """
    corpus = world.open_split(split)
    mel_cache(split)  # whose card names the corpus
    key = json.loads((paths.WORLD / f"{split}.mel.json").read_text())["corpus"]
    path = paths.WORLD / f"{split}.ge2e.npz"
    try:
        with np.load(path) as kept:
            if str(kept["corpus"]) == key:
                return kept["embeddings"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass  # absent, damaged or of another form: made below
    encoder, embeddings = GE2E(), np.zeros((len(corpus), 2, GE2E.dimension), np.float32)
    for i in tqdm(range(len(corpus)), desc=f"voices of {split}", mininterval=5):
        wave = corpus.wave(i)
        embeddings[i] = encoder.embed([wave, wave[:CLIP_SAMPLES]]).numpy()
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            np.savez(file, corpus=key, embeddings=embeddings)
        os.replace(partial, path)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error}; free some space and run again") from error
    finally:
        partial.unlink(missing_ok=True)
    return embeddings
