"""Many speakers from few base voices: WORLD analysis, then a warp that is the speaker.

A speaker is a base voice (accent and espeak-ng variant) with a formant scale, a median pitch, a pitch range, a
spectral tilt, breathiness and a rate. Emotion and persona move the same prosodic controls, by known amounts, so
that their effect on cloned speech can be measured against the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import interp1d

from pvlib.audio import SAMPLE_RATE, resample
from pvlib.world.engine import Spoken

ACCENTS = ("en-us", "en-us", "en-us", "en", "en-us-nyc", "en-gb-x-rp")  # "en" is British
TRAIN_VARIANTS = (
    "m1", "m2", "m3", "m4", "m7", "m8", "f1", "f2", "f4", "f5", "klatt", "klatt2", "Alex", "Andrea", "Denis", "Gene",
    "adam", "linda", "max", "steph2", "victor", "Michael", "paul", "Alicia",
)  # fmt: skip
HELD_OUT_VARIANTS = ("m6", "f3", "klatt3", "steph", "robert", "Gene2")  # only in dev and test

FRAME_MS = 5.0
PERIODICITY_EVERY = 3  # aperiodicity is analysed on every third frame and held


@dataclass(frozen=True)
class Prosody:
    """Multipliers on F0 median, F0 range and rate; gain and tilt in decibels (tilt per octave)."""

    pitch: float = 1.0
    range: float = 1.0
    rate: float = 1.0
    gain_db: float = 0.0
    tilt_db: float = 0.0

    def times(self, other: Prosody) -> Prosody:
        """Both at once."""
        return Prosody(
            self.pitch * other.pitch,
            self.range * other.range,
            self.rate * other.rate,
            self.gain_db + other.gain_db,
            self.tilt_db + other.tilt_db,
        )


# Directions after Banse & Scherer (1996) and Juslin & Laukka (2003, table 7): happiness and anger are higher,
# wider, faster and louder; sadness lower, narrower, slower and softer; anger has the brightest spectrum.
EMOTION_PROSODY = {
    "neutral": Prosody(),
    "happy": Prosody(pitch=1.22, range=1.45, rate=1.10, gain_db=3.0, tilt_db=0.5),
    "sad": Prosody(pitch=0.86, range=0.55, rate=0.84, gain_db=-4.0, tilt_db=-1.5),
    "angry": Prosody(pitch=1.12, range=1.25, rate=1.16, gain_db=5.0, tilt_db=2.0),
}

# One trait at +1, the others at 0. Directions after Scherer (1979, extraversion: louder, faster, livelier pitch;
# neuroticism: higher pitch), Mallory & Miller (1958, introversion: soft) and Mairesse et al. (2007); where the
# sources are silent or mixed the effect is small by choice.
TRAIT_PROSODY = {
    "openness": Prosody(range=1.12, rate=1.02),
    "conscientiousness": Prosody(range=0.94, rate=0.96, gain_db=0.5),
    "extraversion": Prosody(pitch=1.04, range=1.16, rate=1.08, gain_db=2.0),
    "agreeableness": Prosody(pitch=1.03, range=1.06, rate=0.98, gain_db=-1.0),
    "neuroticism": Prosody(pitch=1.08, range=0.92, rate=1.03, gain_db=-0.5),
}


def emotion_prosody(emotion: str, strength: float) -> Prosody:
    """The prosody of an emotion at a strength in 0..1 (multipliers are raised to the strength)."""
    return _scaled(EMOTION_PROSODY[emotion], strength)


def persona_prosody(traits: dict[str, float]) -> Prosody:
    """The prosody of Big Five traits, each in -1..1, 0 the average person."""
    result = Prosody()
    for name, value in traits.items():
        result = result.times(_scaled(TRAIT_PROSODY[name], value))
    return result


def _scaled(p: Prosody, s: float) -> Prosody:
    return Prosody(p.pitch**s, p.range**s, p.rate**s, p.gain_db * s, p.tilt_db * s)


@dataclass(frozen=True)
class Speaker:
    """One synthetic person. `pitch_hz` is the median F0, `breath` in 0..1, `tilt_db` per octave."""

    name: str
    accent: str
    variant: str
    formants: float
    pitch_hz: float
    range: float
    tilt_db: float
    breath: float
    rate: float

    @property
    def base_voice(self) -> str:
        """The espeak-ng voice."""
        return f"{self.accent}+{self.variant}"


def draw_speaker(name: str, base: tuple[str, str], rng: np.random.Generator) -> Speaker:
    """A speaker at random over a base voice (accent, variant)."""
    formants = float(np.exp(rng.uniform(-0.28, 0.28)))
    return Speaker(
        name=name,
        accent=base[0],
        variant=base[1],
        formants=formants,
        pitch_hz=float(np.exp(rng.uniform(np.log(80), np.log(280)))),
        range=float(rng.uniform(0.5, 1.6)),
        tilt_db=float(rng.uniform(-3, 3)),
        breath=float(rng.beta(1.2, 3)),
        rate=float(rng.uniform(0.88, 1.18)),
    )


@dataclass(frozen=True)
class Analysis:
    """WORLD's view of a base utterance: f0 (n,), envelope and aperiodicity (n, bins), times in frames of 5 ms."""

    f0: np.ndarray
    envelope: np.ndarray
    aperiodicity: np.ndarray
    words: tuple[tuple[str, float, float], ...]


