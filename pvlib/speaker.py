"""Speaker encoders: ECAPA-TDNN (SpeechBrain's class) and Resemblyzer's GE2E, which nobody here trained.

Axes: b batch, s samples, t feature frames (100 Hz), d embedding.
"""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import audio
from pvlib.audio import SAMPLE_RATE, AudioError
from pvlib.config import SpeakerEncoder as Config

RATE = 16_000  # both encoders were designed for 16 kHz
MIN_SAMPLES = 1_600  # 0.1 s at 16 kHz; shorter sound is refused
MAX_BATCH_SAMPLES = 64 * RATE
GE2E_DBFS = -30.0  # level that Resemblyzer's own preparation raises quiet sound to


def build(config: Config) -> SpeakerEncoder:
    """An untrained encoder."""
    return SpeakerEncoder(config)


class SpeakerEncoder(nn.Module):
    """ECAPA-TDNN over log-mel features whose mean over the utterance is removed.

    `network` is SpeechBrain's class and holds every weight, under the names of the official checkpoint; the
    features are SpeechBrain's `Fbank`, 25 ms windows every 10 ms, 80 bands, which has nothing to learn.
    """

    def __init__(self, config: Config):
        super().__init__()
        from speechbrain.lobes.features import Fbank
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

        self.config = config
        self.network = ECAPA_TDNN(
            config.n_mels, lin_neurons=config.embedding_dim, channels=list(config.channels)
        )
        # kept out of the module tree: fixed filters are no weights, and fp16 would blunt them
        self._filters = {"fbank": Fbank(sample_rate=RATE, n_fft=400, n_mels=config.n_mels)}

    def features(self, waves: Tensor) -> Tensor:
        """waves (b, s) at 16 kHz, all of one length -> (b, t, 80) decibels, mean over time removed."""
        fbank = self._filters["fbank"].to(waves.device)
        with torch.autocast(waves.device.type, enabled=False):
            x = fbank(waves.float())
        return x - x.mean(dim=1, keepdim=True)

    def forward(self, waves: Tensor) -> Tensor:
        """waves (b, s) at 16 kHz, all of one length -> (b, 192) embeddings, not normalised."""
        return self.network(self.features(waves))[:, 0]  # (b, 1, d) -> (b, d)

    @torch.inference_mode()
    def embed(self, waves: list[np.ndarray]) -> Tensor:
        """Embed waveforms at 24 kHz, each as it would be alone.

        Returns (b, 192) on the encoder's device, L2-normalised, in order.
        Raises AudioError, naming the position, on sound that is not one channel, not finite, silent or
        shorter than 0.1 s.
        """
        if self.training:
            raise RuntimeError("the speaker encoder is in training mode; call .eval() before .embed()")
        device = next(self.parameters()).device
        result = torch.empty(len(waves), self.config.embedding_dim, device=device)
        by_length: dict[int, list[int]] = defaultdict(list)
        prepared = [_prepare(wave, k) for k, wave in enumerate(waves)]
        for k, wave in enumerate(prepared):
            by_length[len(wave)].append(k)
        for (
            length,
            rows,
        ) in by_length.items():  # padding would be heard: one length per batch
            size = max(1, MAX_BATCH_SAMPLES // length)
            for first in range(0, len(rows), size):
                batch = rows[first : first + size]
                stacked = torch.from_numpy(np.stack([prepared[k] for k in batch])).to(device)
                result[batch] = nn.functional.normalize(self(stacked).float(), dim=-1)
        return result


class GE2E:
    """Resemblyzer's GE2E encoder with the weights inside its package, loaded at the first use.

    Volume is raised to -30 dBFS as Resemblyzer does; silence is not cut out. Sound shorter than the encoder's
    window of 1.6 s is padded with silence by its own `embed_utterance`; longer sound is the mean of
    overlapping windows.
    """

    dimension = 256

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self._encoder = None

    def embed(self, waves: list[np.ndarray]) -> Tensor:
        """Embed waveforms at 24 kHz: (b, 256) float32 on the CPU, L2-normalised, in order.

        Raises AudioError as `SpeakerEncoder.embed` does.
        """
        self.load()
        result = torch.empty(len(waves), self.dimension)
        for k, wave in enumerate(waves):
            wave = _prepare(wave, k)
            level = 20 * np.log10(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
            wave = wave * np.float32(10 ** (max(0.0, GE2E_DBFS - level) / 20))
            result[k] = torch.from_numpy(self._encoder.embed_utterance(wave))
        return result

    def load(self) -> None:
        """Load what the first use would, where that has not happened."""
        if self._encoder is None:
            self._encoder = self._load()

    def _load(self):
        with warnings.catch_warnings():  # its imports warn of packages grown old
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder
        return VoiceEncoder(self.device, verbose=False).eval()


def _prepare(wave: np.ndarray, position: int) -> np.ndarray:
    """One channel at 24 kHz -> float32 at 16 kHz, checked."""
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1:
        raise AudioError(f"waveform {position} has shape {wave.shape}; one channel of samples is needed")
    if not np.isfinite(wave).all():
        raise AudioError(f"waveform {position} holds samples that are not finite; it has no voice to embed")
    if len(wave) * RATE < MIN_SAMPLES * SAMPLE_RATE:
        raise AudioError(
            f"waveform {position} lasts {len(wave) / SAMPLE_RATE:.3f} s; at least 0.1 s is needed"
        )
    if not wave.any():
        raise AudioError(f"waveform {position} is silent; it has no voice to embed")
    return audio.resample(wave, SAMPLE_RATE, RATE)
