"""The control systems that frame every table: true recordings, their vocoded copies, and another speaker's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pvlib import audio, hub
from pvlib.config import Profile
from pvlib.systems.base import Progress, Request, Result, recording, result
from pvlib.systems.fingerprint import fingerprint


class GroundTruth:
    """The speaker's own recording of the sentence: the upper frame."""

    batch_size = 8

    def __init__(self, name: str, profile: Profile, device: torch.device):
        self.name, self.profile, self.device = name, profile, device

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.profile, modules=[__name__], device=self.device)

    def synthesise(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        results = []
        for request in requests:
            results.append(self._one(request))
            if progress is not None:
                progress(1)
        return results

    def _one(self, request: Request) -> Result:
        return result(audio.load(recording(request.audio_path, request.utterance)), "", float("nan"))


class GroundTruthVocoded(GroundTruth):
    """The recording's mel spectrogram through the vocoder: what the vocoder alone costs."""

    _vocoder: Any = None

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.profile, modules=[__name__], weights=["vocoder"], device=self.device)

    def _one(self, request: Request) -> Result:
        if self._vocoder is None:
            self._vocoder = hub.load_vocoder(self.profile, self.device)
        wave = audio.load(recording(request.audio_path, request.utterance))
        start = time.perf_counter()
        copy = vocoded(self._vocoder, wave, self.device)
        return result(copy, "", time.perf_counter() - start)


class Impostor(GroundTruth):
    """Another test speaker's true recording: the lower frame of every similarity.

    It says another sentence, so its error rate is taken against the sentence that it really says.
    """

    def _one(self, request: Request) -> Result:
        wave = audio.load(recording(request.impostor_audio, request.utterance))
        return result(wave, "", float("nan"), spoken_text=request.impostor_text)


def vocoded(vocoder: Any, wave: np.ndarray, device: torch.device | str) -> np.ndarray:
    """A waveform turned into its mel spectrogram and back. wave: (s,) at 24 kHz. Returns (about s,) float32."""
    with torch.inference_mode():
        mel = audio.mel(torch.from_numpy(np.ascontiguousarray(wave)).to(device))
        return vocoder.decode(mel)[0].float().cpu().numpy()
