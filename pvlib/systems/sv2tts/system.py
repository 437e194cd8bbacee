"""SV2TTS as rows of a table: the same voice and mels, spoken by each of three vocoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from pvlib.audio import SAMPLE_RATE, AudioError, check
from pvlib.config import AttentionLimits, Folding, Profile
from pvlib.systems.base import Progress, Request, Result, failure, result
from pvlib.systems.fingerprint import fingerprint
from pvlib.systems.sv2tts import weights
from pvlib.systems.sv2tts.attention import Failures
from pvlib.systems.sv2tts.pipeline import SV2TTS
from pvlib.text import TextError

FRONT_END = (
    "cross_fade_seconds",
    "use_silero_vad",
    "silero_vad_threshold",
    "vad_min_speech_ms",
    "vad_min_silence_ms",
    "vad_trailing_silence_ms",
    "use_rms_normalize",
    "rms_target",
    "rms_gain_range",
)


class SV2TTSSystem:
    """Resemblyzer's encoder, the Tacotron 2 trained here, and the project's Vocos."""

    batch_size = 4
    vocoder = "vocos"

    def __init__(self, name: str, profile: Profile, device: torch.device):
        self.name, self.profile, self.device = name, profile, device
        self.attention: dict[str, Failures] = {}  # of each utterance made so far
        self._voice: SV2TTS | None = None

    def fingerprint(self) -> dict[str, Any]:
        found = fingerprint(
            self.profile,
            modules=[__name__],
            inference=FRONT_END,
            weights=["vocoder"] if self.vocoder == "vocos" else [],
            device=self.device,
        )
        own = ["sv2tts-synthesizer", *(["sv2tts-vocoder"] if self.vocoder == "wavernn" else [])]
        found["weights"] |= {name: weights.read_card(name, self.profile)["sha256"] for name in own}
        found["sv2tts"] = {
            "vocoder": self.vocoder,
            "limits": asdict(AttentionLimits()),
            "folding": asdict(Folding()),
        }
        return found

    @property
    def voice(self) -> SV2TTS:
        """The pipeline, loaded at first use."""
        if self._voice is None:
            self._voice = SV2TTS.load(self.profile, self.vocoder, self.device)
        return self._voice

    def synthesise(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        results = []
        for request in requests:
            results.append(self._one(request))
            if progress is not None:
                progress(1)
        return results

    def _one(self, request: Request) -> Result:
        name = f"the clip of {request.utterance}"
        voice = self.voice
        try:
            speech = voice.clone(check(request.clip, SAMPLE_RATE, name), request.text, request.seed, name)
        except (AudioError, TextError) as error:
            return failure(error)
        self.attention[request.utterance] = speech.failures
        return result(speech.wave, "", speech.seconds)


class SV2TTSWaveRNN(SV2TTSSystem):
    """The same with WaveRNN: autoregressive to the last sample."""

    vocoder = "wavernn"


class SV2TTSGriffinLim(SV2TTSSystem):
    """The same with Griffin-Lim: no learned vocoder."""

    vocoder = "griffin-lim"
