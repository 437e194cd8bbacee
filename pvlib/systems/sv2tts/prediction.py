"""Linear prediction from log-mels: what a sample is likely to be, told by the spectrum and the samples before it.

LPCNet's way (Valin & Skoglund, 2019): the envelope that a mel shows is a filter, the filter foretells each sample from
the last ones, and the network need only find what is left, the breath and the pulses of the voice. All is about speech
with its high tones raised (`raised`). Axes: b batch, n mel frames, s samples, p order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torchaudio
from torch import Tensor

from pvlib.audio import HOP_LENGTH, N_FFT, N_MELS, SAMPLE_RATE

EMPHASIS = 0.85  # share of the last sample that is taken off each
STRETCH = 64  # samples that share one filter
NOISE = 1e-4  # of the power, added to it: the filter is not to follow the spectrum more than 40 dB down
LAG_HERTZ = 60.0  # every peak of the envelope is at least about so wide


def raised(wave: Tensor) -> Tensor:
    """Sound (..., s) with its high tones raised: each sample less `EMPHASIS` of the one before."""
    return torchaudio.functional.preemphasis(wave, EMPHASIS)


def lowered(wave: Tensor) -> Tensor:
    """The inverse of `raised`, clipped to -1..1."""
    return torchaudio.functional.deemphasis(wave, EMPHASIS)


def filters(mel: Tensor, order: int) -> Tensor:
    """Prediction filters of log-mels (b, 100, n): (b, n, p); of a sample, weight k is that of the one k + 1 before."""
    power = torch.exp(2 * (_envelope().to(mel.device) @ mel.float() - _loudness().to(mel.device)))
    omega = torch.linspace(0, torch.pi, power.shape[1], device=mel.device)
    power = power * (1 + EMPHASIS**2 - 2 * EMPHASIS * torch.cos(omega))[:, None]
    lags = torch.fft.irfft(power.transpose(1, 2).double())[..., : order + 1]
    time = torch.arange(order + 1, device=mel.device) / SAMPLE_RATE
    lags = lags * torch.exp(-0.5 * (2 * torch.pi * LAG_HERTZ * time) ** 2)
    lags = lags / lags[..., :1]
    lags[..., 0] += NOISE
    places = torch.arange(order, device=mel.device)
    matrix = lags[..., (places[:, None] - places).abs()]  # Toeplitz: (b, n, p, p)
    return torch.linalg.solve(matrix, lags[..., 1:]).float()


def predicted(wave: Tensor, weights: Tensor) -> Tensor:
    """What each sample of (b, p + s) from the p-th on is foretold to be: (b, s).

    weights: (b, s / 64, p), a filter for each `STRETCH` of samples.
    """
    order = weights.shape[-1]
    past = wave[:, :-1].unfold(1, order, 1).unflatten(1, (-1, STRETCH))  # oldest first: (b, s / 64, 64, p)
    return torch.einsum("bjtp,bjp->bjt", past, weights.flip(-1)).flatten(1)


def at_stretches(mel: Tensor, first: int, count: int) -> Tensor:
    """Log-mels (b, 100, n) between the frames: (b, 100, count), at the middles of the stretches from number `first` on.

    Frame 0 is centred on the sample where stretch 0 begins; beyond the ends the last frame goes on.
    """
    place = (torch.arange(first, first + count, device=mel.device) + 0.5) * STRETCH / HOP_LENGTH
    place = place.clamp(0, mel.shape[2] - 1)
    left = place.long().clamp(max=max(0, mel.shape[2] - 2))
    right = (left + 1).clamp(max=mel.shape[2] - 1)
    return torch.lerp(mel[..., left], mel[..., right], place - left)


@lru_cache(maxsize=1)
def _fbanks() -> Tensor:
    return torchaudio.functional.melscale_fbanks(N_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, N_MELS, SAMPLE_RATE)


@lru_cache(maxsize=1)
def _loudness() -> Tensor:
    """What a band's logarithm has more than its bins': (bins, 1)."""
    sums = _fbanks().sum(0)
    known = sums > 0
    return _envelope() @ torch.where(known, sums, torch.ones(())).log()[:, None]


@lru_cache(maxsize=1)
def _envelope() -> Tensor:
    """Straight lines between the bands that have a bin at all: (bins, bands)."""
    weights = _fbanks()
    bins = np.arange(N_FFT // 2 + 1)
    known = np.flatnonzero(weights.sum(0).numpy() > 0)
    centres = (weights.T.numpy() @ bins)[known] / weights.sum(0).numpy()[known]
    made = np.zeros((len(bins), N_MELS), dtype=np.float32)
    for column, band in enumerate(known):
        made[:, band] = np.interp(bins, centres, np.eye(len(known))[column])
    return torch.from_numpy(made)
