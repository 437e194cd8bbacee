"""PersonaVoice, as `pvlib.voice` makes it: front end, LAAG, one batch for the chunks of all requests.

The variants `oracle_transcript` and `oracle_duration` are told what no user can know: the true words of the clip, and
the length of the true recording.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from pvlib import frontend, hub
from pvlib.audio import HOP_LENGTH, AudioError, load
from pvlib.config import Inference, Profile, get_profile
from pvlib.systems.base import Progress, Request, Result, failure, recording, result, true_transcript
from pvlib.systems.fingerprint import fingerprint
from pvlib.text import TextError
from pvlib.voice import Job, PersonaVoice


class PersonaVoiceSystem:
    """The paper's system: every clip transcribed, every text planned, all chunks sampled together."""

    batch_size = 16

    def __init__(self, name: str, profile: Profile, device: torch.device):
        self.name, self.profile, self.device = name, profile, device
        self._voice: PersonaVoice | None = None

    def fingerprint(self) -> dict[str, Any]:
        inference = self.profile.inference
        weights = [hub.backbone_name(self.profile), "vocoder", "recognizer", "speaker_encoder"]
        weights += [hub.ADAPTERS] if inference.use_adapters else []
        weights += [hub.DURATION_PREDICTOR] if inference.duration_predictor else []
        return fingerprint(
            self.profile,
            modules=[__name__],
            inference=[field.name for field in fields(Inference)],
            weights=weights,
            device=self.device,
        )

    @property
    def voice(self) -> PersonaVoice:
        """The pipeline, loaded at first use with the network of its front end."""
        if self._voice is None:
            usual = get_profile(self.profile.name).inference
            own = self.profile.inference
            changed = {
                field.name: getattr(own, field.name)
                for field in fields(Inference)
                if getattr(own, field.name) != getattr(usual, field.name)
            }
            frontend.load(own)
            self._voice = PersonaVoice.load(self.profile.name, self.device, **changed)
        return self._voice

    def synthesise(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        results: dict[int, Result] = {}
        jobs, prepared, durations = {}, {}, {}
        inference = self.profile.inference
        voice = self.voice  # loaded before the clock runs
        for index, request in enumerate(requests):
            start = time.perf_counter()
            try:
                text = true_transcript(request) if inference.oracle_transcript else None
                frames = None
                if inference.oracle_duration:
                    frames = _true_samples(request) // HOP_LENGTH
                reference = voice.reference(request.clip, text=text, name=f"the clip of {request.utterance}")
            except (AudioError, TextError) as error:
                results[index] = failure(error)
                continue
            jobs[index] = Job(reference, request.text, request.seed)
            durations[index] = frames
            prepared[index] = time.perf_counter() - start
        if progress is not None and results:
            progress(len(results))
        made = voice.synthesise(list(jobs.values()), progress, list(durations.values()), errors="return")
        for (index, job), speech in zip(jobs.items(), made, strict=True):
            if isinstance(speech, Exception):
                results[index] = failure(speech, job.reference.text)
            else:
                results[index] = result(speech.wave, job.reference.text, prepared[index] + speech.seconds)
        return [results[index] for index in range(len(requests))]


def _true_samples(request: Request) -> int:
    """The length of the true recording: as the manifest states it, else as it lies there. Raises AudioError."""
    if request.true_samples is not None:
        return request.true_samples
    return len(load(recording(request.audio_path, request.utterance)))
