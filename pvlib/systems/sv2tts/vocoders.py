"""Stage 3, the vocoder: log-mels become sound. Three of them behind one interface.

Axes: b batch, n mel frames, s samples.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from pvlib import hub, vocoder
from pvlib.audio import HOP_LENGTH, N_MELS
from pvlib.config import ConfigError, Folding, Profile
from pvlib.systems.sv2tts import weights
from pvlib.systems.sv2tts.prediction import lowered
from pvlib.systems.sv2tts.synthesizer import scaled
from pvlib.systems.sv2tts.wavernn import CONTEXT, WaveRNN, build, fold, folds, unfold

KINDS = ("vocos", "wavernn", "griffin-lim")


class SoundStage(Protocol):
    """Stage 3: (b, 100, n) as `audio.mel` gives it -> samples (b, (n - 1) 256) at 24 kHz; the same seed repeats.

    Raises ValueError on another shape or fewer than two frames.
    """

    def decode(self, mel: Tensor, seed: int = 0) -> Tensor: ...


def load(kind: str, profile: Profile, device: str | torch.device = "cpu") -> SoundStage:
    """A vocoder by name, with its weights. Raises ConfigError on an unknown one, WeightsError."""
    if kind == "vocos":
        return Vocos(hub.load_vocoder(profile, device))
    if kind == "wavernn":
        return FoldedWaveRNN(
            weights.load(build(profile.sv2tts_vocoder), "sv2tts-vocoder", profile).to(device)
        )
    if kind == "griffin-lim":
        return GriffinLim()
    raise ConfigError(f"no vocoder {kind!r}: choose one of {', '.join(KINDS)}")


class GriffinLim:
    """Nothing learned: phases by iteration."""

    def __init__(self, iterations: int = 60):
        self.iterations = iterations

    def decode(self, mel: Tensor, seed: int = 0) -> Tensor:
        """See `SoundStage`; its first phases are the same for every seed."""
        return vocoder.griffin_lim(mel, self.iterations)


class Vocos:
    """The project's own vocoder, which has no chance in it."""

    def __init__(self, network: vocoder.Vocoder):
        self.network = network

    def decode(self, mel: Tensor, seed: int = 0) -> Tensor:
        """See `SoundStage`; the seed has no effect."""
        return self.network.decode(mel.to(next(self.network.parameters()).device))


class FoldedWaveRNN:
    """WaveRNN, with a long mel cut into folds that are spoken in one batch."""

    def __init__(self, network: WaveRNN, folding: Folding | None = None):
        self.network, self.folding = network, folding or Folding()

    @torch.inference_mode()
    def decode(self, mel: Tensor, seed: int = 0) -> Tensor:
        """See `SoundStage`. The sound of one seed depends on the folding."""
        if mel.ndim != 3 or mel.shape[1] != N_MELS or mel.shape[2] < 2:
            raise ValueError(
                f"a mel of shape (batch, {N_MELS}, frames >= 2) is needed, not {tuple(mel.shape)}"
            )
        device = next(self.network.parameters()).device
        options, hops = self.folding, mel.shape[2] - 1
        length, overlap = options.fold_hops, options.overlap_hops
        if not options.enabled or folds(hops, length, overlap) == 1:
            length, overlap = hops, 0
        # frames: one more than hops, and two on each side for the stretching network
        x = nn.functional.pad(scaled(mel.to(device).float()), (CONTEXT, CONTEXT), mode="replicate")
        windows = [fold(row.T, length, overlap, 1 + 2 * CONTEXT) for row in x]  # [(k, frames, 100)]
        batch = torch.cat(windows).transpose(1, 2)
        made = self.network.generate(
            batch.contiguous(),
            torch.Generator(device).manual_seed(seed),
            temperature=options.temperature,
            hops_at_once=options.hops_at_once,
        )
        waves = made.unflatten(0, (len(mel), -1))  # (b, k, samples of a fold)
        warm_up = min(options.warm_up_hops, overlap) * HOP_LENGTH
        joined = [unfold(folded, overlap * HOP_LENGTH, hops * HOP_LENGTH, warm_up) for folded in waves]
        return lowered(torch.stack(joined))
