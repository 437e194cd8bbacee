"""Listening to a model while it trains: dev sentences in dev voices, read back by the embedded recogniser."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer
import numpy as np
import torch
from torch import Tensor

from pvlib import audio, hub, laag, recognizer
from pvlib.backbone import Backbone, Item
from pvlib.config import Profile
from pvlib.training.features import mel_cache
from pvlib.training.recognizer import first_second
from pvlib.world.corpus import open_split

UTTERANCES = 40  # of sixteen, the rate scatters by 0.1
STEPS = 16
WORDS = (6, 16)  # of the sentences that are listened to: one chunk, and not ultra-short
SHORT = (1, 4)
TOGETHER = 4  # sampled at once, where there is no GPU
SEED = 1


def items(
    model: Backbone, profile: Profile, count: int = UTTERANCES, words: tuple[int, int] = WORDS
) -> tuple[list[Item], list[str]]:
    """What to say and in whose voice: items with the first second of another utterance, and the sentences.

    words: how many a sentence may have, the least and the most.
    The clip's words are the true ones, the last cut short in proportion; durations are those of the official rule.
    """
    corpus, cache = open_split("dev"), mel_cache("dev")
    rng = np.random.default_rng(SEED)
    texts, speakers = corpus.table["text"].tolist(), corpus.table["speaker"].to_numpy()
    fitting = [i for i, text in enumerate(texts) if words[0] <= len(text.split()) <= words[1]]
    made, said = [], []
    for number, i in enumerate(rng.permutation(fitting)[:count].tolist()):
        others = [j for j in np.flatnonzero(speakers == speakers[i]).tolist() if j != i]
        j = int(rng.choice(others))
        heard = first_second(corpus.words(j), profile.recognizer.alphabet)
        if not heard:  # the clip begins with more than a second of silence
            continue
        text = "".join(c for c in texts[i].lower() if c in model.vocabulary)
        clip = torch.from_numpy(np.asarray(cache.mel(j, 0, audio.CLIP_FRAMES), dtype=np.float32))
        heard = laag.boundary(heard)
        frames = laag.duration(len(clip), heard, text, profile.inference)
        made.append(Item(clip, heard, text, frames, seed=number, cfg_strength=profile.inference.cfg_strength))
        said.append(texts[i])
    return made, said


@torch.no_grad()
def error_rates(
    model: Backbone, profile: Profile, count: int = UTTERANCES, words: tuple[int, int] = WORDS
) -> dict[str, float]:
    """Word and letter error rates (shares) of what the embedded recogniser hears, vocoded by the embedded vocoder.

    words: as of `items`. Raises WeightsError where one of the two is missing: train them first.
    """
    asked, said = items(model, profile, count, words)
    mels = model.sample(asked, steps=STEPS)
    return heard(
        [mel[len(item.mel) :] for mel, item in zip(mels, asked, strict=True)], said, profile, model.device
    )


def possible(profile: Profile) -> bool:
    """Whether the recogniser and the vocoder are trained, without which nothing is heard."""
    return all(hub.weights_path(name, profile).exists() for name in ("recognizer", "vocoder"))


@torch.no_grad()
def heard(
    mels: Sequence[Tensor], said: Sequence[str], profile: Profile, device: torch.device
) -> dict[str, float]:
    """Word and letter error rates (shares) of log-mels (n, 100), as `error_rates`. Raises WeightsError likewise."""
    ears, vocoder = hub.load_recognizer(profile, device), hub.load_vocoder(profile, device)
    waves = [vocoder.decode(mel.T[None].to(device))[0].cpu().numpy() for mel in mels]
    alphabet = profile.recognizer.alphabet
    truth = [recognizer.normalise(text, alphabet) for text in said]
    words = ears.transcribe(waves)
    return {"wer_dev": jiwer.wer(truth, words), "cer_dev": jiwer.cer(truth, words)}
