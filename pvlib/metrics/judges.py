"""The judges of a study together: words heard, similarity of voices by two encoders, and sound quality."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pvlib import hub
from pvlib.config import Profile
from pvlib.metrics import dnsmos, wer
from pvlib.metrics.secs import cosine
from pvlib.systems.fingerprint import fingerprint

ENCODERS = ("ecapa", "ge2e")


@dataclass(frozen=True)
class Exhibit:
    """What the judges are given about one utterance.

    wave: (s,) at 24 kHz; text: what it is meant to say; clip: (24000,) the second that was cloned;
    enrolment: per encoder the mean embedding of the speaker's other speech, empty where there is none.
    """

    wave: np.ndarray
    text: str
    clip: np.ndarray
    enrolment: dict[str, np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """What the judges say about one utterance; names are the row's columns."""

    hypothesis: str
    wer: float
    wer_capped: float
    secs_ecapa_clip: float
    secs_ecapa_speaker: float
    secs_ge2e_clip: float
    secs_ge2e_speaker: float
    dnsmos: float


class Panel(Protocol):
    """Anything that judges exhibits; the tests use a small one."""

    def fingerprint(self) -> dict[str, Any]: ...

    def judge(self, exhibits: Sequence[Exhibit]) -> list[Verdict]: ...


class Judges:
    """The judges of a profile; models are loaded at the first judgement, clips are embedded once."""

    def __init__(self, profile: Profile, device: torch.device | str | None = None):
        self.profile = profile
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._loaded = False
        self._clips: dict[str, dict[str, np.ndarray]] = {}

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(
            self.profile,
            modules=[__name__, "pvlib.speaker"],
            weights=["recognizer", "speaker_encoder"],
            device=self.device,
        )

    def _load(self) -> None:
        if self._loaded:
            return
        from pvlib.speaker import GE2E

        self._encoders = {
            "ecapa": hub.load_speaker_encoder(self.profile, self.device),
            "ge2e": GE2E(self.device),
        }
        self._recognizer = hub.load_recognizer(self.profile, self.device)
        self._loaded = True

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Words heard in waveforms at 24 kHz."""
        self._load()
        return self._recognizer.transcribe(list(waves))

    def embed(self, waves: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Speaker embeddings of waveforms at 24 kHz by each encoder: {"ecapa": (b, 192), "ge2e": (b, 256)}."""
        self._load()
        with torch.inference_mode():
            return {
                name: encoder.embed(list(waves)).float().cpu().numpy()
                for name, encoder in self._encoders.items()
            }

    def embed_clips(self, clips: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Embeddings of clips, each computed once in the life of this object."""
        keys = [hashlib.sha256(np.ascontiguousarray(clip).tobytes()).hexdigest() for clip in clips]
        new = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in self._clips}
        if new:
            embeddings = self.embed(list(new.values()))
            for index, key in enumerate(new):
                self._clips[key] = {name: values[index] for name, values in embeddings.items()}
        return [self._clips[key] for key in keys]

    def judge(self, exhibits: Sequence[Exhibit]) -> list[Verdict]:
        """One verdict per exhibit, in order.

        A similarity is NaN where there is no enrolment. Raises EmptyReference on a text without words.
        """
        if not exhibits:
            return []
        waves = [exhibit.wave for exhibit in exhibits]
        hypotheses = self.transcribe(waves)
        voices = self.embed(waves)
        clips = self.embed_clips([exhibit.clip for exhibit in exhibits])
        verdicts = []
        for index, exhibit in enumerate(exhibits):
            rate = wer.wer(exhibit.text, hypotheses[index])
            similarity = {}
            for name in ENCODERS:
                voice = voices[name][index]
                similarity[f"secs_{name}_clip"] = float(cosine(voice, clips[index][name]))
                speaker = exhibit.enrolment.get(name)
                similarity[f"secs_{name}_speaker"] = (
                    float("nan") if speaker is None else float(cosine(voice, speaker))
                )
            verdicts.append(
                Verdict(
                    hypothesis=hypotheses[index],
                    wer=rate,
                    wer_capped=wer.capped(rate),
                    dnsmos=dnsmos.overall(exhibit.wave),
                    **similarity,
                )
            )
        return verdicts
