"""Mel to waveform: Vocos (the official classes) and Griffin-Lim, the classic comparison.

Axes: b batch, n mel frames, s samples, d channels.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torchaudio
from torch import Tensor, nn

from pvlib.audio import HOP_LENGTH, N_FFT, N_MELS, SAMPLE_RATE
from pvlib.config import Vocoder as Config

SHORTEST_FRAMES = N_FFT // 2 // HOP_LENGTH + 2  # whose wave is longer than half a window


def build(config: Config) -> Vocoder:
    """An untrained vocoder."""
    return Vocoder(config)


class Vocoder(nn.Module):
    """Vocos: a ConvNeXt backbone over mel frames and a head that predicts the short-time spectrum.

    `backbone` and `head` carry the names of the official checkpoint, which fits the larger configuration.
    """

    def __init__(self, config: Config):
        super().__init__()
        from vocos.heads import ISTFTHead
        from vocos.models import VocosBackbone

        self.config = config
        self.backbone = VocosBackbone(N_MELS, config.dim, config.intermediate_dim, config.num_layers)
        self.head = ISTFTHead(config.dim, N_FFT, HOP_LENGTH, padding="center")

    def forward(self, mel: Tensor) -> Tensor:
        """mel (b, 100, n) as `audio.mel` gives it -> samples (b, (n - 1) 256) at 24 kHz; with gradients.

        The head runs in float32 whatever the autocast.
        Raises ValueError on another shape or fewer than two frames.
        """
        _check(mel)
        x = self.backbone(mel)
        with torch.autocast(mel.device.type, enabled=False):
            return self.head(x.float())

    @torch.inference_mode()
    def decode(self, mel: Tensor) -> Tensor:
        """The waveform of a mel, without gradients: (b, 100, n) -> (b, (n - 1) 256).

        Frames are centred on every 256th sample, so n frames span n - 1 hops; `audio.mel` of the result has n
        frames again. Raises ValueError as `forward` does.
        """
        return self(mel.float())


def griffin_lim(mel: Tensor, iterations: int = 60) -> Tensor:
    """Waveform by iterated phase estimation, nothing learned, repeatable.

    mel: (b, 100, n) -> (b, (n - 1) 256). The mel filters are inverted by their pseudo-inverse.
    Raises ValueError on another shape or fewer than two frames.
    """
    _check(mel)
    samples = (mel.shape[-1] - 1) * HOP_LENGTH
    # the first window reflects half of itself: a shorter wave is made longer and cut
    mel = nn.functional.pad(mel, (0, max(0, SHORTEST_FRAMES - mel.shape[-1])), mode="replicate")
    magnitude = (_inverse_filters().to(mel.device) @ mel.float().exp()).clamp(min=0)
    with torch.random.fork_rng(devices=[mel.device] if mel.is_cuda else []):
        torch.manual_seed(0)  # the first phases are random
        wave = torchaudio.functional.griffinlim(
            magnitude,
            window=torch.hann_window(N_FFT, device=mel.device),
            n_fft=N_FFT,
            hop_length=HOP_LENGTH,
            win_length=N_FFT,
            power=1.0,
            n_iter=iterations,
            momentum=0.99,
            length=(mel.shape[-1] - 1) * HOP_LENGTH,
            rand_init=True,
        )
    return wave[:, :samples]


@lru_cache(maxsize=1)
def _inverse_filters() -> Tensor:
    filters = torchaudio.functional.melscale_fbanks(N_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, N_MELS, SAMPLE_RATE)
    return torch.linalg.pinv(filters.T)  # (bins, bands)


def _check(mel: Tensor) -> None:
    if mel.ndim != 3 or mel.shape[1] != N_MELS or mel.shape[2] < 2:
        raise ValueError(f"a mel of shape (batch, {N_MELS}, frames >= 2) is needed, not {tuple(mel.shape)}")
