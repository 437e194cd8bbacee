"""The protocol that every row of a table follows: requests in, one result each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pvlib.audio import SAMPLE_RATE, AudioError
from pvlib.text import TextError

MIN_RESULT_SECONDS = 0.1  # shorter sound is no utterance, and the judges cannot hear it

Progress = Callable[[int], None]  # called with the number of requests just finished


@dataclass(frozen=True)
class Request:
    """One utterance to be made: a text, one second of a speaker, and a seed.

    clip: (24000,) float32 at 24 kHz. audio_path: the speaker's true recording of the text, where there is one.
    impostor_audio, impostor_text: another speaker's true recording and what it says, for the impostor system.
    clip_text: the true words of the clip, None where nobody knows them; for oracles only. true_samples: the length of
    the true recording at 24 kHz, where the manifest states it; for oracles only.
    """

    utterance: str
    speaker: str
    text: str
    clip: np.ndarray
    audio_path: Path | None
    seed: int
    words: int
    bucket: str
    impostor_audio: Path | None = None
    impostor_text: str = ""
    clip_text: str | None = None
    true_samples: int | None = None


@dataclass(frozen=True)
class Result:
    """What a system made of a request: a waveform at 24 kHz, or an error.

    reference_text: the transcript of the clip that the system worked with ("" where it used none).
    seconds: time spent on it, the loading of models not counted; of a batch, its share by generated frames; NaN where
    nothing is synthesised.
    spoken_text: what the waveform is meant to say; None means the text of the request.
    """

    wave: np.ndarray | None
    reference_text: str
    seconds: float
    error: str = ""
    spoken_text: str | None = None

    def __post_init__(self) -> None:
        if (self.wave is None) != bool(self.error):
            raise ValueError("a result has either a waveform or an error")


@runtime_checkable
class System(Protocol):
    """Anything that can be a column of a table.

    name: unique, usable as a file name. batch_size: requests worth giving at once.
    fingerprint: everything besides the request that can change a result (configuration, weights, sources).
    synthesise: results in the order of the requests. A request that this system cannot serve becomes a result with an
    error; trouble that concerns all of them (missing weights, a full disk) is raised.
    """

    name: str
    batch_size: int

    def synthesise(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]: ...

    def fingerprint(self) -> dict[str, Any]: ...


def result(wave: np.ndarray, reference_text: str, seconds: float, spoken_text: str | None = None) -> Result:
    """A result around a waveform, or a failed one when the waveform cannot be heard.

    wave: (s,) float. Not finite, under 0.1 s or without any variation counts as a failure of the system.
    """
    wave = np.asarray(wave, dtype=np.float32)
    problem = ""
    if wave.ndim != 1 or len(wave) < MIN_RESULT_SECONDS * SAMPLE_RATE:
        problem = f"{wave.size / SAMPLE_RATE:.3f} s of sound, less than {MIN_RESULT_SECONDS} s"
    elif not np.isfinite(wave).all():
        problem = "samples are not finite"
    elif np.ptp(wave) == 0:
        problem = "silence"
    if problem:
        return Result(None, reference_text, seconds, f"the synthesis is no speech: {problem}", spoken_text)
    return Result(wave, reference_text, seconds, "", spoken_text)


def failure(error: Exception, reference_text: str = "", spoken_text: str | None = None) -> Result:
    """A failed result that keeps the class and the message of the error, on one line."""
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return Result(None, reference_text, float("nan"), message, spoken_text)


def true_transcript(request: Request) -> str:
    """The true words of a request's clip, for an oracle. Raises TextError where nobody knows them."""
    if request.clip_text is None:
        raise TextError(
            f"{request.utterance}: this manifest has no word times, so the true transcript of the clip is not known; "
            "leave this system out"
        )
    return request.clip_text


def recording(path: Path | None, utterance: str) -> Path:
    """The path of a true recording. Raises AudioError where the request has none."""
    if path is None:
        raise AudioError(f"{utterance}: this manifest has no true recording of it; leave this system out")
    return path
