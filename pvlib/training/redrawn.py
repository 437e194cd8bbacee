"""True mels that the backbone drew again: as it draws, yet in time with the recording they belong to.

A vocoder that learnt from true mels alone makes more of them than of what a backbone makes: those are smoother here
and rougher there, and no wave has them exactly. It can learn to take both for the speech that was meant, if there are
pairs. A mel that was sampled from nothing is in time with no recording. One that goes back only part of the way to
noise and is sampled from there (as SDEdit edits pictures; Meng et al., 2022) keeps its timing, while its detail is the
backbone's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from f5_tts.model.utils import lens_to_mask
from torch import Tensor
from tqdm.auto import tqdm

from pvlib import attention, hub, paths
from pvlib.audio import CLIP_FRAMES
from pvlib.backbone import Backbone
from pvlib.config import Profile
from pvlib.training.backbone import Rows
from pvlib.training.common import TrainingError
from pvlib.training.features import mel_cache

UTTERANCES = 400
FRAMES = (250, 650)  # of the utterances: a crop of the vocoder behind the first second, and one chunk
ROWS = 4  # drawn together, of like length
FROM = (
    0.1,
    0.6,
)  # where on the way from noise to speech the drawing begins: what is said stays, how it sounds does not
SEED = 7


@dataclass(frozen=True)
class Redrawn:
    """frames: (N, 100) float16 log-mels in a row; offsets: (utterances + 1,); utterances: their places in the split."""

    frames: np.ndarray
    offsets: np.ndarray
    utterances: np.ndarray


def redrawn(profile: Profile, device: torch.device, split: str = "train") -> Redrawn:
    """Mels of UTTERANCES of a split, drawn by the profile's backbone behind their first second, which stays.

    Ten minutes of two cores on first use, with a progress bar; kept beside the training states while backbone,
    recogniser (whose letters the alignment follows) and corpus are the same.
    Raises WeightsError without one of the two, CorpusError without a corpus, TrainingError where all utterances are too
    short or too long.
    """
    cache = mel_cache(split)
    of = [hub.fingerprint(name, profile) for name in (hub.backbone_name(profile), "recognizer")]
    made_of = (of, cache.lengths, UTTERANCES, FRAMES, ROWS, FROM, SEED, profile.inference.steps)
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    path = paths.TRAINING / "redrawn" / f"{split}-{key}.npz"
    if not path.exists():
        model = hub.load_backbone(profile, device)
        mels = _draw(model, Rows(split, model, None, profile, device), profile)
        with paths.appearing(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                frames=np.concatenate(list(mels.values())),
                offsets=np.cumsum([0, *map(len, mels.values())]),
                utterances=np.array(list(mels)),
            )
    kept = np.load(path)
    return Redrawn(kept["frames"], kept["offsets"], kept["utterances"])


def _draw(model: Backbone, rows: Rows, profile: Profile) -> dict[int, np.ndarray]:
    """Utterances in order of their number, each (n, 100)."""
    rng = np.random.default_rng(SEED)
    shortest, longest = FRAMES
    chosen = [i for i in rng.permutation(len(rows.lengths)) if shortest <= rows.lengths[i] <= longest]
    chosen = sorted(map(int, chosen[:UTTERANCES]), key=lambda i: rows.lengths[i])
    if not chosen:
        raise TrainingError(
            f"no utterance has {shortest} to {longest} mel frames; build a corpus of other speech"
        )
    made: dict[int, np.ndarray] = {}
    for first in tqdm(range(0, len(chosen), ROWS), desc="mels drawn again", mininterval=5):
        batch = chosen[first : first + ROWS]
        begin, seed = float(rng.uniform(*FROM)), int(rng.integers(2**31))
        for i, mel in zip(batch, draw_again(model, rows, batch, begin, seed, profile), strict=True):
            made[i] = mel.half().cpu().numpy()
    return dict(sorted(made.items()))


@torch.no_grad()
def draw_again(
    model: Backbone, rows: Rows, chosen: list[int], begin: float, seed: int, profile: Profile
) -> list[Tensor]:
    """Utterances sampled from `begin` (0 noise, 1 speech) on, with their true alignment: mels (n, 100).

    Steps, guidance and sway are the pipeline's, of which those before `begin` are left out.
    """
    inference, cfm = profile.inference, model.cfm
    mel, frames, text, _ = rows.batch(chosen, torch.Generator())
    true = cfm.stacked(mel)
    n = true.shape[1]
    index = torch.full((len(chosen), n), -1)
    for row, i in enumerate(chosen):
        at = rows.alignment(i)[:n]
        index[row, : len(at)] = at
    mask = lens_to_mask(cfm.tokens(frames), length=n).to(model.device)
    visible = torch.zeros_like(true)
    known = cfm.whole_tokens(CLIP_FRAMES)
    visible[:, :known] = true[:, :known]
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(seed)).to(model.device)
    x = (1 - begin) * noise * mask[..., None] + begin * true
    times = model.times(inference.steps, inference.sway_coef)
    times = torch.cat([times.new_tensor([begin]), times[times > begin]])
    strength = torch.full((len(chosen), 1, 1), inference.cfg_strength, device=model.device)
    model.eval()
    try:
        with model.aligned(index.to(model.device)), attention.row_by_row(model.transformer):
            for t, s in zip(times[:-1], times[1:], strict=True):
                x = x + (s - t) * model.velocity(x, visible, text, t, mask, strength)
    finally:
        model.transformer.clear_cache()
    made = cfm.unstacked(x.float())[:, : mel.shape[1]]
    made[:, :CLIP_FRAMES] = mel[:, :CLIP_FRAMES]
    return [row[:length] for row, length in zip(made, frames.tolist(), strict=True)]
