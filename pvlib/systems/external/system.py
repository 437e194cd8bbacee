"""XTTS v2 and CosyVoice as rows of a table: the same clips and texts, spoken by their own packages.

Both get the one-second clip as a wave file and the text as it stands. CosyVoice is also told what the clip says, by
speech recognition, as `f5-official` is. The paper's released comparison gives CosyVoice the target sentence (80
characters of it) as that transcript, keeps only the first part of what it answers, and cuts its clips at 16 kHz.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile
import torch

from pvlib import audio, hub
from pvlib.audio import SAMPLE_RATE, AudioError
from pvlib.config import Externals, Profile
from pvlib.systems.base import Progress, Request, Result, failure, result
from pvlib.systems.external import environment
from pvlib.systems.external.environment import WORKER, ExternalError
from pvlib.systems.external.process import Worker
from pvlib.systems.fingerprint import fingerprint
from pvlib.text import TextError

VISIBLE = "CUDA_VISIBLE_DEVICES"


class ExternalSystem:
    """What both have in common. Raises ExternalError where the system is not installed.

    The process starts with the first utterance and stays for the next ones; it ends with this object.
    """

    batch_size = 4
    weights: tuple[str, ...] = ()

    def __init__(self, name: str, profile: Profile, device: torch.device, limits: Externals | None = None):
        self.name, self.profile, self.device = name, profile, device
        self.limits = limits or Externals()
        self.environment = environment.find(name, self.limits)
        self._worker: Worker | None = None
        self._asked = 0

    def fingerprint(self) -> dict[str, Any]:
        found = fingerprint(
            self.profile,
            modules=[__name__, "pvlib.systems.external.worker"],
            weights=self.weights,
            device=self.device,
        )
        return found | {"external": self.environment.facts}

    def synthesise(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Results in order. Raises ExternalError when the worker dies, hangs or has no GPU where we have one."""
        results = []
        for request in requests:
            results.append(self._one(request))
            if progress is not None:
                progress(1)
        return results

    def transcript(self, clip: np.ndarray) -> str:
        """What the system is told that the clip says."""
        return ""

    def close(self) -> None:
        """End the process; the next utterance starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _one(self, request: Request) -> Result:
        transcript = ""
        try:
            clip = audio.check(request.clip, SAMPLE_RATE, f"the clip of {request.utterance}")
            if not request.text.strip():
                raise TextError(f"{request.utterance} has no text")
            transcript = self.transcript(clip)
        except (AudioError, TextError) as error:
            return failure(error, transcript)
        worker = self._running()
        self._asked += 1
        reference, speech = (worker.folder / f"{part}-{self._asked}.wav" for part in ("clip", "speech"))
        asked = {"text": request.text, "reference": str(reference), "reference_text": transcript}
        try:
            audio.write(reference, clip)
            answer = worker.ask(asked | {"seed": request.seed, "wave": str(speech)}, request.utterance)
            if answer.get("broken"):
                self.close()
            if "error" in answer:
                return Result(None, transcript, float("nan"), " ".join(answer["error"].split()))
            wave, rate = soundfile.read(answer["wave"], dtype="float32")
        except BaseException:  # an interruption too: its late answer would be taken for the next one
            self.close()
            raise
        finally:
            reference.unlink(missing_ok=True)
            speech.unlink(missing_ok=True)
        return result(audio.resample(wave, rate), transcript, answer["seconds"])

    def _running(self) -> Worker:
        if self._worker is None:
            found = self.environment
            command = [str(found.python), "-I", str(WORKER), found.name, json.dumps(found.options)]
            worker = Worker(self.name, command, self._variables(), self.limits)
            at = worker.ready()["device"]
            if self.device.type == "cuda" and at != "cuda":
                worker.close()
                raise ExternalError(
                    f"{self.name}: the PyTorch of {found.python} finds no GPU, and pvlib computes on one; install a "
                    "build for CUDA there"
                )
            self._worker = worker
        return self._worker

    def _variables(self) -> dict[str, str]:
        """The environment variables of the process: ours, but only this system's device is to be seen."""
        variables = dict(os.environ)
        if self.device.type != "cuda":
            variables[VISIBLE] = ""
        elif self.device.index is not None:
            seen = [name for name in variables.get(VISIBLE, "").split(",") if name]
            variables[VISIBLE] = seen[self.device.index] if seen else str(self.device.index)
        return variables


class XTTS(ExternalSystem):
    """XTTS v2: autoregressive, cloned from the clip alone."""


class CosyVoice(ExternalSystem):
    """CosyVoice, zero-shot: a language model of speech tokens and flow matching, with the clip as the prompt."""

    weights = ("recognizer",)
    _recognizer: Any = None

    def transcript(self, clip: np.ndarray) -> str:
        """What the recogniser hears. Raises TextError where it hears no word: without one there is no prompt."""
        if self._recognizer is None:
            self._recognizer = hub.load_recognizer(self.profile, self.device)
        (heard,) = self._recognizer.transcribe([clip])
        if not heard.strip():
            raise TextError("the recogniser heard no word in the clip, and CosyVoice needs them")
        return heard
