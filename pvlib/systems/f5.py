"""F5-TTS as its authors run it: the official inference function over this profile's weights, without any adapter.

Two baselines. `f5-official` is told what the clip says by speech recognition. `f5-as-published` repeats the run
behind the paper's F5-TTS column: the whole target sentence is given as the transcript of the one-second clip, and the
clip arrives at 16 kHz.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pvlib import hub, laag
from pvlib.audio import SAMPLE_RATE, resample
from pvlib.config import Profile
from pvlib.systems.base import Progress, Request, Result, failure, result
from pvlib.systems.fingerprint import fingerprint
from pvlib.text import TextError, normalise

PUBLISHED_RATE = 16_000
MAX_SECONDS = 22  # of clip and generated speech together: the official chunk length


@lru_cache(maxsize=1)
def official() -> ModuleType:
    """`f5_tts.infer.utils_infer`, imported late and quietly.

    Its import switches the plotting backend, extends `sys.path` and the environment; all three are put back.
    """
    with _restored():
        import f5_tts.infer.utils_infer as module
    return module


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    import matplotlib

    path, environment = list(sys.path), dict(os.environ)
    backend = dict.__getitem__(matplotlib.rcParams, "backend")  # plain access would already choose one
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path[:] = path
        for key in os.environ.keys() - environment.keys():
            del os.environ[key]
        os.environ.update(environment)
        if isinstance(backend, str):
            matplotlib.use(backend)
        else:
            dict.__setitem__(matplotlib.rcParams, "backend", backend)


def closed(reference_text: str) -> str:
    """The clip's transcript with the official ending, a full stop and a space."""
    if reference_text.endswith((". ", "。")):
        return reference_text
    return reference_text + (" " if reference_text.endswith(".") else ". ")


def as_read(reference_text: str) -> str:
    """The closed transcript as the official function counts it: a space of its own behind an ASCII character."""
    return reference_text + " " * reference_text[-1].isascii()


def chunks(text: str, reference_text: str, clip_seconds: float, speed: float = 1.0) -> list[str]:
    """The target text cut by the official function at the official length: what fits beside the clip in 22 s."""
    rate = len(reference_text.encode("utf-8")) / clip_seconds
    return official().chunk_text(text, max_chars=int(rate * (MAX_SECONDS - clip_seconds) * speed))


class F5Official:
    """The official `infer_batch_process`, told what the clip says by speech recognition."""

    batch_size = 4
    weights: tuple[str, ...] = ("backbone", "vocoder", "recognizer")
    inference = ("steps", "cfg_strength", "sway_coef", "speed", "cross_fade_seconds")

    def __init__(self, name: str, profile: Profile, device: torch.device):
        self.name, self.profile, self.device = name, profile, device
        self._models: dict[str, Any] = {}

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(
            self.profile,
            modules=[__name__],
            inference=self.inference,
            weights=self.weights,
            device=self.device,
        )

    def synthesise(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        official()  # imported, and the models loaded, before a clock runs
        for name in self.weights:
            self._model(name)
        start = time.perf_counter()
        transcripts = self.transcripts(requests)
        heard = (time.perf_counter() - start) / max(1, len(requests))  # each text bears an equal share
        results = []
        for request, transcript in zip(requests, transcripts, strict=True):
            made = self._one(request, transcript)
            results.append(replace(made, seconds=made.seconds + heard))
            if progress is not None:
                progress(1)
        return results

    def transcripts(self, requests: Sequence[Request]) -> list[str]:
        """What each clip is said to say."""
        return self._model("recognizer").transcribe([request.clip for request in requests])

    def reference(self, request: Request) -> tuple[np.ndarray, int]:
        """The clip as the official function receives it: (s,) and its sampling rate."""
        return request.clip, SAMPLE_RATE

    def _one(self, request: Request, transcript: str) -> Result:
        start = time.perf_counter()
        vocabulary = self._model("backbone").cfm.vocab_char_map
        try:
            text = normalise(request.text, vocabulary, request.utterance)
            reference_text = closed(normalise(transcript, vocabulary, "the transcript") if transcript else "")
        except TextError as error:
            return failure(error, transcript)
        try:
            wave = self.infer(self.reference(request), reference_text, text, request.seed)
        except TextError as error:  # too long for the backbone
            return failure(error, reference_text)
        return result(wave, reference_text, time.perf_counter() - start)

    def infer(self, clip: tuple[np.ndarray, int], reference_text: str, text: str, seed: int) -> np.ndarray:
        """Official inference on one text, repeatable: (s,) at 24 kHz.

        The official function hands its chunks to a thread pool that draws from one random generator in any order, so a
        seed would not repeat a long text. Here it gets one chunk at a time, in order, and the chunks are joined by the
        same cross-fade. The caller's random state is left alone.
        Raises TextError on a chunk that is longer than the backbone takes.
        """
        samples, rate = clip
        inference = self.profile.inference
        reference = (torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None], rate)
        # building a model draws random numbers, and so may an import: both come before the seed
        process, backbone, vocoder = official(), self._model("backbone"), self._model("vocoder")
        waves = []
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            for chunk in chunks(text, reference_text, len(samples) / rate, inference.speed):
                wave, _, _ = next(
                    process.infer_batch_process(
                        reference,
                        reference_text,
                        [chunk],
                        backbone.cfm,
                        vocoder,
                        progress=None,
                        nfe_step=inference.steps,
                        cfg_strength=inference.cfg_strength,
                        sway_sampling_coef=inference.sway_coef,
                        speed=inference.speed,
                        cross_fade_duration=inference.cross_fade_seconds,
                        device=self.device,
                    )
                )
                waves.append(np.asarray(wave, dtype=np.float32))
        return laag.splice_wave(waves, inference.cross_fade_seconds)

    def _model(self, name: str) -> Any:
        if name not in self._models:
            self._models[name] = getattr(hub, f"load_{name}")(self.profile, self.device)
        return self._models[name]


class F5AsPublished(F5Official):
    """The baseline as the paper's released code runs it: a wrong transcript and a narrow clip.

    The clip's second of speech is declared to contain the whole sentence, so the official length formula leaves about
    one second for it as well. A row lasts at least a mel frame for each letter of both texts and one more, which is
    what sentences of more than some 90 letters get.
    """

    weights = ("backbone", "vocoder")

    def transcripts(self, requests: Sequence[Request]) -> list[str]:
        return [request.text for request in requests]

    def reference(self, request: Request) -> tuple[np.ndarray, int]:
        return resample(request.clip, SAMPLE_RATE, PUBLISHED_RATE), PUBLISHED_RATE
