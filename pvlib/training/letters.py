"""Where in an utterance each letter sounds, as the recogniser hears it: CTC forced alignment of the known text.

The mini world knows when each word is said, no corpus says it of letters. The backbone learns what a letter sounds
like far better where it need not guess which of a word's frames are its own.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import forced_align, merge_tokens
from tqdm.auto import tqdm

from pvlib import hub, paths
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.config import Profile
from pvlib.recognizer import BLANK, CTCRecognizer
from pvlib.training.common import chosen_device
from pvlib.training.features import mel_cache, pad
from pvlib.world.corpus import open_split

BATCH = 16


def centres(split: str, profile: Profile, limit: int | None = None) -> list[np.ndarray]:
    """The middle of each character of each text, in seconds: one array (nt,) per utterance.

    NaN at marks and spaces, and throughout where an utterance is too short for its text. Some minutes of work on first
    use, with a progress bar; kept beside the training states while recogniser and corpus are the same.
    Raises WeightsError without a recogniser, CorpusError without a corpus.
    """
    corpus, cache = open_split(split), mel_cache(split)
    texts = corpus.table["text"].tolist()[:limit]
    made_of = (hub.fingerprint("recognizer", profile), texts, cache.lengths[:limit])
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    path = paths.TRAINING / "letters" / f"{split}-{key}.npy"
    if not path.exists():
        ears = hub.load_recognizer(profile, chosen_device())
        found: dict[int, np.ndarray] = {}
        order = sorted(range(len(texts)), key=lambda i: cache.lengths[i])
        for first in tqdm(range(0, len(order), BATCH), desc=f"letters of {split}", mininterval=5):
            rows = order[first : first + BATCH]
            heard = listen(ears, [cache.mel(i) for i in rows], [texts[i] for i in rows])
            found |= dict(zip(rows, heard, strict=True))
        with paths.appearing(path) as partial, partial.open("wb") as file:
            np.save(file, np.concatenate([found[i] for i in range(len(texts))]))
    ends = itertools.accumulate(len(text) for text in texts)
    return np.split(np.load(path), list(ends)[:-1])


@torch.inference_mode()
def listen(ears: CTCRecognizer, mels: list[np.ndarray], texts: list[str]) -> list[np.ndarray]:
    """As `centres`, of mels (n, 100) and what is said in them."""
    device = next(ears.parameters()).device
    log_probs, lengths = ears(*(given.to(device) for given in pad(mels)))
    result = []
    for row, mel, length, text in zip(log_probs.cpu(), mels, lengths.tolist(), texts, strict=True):
        seconds = len(mel) * HOP_LENGTH / SAMPLE_RATE / length
        result.append(_letters(row[:length], text, ears) * seconds)
    return result


def _letters(log_probs: Tensor, text: str, ears: CTCRecognizer) -> np.ndarray:
    """The middle of each letter in steps of log_probs (m, v)."""
    middle = np.full(len(text), np.nan, dtype=np.float32)
    symbols = ears.encode(text)
    repeats = sum(a == b for a, b in itertools.pairwise(symbols))
    if not symbols or len(symbols) + repeats > len(log_probs):
        return middle
    labels, scores = forced_align(log_probs[None], torch.tensor([symbols]), blank=BLANK)
    space = ears.config.alphabet.index(" ") + 1
    spans = [span for span in merge_tokens(labels[0], scores[0], BLANK) if span.token != space]
    letters = [k for k, c in enumerate(text.lower()) if c != " " and c in ears.config.alphabet]
    for k, span in zip(letters, spans, strict=True):
        middle[k] = (span.start + span.end) / 2
    return middle