def analyse(spoken: Spoken) -> Analysis:
    """WORLD analysis (dio and stonemask for F0, CheapTrick, D4C) of a base utterance at 24 kHz."""
    import pyworld

    wave = resample(spoken.wave, spoken.rate).astype(np.float64)
    f0, times = pyworld.dio(wave, SAMPLE_RATE, f0_floor=60.0, f0_ceil=500.0, frame_period=FRAME_MS)
    f0 = pyworld.stonemask(wave, f0, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(wave, f0, times, SAMPLE_RATE)
    every = slice(None, None, PERIODICITY_EVERY)
    coarse = pyworld.d4c(
        wave,
        np.ascontiguousarray(f0[every]),
        np.ascontiguousarray(times[every]),
        SAMPLE_RATE,
        fft_size=(envelope.shape[1] - 1) * 2,
    )
    held = np.minimum(np.arange(len(f0)) // PERIODICITY_EVERY, len(coarse) - 1)
    aperiodicity = np.where(f0[:, None] > 0, np.minimum(coarse[held], 0.999), 0.999)
    return Analysis(f0, envelope, aperiodicity, spoken.words)


def speak_as(
    analysis: Analysis, speaker: Speaker, prosody: Prosody
) -> tuple[np.ndarray, tuple[tuple[str, float, float], ...]]:
    """A base utterance in a speaker's voice with a prosody.

    Returns the wave (float32, 24 kHz, RMS of voiced parts near 0.1 times the prosody's gain) and the word times.
    """
    import pyworld

    rate = speaker.rate * prosody.rate
    f0, envelope, aperiodicity = analysis.f0, analysis.envelope, analysis.aperiodicity
    at = np.arange(0, len(f0) - 1, rate)  # stretch time: which analysis frame sounds at each output frame
    low = at.astype(int)
    share = (at - low)[:, None]
    envelope = envelope[low] * (1 - share) + envelope[low + 1] * share
    aperiodicity = aperiodicity[np.round(at).astype(int)]
    voiced = (f0[low] > 0) & (f0[low + 1] > 0)
    f0 = np.where(voiced, f0[low] * (1 - share[:, 0]) + f0[low + 1] * share[:, 0], 0.0)

    if voiced.any():
        median = np.median(f0[voiced])
        shape = np.clip((f0[voiced] / median) ** (speaker.range * prosody.range), 0.4, 2.5)
        f0[voiced] = np.clip(shape * speaker.pitch_hz * prosody.pitch, 55, 600)

    bins = envelope.shape[1]
    frequency = np.linspace(0, SAMPLE_RATE / 2, bins)
    source = np.clip(frequency / speaker.formants, 0, SAMPLE_RATE / 2)
    envelope = interp1d(frequency, envelope, axis=1, assume_sorted=True)(source)
    octaves = np.log2(np.maximum(frequency, 100) / 1000)
    envelope = envelope * 10 ** ((speaker.tilt_db + prosody.tilt_db) * octaves / 10)
    breath = speaker.breath * 0.6 * np.clip(frequency / 5000, 0.02, 1)
    aperiodicity = np.clip(np.maximum(aperiodicity, breath[None]), 0.001, 0.999)

    wave = pyworld.synthesize(
        f0, np.ascontiguousarray(envelope), np.ascontiguousarray(aperiodicity), SAMPLE_RATE, FRAME_MS
    )
    loud = wave[np.abs(wave) > 0.1 * np.abs(wave).max()]
    wave = wave * (0.1 * 10 ** (prosody.gain_db / 20) / max(np.sqrt(np.mean(loud**2)), 1e-6))
    words = tuple((w, round(start / rate, 4), round(end / rate, 4)) for w, start, end in analysis.words)
    return np.clip(wave, -0.99, 0.99).astype(np.float32), words
