"""How a waveform is spoken and where it sounds recorded: pitch, range, rate, energy, reverberation, noise.

Estimates from the wave alone, by simple and stated rules; differences between two renderings of one text mean more
than the values themselves.
"""

from __future__ import annotations

import librosa
import numpy as np

from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.metrics import dnsmos

F0_RANGE = (60.0, 500.0)  # Hz, where YIN looks
F0_FRAME = 1024
ACTIVE_DB = 30.0  # below the loudest frame: what counts as speech
PERIODIC = 0.7  # autocorrelation from which a frame counts as voiced
SMOOTH = 3  # frames that are averaged before decays are looked for
DECAY_DB = (3.0, 18.0)  # what of a free decay its slope is read off, below its start

PROSODY = {
    "f0": "median F0 (Hz)",
    "f0_range": "F0 range (semitones)",
    "rate": "letters per second",
    "energy": "level (dB)",
}
ROOM = {
    "background": "DNSMOS background (1 to 5)",
    "t60": "decay time (s per 60 dB)",
    "snr": "signal to noise (dB)",
}


def _levels(wave: np.ndarray) -> np.ndarray:
    """Level of each hop in dB: (n,)."""
    frames = librosa.util.frame(
        np.pad(wave, (0, HOP_LENGTH)), frame_length=2 * HOP_LENGTH, hop_length=HOP_LENGTH
    )
    return 10 * np.log10(np.mean(np.square(frames, dtype=np.float64), axis=0) + 1e-10)


def pitch(wave: np.ndarray) -> np.ndarray:
    """F0 in Hz of the voiced frames (YIN; de Cheveigné and Kawahara, 2002), in order: (n,), empty where none is voiced.

    Voiced: no more than 30 dB below the loudest frame, and the autocorrelation at the period found is at least 0.7.
    """
    wave = np.asarray(wave, dtype=np.float32)
    low, high = F0_RANGE
    f0 = librosa.yin(
        wave, fmin=low, fmax=high, sr=SAMPLE_RATE, frame_length=F0_FRAME, hop_length=HOP_LENGTH, center=False
    )
    voiced = np.zeros(len(f0), dtype=bool)
    level = np.array([_energy(wave[k * HOP_LENGTH : k * HOP_LENGTH + F0_FRAME]) for k in range(len(f0))])
    for k in np.flatnonzero(level > level.max() - ACTIVE_DB):
        frame = wave[k * HOP_LENGTH : k * HOP_LENGTH + F0_FRAME]
        lag = round(SAMPLE_RATE / f0[k])
        one, other = frame[:-lag], frame[lag:]
        norm = np.sqrt(np.sum(one**2) * np.sum(other**2))
        voiced[k] = norm > 0 and np.sum(one * other) / norm >= PERIODIC
    return f0[voiced]


def _energy(frame: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(np.square(frame, dtype=np.float64)) + 1e-10))


def speaking(wave: np.ndarray, text: str) -> dict[str, float]:
    """`PROSODY` of one utterance (s,) at 24 kHz; NaN for pitch where nothing is voiced.

    f0_range: from the 10th to the 90th percentile. rate: letters of the text per second of sound within 30 dB of
    the loudest frame. energy: mean level of those frames.
    """
    levels = _levels(wave)
    active = levels > levels.max() - ACTIVE_DB
    f0 = pitch(wave) if len(wave) >= F0_FRAME else np.array([])
    spread = 12 * np.log2(np.quantile(f0, 0.9) / np.quantile(f0, 0.1)) if len(f0) else np.nan
    letters = sum(character.isalpha() for character in text)
    return {
        "f0": float(np.median(f0)) if len(f0) else float("nan"),
        "f0_range": float(spread),
        "rate": letters / (active.sum() * HOP_LENGTH / SAMPLE_RATE),
        "energy": float(levels[active].mean()),
    }


def sounding(wave: np.ndarray) -> dict[str, float]:
    """`ROOM` of one utterance (s,) at 24 kHz.

    background: of DNSMOS. t60: 60 dB over the slope of the free decays (runs of frames that only fall, by 18 dB or
    more), their median; speech falls by itself as well, so it is above the room's own; NaN without such a run.
    snr: the 95th percentile of the frames' level above the 5th.
    """
    levels = _levels(wave)
    return {
        "background": dnsmos.scores(wave)["background"],
        "t60": _decay_time(levels),
        "snr": float(np.quantile(levels, 0.95) - np.quantile(levels, 0.05)),
    }


def _decay_time(levels: np.ndarray) -> float:
    levels = np.convolve(levels, np.ones(SMOOTH) / SMOOTH, mode="valid")
    found, start = [], 0
    for k in range(1, len(levels) + 1):
        if k < len(levels) and levels[k] < levels[k - 1]:
            continue
        fall = levels[start] - levels[start:k]
        part = np.flatnonzero((fall >= DECAY_DB[0]) & (fall <= DECAY_DB[1]))
        if fall[-1] >= DECAY_DB[1] and len(part) >= 3:
            found.append(60 / np.polyfit(part * HOP_LENGTH / SAMPLE_RATE, fall[part], 1)[0])
        start = k
    return float(np.median(found)) if found else float("nan")
