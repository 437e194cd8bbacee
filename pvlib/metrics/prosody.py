"""Prosody of an utterance: how far its pitch moves. Monotone speech moves little."""

from __future__ import annotations

import numpy as np

from pvlib.audio import SAMPLE_RATE, AudioError, resample

RATE = 16_000
FRAME, HOP = 1024, 256  # samples at 16 kHz: 64 ms, which holds three periods of the lowest voice, and 16 ms
LOWEST, HIGHEST = 60.0, 500.0  # Hz
LEAST = 10  # voiced frames below which nothing is said


def semitones(wave: np.ndarray) -> np.ndarray:
    """Pitch of the voiced frames of 24 kHz samples, in semitones above 60 Hz: (n,), possibly empty.

    By pYIN (Mauch and Dixon, 2014; librosa's), a frame every 16 ms. Raises AudioError on samples that are empty or not
    finite.
    """
    import librosa

    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not wave.size or not np.isfinite(wave).all():
        raise AudioError(f"pitch needs finite mono samples, not an array of shape {wave.shape}")
    sound = resample(wave, SAMPLE_RATE, RATE)
    f0, voiced, _ = librosa.pyin(
        np.pad(sound, (0, max(0, FRAME - len(sound)))),
        fmin=LOWEST,
        fmax=HIGHEST,
        sr=RATE,
        frame_length=FRAME,
        hop_length=HOP,
    )
    return 12 * np.log2(f0[voiced] / LOWEST)


def pitch_deviation(wave: np.ndarray) -> float:
    """Standard deviation of the pitch of 24 kHz samples, in semitones; NaN where hardly anything is voiced."""
    found = semitones(wave)
    return float(found.std()) if len(found) >= LEAST else float("nan")
