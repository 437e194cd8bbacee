"""The three stages in a row: a recording and a text become speech. Any stage is swapped by `replace`."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from pvlib import frontend, laag
from pvlib.config import Inference, Profile
from pvlib.systems.sv2tts import synthesizer, vocoders, weights
from pvlib.systems.sv2tts.attention import Failures
from pvlib.systems.sv2tts.encoder import Encoder, Resemblyzer, Voiceprint
from pvlib.systems.sv2tts.synthesizer import Piece, TextStage
from pvlib.systems.sv2tts.vocoders import SoundStage


@dataclass(frozen=True)
class Speech:
    """One utterance made.

    wave: (s,) float32 at 24 kHz. pieces: what the text was split into, with mels and alignments. voiceprint: how the
    recording was heard. seconds: of computing.
    """

    wave: np.ndarray
    pieces: list[Piece]
    voiceprint: Voiceprint
    seconds: float

    @property
    def failures(self) -> Failures:
        """Attention failures of all pieces."""
        return sum((piece.failures for piece in self.pieces), Failures())


@dataclass(frozen=True)
class SV2TTS:
    """Encoder, synthesizer and vocoder. `dataclasses.replace(voice, vocoder=GriffinLim())` swaps a stage."""

    encoder: Encoder
    synthesizer: TextStage
    vocoder: SoundStage
    inference: Inference

    @classmethod
    def load(cls, profile: Profile, vocoder: str = "vocos", device: str | torch.device = "cpu") -> SV2TTS:
        """The stages of a profile with their weights. Raises WeightsError, ConfigError on an unknown vocoder."""
        frontend.load(profile.inference)
        encoder = Resemblyzer(device)
        encoder.load()
        return cls(
            encoder,
            weights.load(synthesizer.build(profile.sv2tts_synthesizer), "sv2tts-synthesizer", profile).to(
                device
            ),
            vocoders.load(vocoder, profile, device),
            profile.inference,
        )

    def clone(self, wave: np.ndarray, text: str, seed: int = 0, name: str = "the recording") -> Speech:
        """Say a text in the voice of a recording (s,) at 24 kHz, trimmed and levelled by the front end.

        Raises AudioError naming the recording and TextError naming the text; a text too long is split, with a
        TextWarning.
        """
        start = time.perf_counter()
        voiceprint = self.encoder.voiceprint(frontend.prepare(wave, self.inference, name))
        pieces = self.synthesizer.speak(text, voiceprint.embedding, seed)
        waves = [self.vocoder.decode(piece.mel.T[None], seed)[0].float().cpu().numpy() for piece in pieces]
        joined = laag.splice_wave(waves, self.inference.cross_fade_seconds)
        return Speech(joined, pieces, voiceprint, time.perf_counter() - start)
