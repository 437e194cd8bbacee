"""Stage 1, the speaker encoder: a recording becomes 256 numbers, by a window that slides over it.

Two of them behind one interface: Resemblyzer's GE2E with its own weights, and a small one trained on the mini world.
Axes: b batch, w windows, n mel frames, d embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import audio, speaker
from pvlib.audio import HOP_LENGTH, MEL_FLOOR, N_MELS, SAMPLE_RATE
from pvlib.config import GE2ENetwork as Config


@dataclass(frozen=True)
class Voiceprint:
    """A voice, and how it was heard.

    embedding: (256,) unit norm, the normalised mean of the partials. partials: (w, 256), unit norm, one per window.
    windows: (w, 2) start and end in seconds; the last may reach past the end, where silence fills it.
    """

    embedding: Tensor
    partials: Tensor
    windows: Tensor


class Encoder(Protocol):
    """Stage 1. Raises AudioError on sound without a voice in it."""

    def voiceprint(self, wave: np.ndarray) -> Voiceprint:
        """wave: (s,) at 24 kHz."""
        ...


class Resemblyzer(speaker.GE2E):
    """Resemblyzer's network and weights: windows of 1.6 s, 1.3 a second."""

    def voiceprint(self, wave: np.ndarray) -> Voiceprint:
        """The embedding that `embed` gives, with its windows. wave: (s,) at 24 kHz. Raises AudioError."""
        embedding = self.embed([wave])[0]
        _, partials, spans = self._encoder.last
        seconds = [[span.start / speaker.RATE, span.stop / speaker.RATE] for span in spans]
        return Voiceprint(embedding, torch.from_numpy(partials), torch.tensor(seconds))

    @property
    def network(self) -> nn.Module:
        """Resemblyzer's network, loaded at first use."""
        self.load()
        return self._encoder.encoder

    def _load(self) -> _Remembering:
        return _Remembering(super()._load())


class _Remembering:
    """Resemblyzer's encoder, whose last utterance can be looked at again."""

    def __init__(self, encoder: Any):
        self.encoder = encoder
        self.last: tuple[np.ndarray, np.ndarray, list[slice]] | None = None

    def embed_utterance(self, wave: np.ndarray) -> np.ndarray:
        self.last = self.encoder.embed_utterance(wave, return_partials=True)
        return self.last[0]


def windows(frames: int, length: int, step: int, min_coverage: float) -> list[int]:
    """First frames of the windows of `length` frames over an utterance, one every `step`.

    The last one is left out where less than `min_coverage` of it would be filled, unless it is the only one.
    """
    starts = list(range(0, max(1, frames - length + step + 1), step))
    if len(starts) > 1 and (frames - starts[-1]) / length < min_coverage:
        starts.pop()
    return starts


def build(config: Config) -> SpeakerLSTM:
    """An untrained encoder."""
    return SpeakerLSTM(config)


class SpeakerLSTM(nn.Module):
    """LSTM layers over the log-mels of one window; the last state, projected, is the voice (Wan et al., 2018).

    It hears the project's own mels (`audio.mel`), less the window's mean level, so that loudness is no voice.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.lstm = nn.LSTM(N_MELS, config.hidden, config.layers, batch_first=True)
        self.linear = nn.Linear(config.hidden, config.embedding_dim)

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (b, n, 100) log-mels -> (b, d), unit norm."""
        mel = mel.float()
        _, (state, _) = self.lstm((mel - mel.mean((1, 2), keepdim=True)) / 2)
        return nn.functional.normalize(self.linear(state[-1]).float(), dim=-1)

    @torch.inference_mode()
    def embed_mel(self, mel: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """An utterance's log-mels (n, 100) -> embedding (d,), partials (w, d), first frame of each window."""
        config = self.config
        starts = windows(len(mel), config.window_frames, config.step_frames, config.min_coverage)
        lacking = max(0, starts[-1] + config.window_frames - len(mel))
        padded = nn.functional.pad(mel.float(), (0, 0, 0, lacking), value=float(np.log(MEL_FLOOR)))
        partials = self(torch.stack([padded[s : s + config.window_frames] for s in starts]))
        return nn.functional.normalize(partials.mean(0), dim=0), partials, starts

    def voiceprint(self, wave: np.ndarray) -> Voiceprint:
        """wave: (s,) at 24 kHz. Raises AudioError as `audio.check` does."""
        wave = audio.check(wave, SAMPLE_RATE, "the recording")
        device = next(self.parameters()).device
        mel = audio.mel(torch.from_numpy(np.ascontiguousarray(wave)).to(device))[0].T
        embedding, partials, starts = self.embed_mel(mel)
        first = torch.tensor(starts) * HOP_LENGTH / SAMPLE_RATE
        length = self.config.window_frames * HOP_LENGTH / SAMPLE_RATE
        return Voiceprint(embedding.cpu(), partials.cpu(), torch.stack([first, first + length], 1))
