"""Core E, the front end: Silero voice activity trims the clip, RMS normalisation sets its level (seed, Core E).

Only the edges are cut; pauses between words stay. Parameters: `config.Inference` (vad_*, rms_*).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import Lock

import numpy as np
import torch

from pvlib.audio import MIN_SECONDS, SAMPLE_RATE, AudioError, resample
from pvlib.config import Inference

VAD_RATE = 16_000  # Silero's sampling rate
VAD_PAD_MS = 30  # Silero's own margin around speech, so that soft consonants survive

_vad_in_use = Lock()  # the network carries its state from window to window


@lru_cache(maxsize=1)
def _vad() -> tuple[Callable, torch.jit.ScriptModule]:
    """Silero's function and its network with the weights inside the package."""
    threads = torch.get_num_threads()
    try:
        import silero_vad  # sets torch to one thread

        return silero_vad.get_speech_timestamps, silero_vad.load_silero_vad(onnx=False)
    finally:
        torch.set_num_threads(threads)


def load(inference: Inference) -> None:
    """Load what the first clip would, so that no clock that runs over a clip counts it."""
    if inference.use_silero_vad:
        with _vad_in_use:
            _vad()


def speech_spans(wave: np.ndarray, inference: Inference) -> list[tuple[int, int]]:
    """Where someone speaks: [(first, past the last)] in 24 kHz samples, in order, possibly empty.

    wave: (s,) float32 at 24 kHz. A span lasts at least `vad_min_speech_ms` (Silero counts its windows of 32 ms),
    a pause that parts two spans at least `vad_min_silence_ms`; Silero's margin of 30 ms is included.
    """
    samples = torch.from_numpy(np.ascontiguousarray(resample(wave, SAMPLE_RATE, VAD_RATE)))
    with _vad_in_use, torch.inference_mode():
        timestamps, network = _vad()
        spans = timestamps(
            samples,
            network,
            threshold=inference.silero_vad_threshold,
            sampling_rate=VAD_RATE,
            min_speech_duration_ms=inference.vad_min_speech_ms,
            min_silence_duration_ms=inference.vad_min_silence_ms,
            speech_pad_ms=VAD_PAD_MS,
        )
    scale = SAMPLE_RATE / VAD_RATE
    return [(int(s["start"] * scale), min(int(s["end"] * scale), len(wave))) for s in spans]


def trim(wave: np.ndarray, inference: Inference, name: str = "the clip") -> np.ndarray:
    """Cut what precedes the first and follows the last speech, keeping 50 ms of what follows.

    wave: (s,) at 24 kHz. Never returns less than 0.3 s: a shorter stretch of speech keeps its surroundings, evenly.
    Raises AudioError naming the clip when nobody speaks in it.
    """
    spans = speech_spans(wave, inference)
    if not spans:
        raise AudioError(
            f"no speech found in {name}; give a second in which someone speaks, lower silero_vad_threshold "
            f"(now {inference.silero_vad_threshold}) or set use_silero_vad=False"
        )
    first = spans[0][0]
    last = min(len(wave), spans[-1][1] + inference.vad_trailing_silence_ms * SAMPLE_RATE // 1000)
    lacking = int(MIN_SECONDS * SAMPLE_RATE) - (last - first)
    if lacking > 0:
        first = max(0, min(first - lacking // 2, len(wave) - int(MIN_SECONDS * SAMPLE_RATE)))
        last = min(len(wave), first + int(MIN_SECONDS * SAMPLE_RATE))
    return wave[first:last]


def loudness_gain(wave: np.ndarray, inference: Inference) -> float:
    """The factor that brings the root mean square to `rms_target`, clamped to `rms_gain_range`.

    Raises AudioError when the wave is all zeros.
    """
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    if rms == 0:
        raise AudioError("the clip is all zeros; give a second in which someone speaks")
    low, high = inference.rms_gain_range
    return min(max(inference.rms_target / rms, low), high)


def prepare_with_gain(
    wave: np.ndarray, inference: Inference, name: str = "the clip"
) -> tuple[np.ndarray, float]:
    """What `prepare` does, and the gain that was applied (1 with use_rms_normalize off)."""
    if inference.use_silero_vad:
        wave = trim(wave, inference, name)
    gain = loudness_gain(wave, inference) if inference.use_rms_normalize else 1.0
    return (wave * np.float32(gain)).astype(np.float32), gain


def prepare(wave: np.ndarray, inference: Inference, name: str = "the clip") -> np.ndarray:
    """Trim to speech and normalise the level, each where its parameter is on.

    wave: (s,) float32 at 24 kHz, as `audio.load` and `audio.check` return it. Returns the same, as long or shorter.
    Raises AudioError when no speech is found; nothing is cloned from noise.
    """
    return prepare_with_gain(wave, inference, name)[0]
