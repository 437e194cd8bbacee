"""Rooms and microphones: simulated impulse responses, colour, and noise at a known ratio.

A room is a class of places; each place in it is one impulse response drawn from the class's ranges. The first
`TRAIN_PLACES` are heard in training and dev, the `TEST_PLACES` behind them only in test.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from pvlib.audio import SAMPLE_RATE

TRAIN_PLACES, TEST_PLACES = 20, 6


@dataclass(frozen=True)
class Room:
    """Ranges of a class.

    t60: reverberation time (s); direct_db: direct-to-reverberant ratio; snr_db: signal to noise; noise_slope: dB
    per octave of the noise; band: microphone's pass band (Hz); tilt_db: microphone's slope per octave.
    """

    t60: tuple[float, float]
    direct_db: tuple[float, float]
    snr_db: tuple[float, float]
    noise_slope: float
    band: tuple[float, float]
    tilt_db: float


ROOMS = {
    "studio": Room((0.02, 0.05), (25, 30), (45, 60), -3, (30, 11500), 0.0),
    "closet": Room((0.08, 0.15), (8, 14), (30, 42), -3, (60, 8000), -1.5),
    "bedroom": Room((0.25, 0.40), (6, 12), (28, 40), -3, (50, 11000), 0.0),
    "office": Room((0.35, 0.50), (4, 9), (24, 34), -2, (80, 10000), 0.5),
    "kitchen": Room((0.45, 0.65), (4, 9), (22, 32), 0, (60, 11000), 1.0),
    "hall": Room((0.8, 1.2), (3, 8), (28, 38), -3, (40, 11000), -0.5),
    "telephone": Room((0.15, 0.30), (8, 14), (24, 34), 0, (300, 3800), 0.0),
    "car": Room((0.06, 0.12), (6, 12), (18, 26), -6, (90, 7000), -1.0),
}
SHARES = {name: (0.34 if name == "studio" else 0.66 / (len(ROOMS) - 1)) for name in ROOMS}


@lru_cache(maxsize=512)
def impulse_response(room: str, place: int, seed: int) -> np.ndarray:
    """The impulse response of one place: direct sound, six early reflections, a decaying tail, microphone."""
    rng = np.random.default_rng([seed, 77, list(ROOMS).index(room), place])
    spec = ROOMS[room]
    t60 = rng.uniform(*spec.t60)
    length = int(SAMPLE_RATE * max(t60, 0.03))
    time = np.arange(length) / SAMPLE_RATE
    tail = rng.standard_normal(length) * 10 ** (-3 * time / t60)
    tail[: int(0.002 * SAMPLE_RATE)] = 0
    dull = sosfilt(butter(1, rng.uniform(3000, 7000), fs=SAMPLE_RATE, output="sos"), tail)
    for _ in range(6):
        dull[int(rng.uniform(0.002, min(0.03, t60)) * SAMPLE_RATE) % length] += (
            rng.uniform(-1, 1) * np.abs(dull).max()
        )
    dull *= 10 ** (-rng.uniform(*spec.direct_db) / 20) / max(np.sqrt(np.sum(dull**2)), 1e-9)
    dull[0] += 1.0
    return _microphone(np.concatenate([dull, np.zeros(512)]), spec)


def _microphone(signal: np.ndarray, spec: Room) -> np.ndarray:
    low, high = spec.band
    signal = sosfilt(butter(2, (low, min(high, 11800)), btype="band", fs=SAMPLE_RATE, output="sos"), signal)
    return _slope(signal, spec.tilt_db) if spec.tilt_db else signal


def _slope(signal: np.ndarray, db_per_octave: float) -> np.ndarray:
    spectrum = np.fft.rfft(signal)
    frequency = np.fft.rfftfreq(len(signal), 1 / SAMPLE_RATE)
    spectrum *= 10 ** (db_per_octave * np.log2(np.maximum(frequency, 60) / 1000) / 20)
    return np.fft.irfft(spectrum, len(signal))


def place_in(
    wave: np.ndarray, room: str, place: int, seed: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Put a dry wave into a place. Returns the wave as recorded there, equally long, and its SNR in dB."""
    spec = ROOMS[room]
    wet = fftconvolve(wave, impulse_response(room, place, seed))[: len(wave)]
    snr = float(rng.uniform(*spec.snr_db))
    noise = _slope(rng.standard_normal(len(wave)), spec.noise_slope)
    noise = _microphone(noise, spec)
    level = np.sqrt(np.mean(wet**2)) * 10 ** (-snr / 20)
    wet = wet + noise * level / max(np.sqrt(np.mean(noise**2)), 1e-9)
    loudness = np.sqrt(np.mean(wave**2)) / max(np.sqrt(np.mean(wet**2)), 1e-9)
    return np.clip(wet * loudness, -0.99, 0.99).astype(np.float32), round(snr, 2)
