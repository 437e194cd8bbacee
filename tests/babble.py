"""A made-up voice for tests: glottal pulses through moving formants, in syllables. Silero takes it for speech."""

from __future__ import annotations

import numpy as np
import scipy.signal

VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (530, 1840, 2480), (300, 870, 2240), (570, 840, 2410))


def babble(seconds: float = 1.0, f0: float = 120.0, rate: int = 24_000, peak: float = 0.3) -> np.ndarray:
    """(s,) float32 at `rate`."""
    t = np.arange(int(seconds * rate)) / rate
    pitch = f0 * (1 + 0.1 * np.sin(2 * np.pi * 1.3 * t))
    pulses = scipy.signal.sawtooth(2 * np.pi * np.cumsum(pitch) / rate)
    wave = np.zeros_like(t)
    syllable = int(0.18 * rate)
    for k, start in enumerate(range(0, len(t), syllable)):
        part = pulses[start : start + syllable]
        for formant in VOWELS[k % len(VOWELS)]:
            r, angle = np.exp(-np.pi * 80 / rate), 2 * np.pi * formant / rate
            part = scipy.signal.lfilter([1 - r], [1, -2 * r * np.cos(angle), r * r], part)
        part = part * np.sqrt(np.hanning(len(part) + 2)[1:-1])
        wave[start : start + syllable] = peak * part / np.abs(part).max()
    return wave.astype(np.float32)
