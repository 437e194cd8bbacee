"""Sound in and out: decode, resample, mel, write. Every audio constant is stated here, once.

Axes: b batch, n frames, c channels (mel bands), s samples.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torchaudio
from torch import Tensor

from pvlib import paths

SAMPLE_RATE = 24_000  # samples per second everywhere inside pvlib
N_FFT = 1024
WIN_LENGTH = 1024
HOP_LENGTH = 256  # 93.75 mel frames per second
N_MELS = 100
MEL_FLOOR = 1e-5  # magnitudes are clamped here before the logarithm
CLIP_SECONDS = 1
CLIP_SAMPLES = CLIP_SECONDS * SAMPLE_RATE
CLIP_FRAMES = CLIP_SAMPLES // HOP_LENGTH + 1  # 94: centred frames of a one-second clip

OPUS_COMPRESSION = 0.85  # of 0..1: about 45 kbit/s for a voice at 24 kHz, no word error more than PCM

MIN_SECONDS = 0.3  # less is not a voice
MAX_SECONDS = 600.0  # more is refused rather than read into memory
SILENCE_PEAK = 1e-4  # -80 dB of full scale: a signal that swings less is silence
CLIPPED_SHARE = 0.02  # of the samples at full scale (a pure tone has 1 %): from here on a warning
NARROW_RATE = 16_000  # recordings below this rate get a warning: half of the voice is missing
RATES = (4_000, 768_000)  # plausible sampling rates
MAX_CHANNELS = 64
MAX_VALUES = 120_000_000  # samples of all channels: ten minutes of stereo at 96 kHz, 480 MB as floats
FORMATS = "wav, flac, ogg or mp3"


class AudioError(ValueError):
    """Sound that cannot be used; the message names the input and what to do."""


class AudioWarning(UserWarning):
    """Sound that can be used, with a loss that the message names."""


@lru_cache(maxsize=1)
def _mel_filter() -> torchaudio.transforms.MelSpectrogram:
    with torch.inference_mode(False):  # or a first call under inference mode would bar training from using it
        return torchaudio.transforms.MelSpectrogram(
            sample_rate=SAMPLE_RATE,
            n_fft=N_FFT,
            win_length=WIN_LENGTH,
            hop_length=HOP_LENGTH,
            n_mels=N_MELS,
            power=1,
            center=True,
            normalized=False,
            norm=None,
        )


def mel(wave: Tensor) -> Tensor:
    """Log-mel magnitudes as F5-TTS and Vocos use them.

    wave: (s,) or (b, s) at 24 kHz. Returns (b, 100, s // 256 + 1), natural logarithm, floored at log(1e-5).
    """
    wave = wave.float()
    wave = wave[None] if wave.ndim == 1 else wave
    return _mel_filter().to(wave.device)(wave).clamp(min=MEL_FLOOR).log()


def resample(wave: np.ndarray, rate: int, to: int = SAMPLE_RATE) -> np.ndarray:
    """Resample float32 mono samples; the identity when the rates agree."""
    return wave if rate == to else soxr.resample(wave, rate, to).astype(np.float32)


def load(path: str | Path) -> np.ndarray:
    """Decode a sound file. Returns (s,) float32, mono, 24 kHz; `check` says how the samples are treated.

    Reads what libsndfile reads (wav, flac, ogg, mp3, aiff, ...). The header is asked first: a file longer than ten
    minutes, of an implausible rate, or of more samples than memory should hold, is refused unread. Raises AudioError
    naming the path when the file is missing, empty, not audio, unreadable or not usable.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give a sound file ({FORMATS})"
        )
    try:
        if path.stat().st_size == 0:
            raise AudioError(f"{path} is an empty file; give a sound file ({FORMATS})")
        info = soundfile.info(path)
        if info.samplerate and info.frames > MAX_SECONDS * info.samplerate:
            raise _too_long(str(path), info.frames / info.samplerate)
        if not RATES[0] <= info.samplerate <= RATES[1]:
            raise _implausible(str(path), info.samplerate)
        if info.channels > MAX_CHANNELS or info.frames * info.channels > MAX_VALUES:
            raise AudioError(
                f"{path} holds {info.frames:,} samples in {info.channels} channels at {info.samplerate} Hz, more than "
                f"the {MAX_VALUES:,} in all and {MAX_CHANNELS} channels that are read; convert it to mono at 24 kHz"
            )
        # A header can promise less than the file holds: never read more than the limit.
        frames = min(int(MAX_SECONDS * info.samplerate) + 1, MAX_VALUES // info.channels)
        wave, rate = soundfile.read(path, frames=frames, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: headerless (.raw)
        raise AudioError(f"{path} cannot be decoded as sound ({error}); convert it to {FORMATS}") from error
    if not len(wave):
        raise AudioError(f"{path} holds no samples; give a sound file ({FORMATS}) with a voice in it")
    return check(wave, rate, str(path))


def check(wave: np.ndarray, rate: int, name: str = "input") -> np.ndarray:
    """Samples from anywhere as (s,) float32, mono, 24 kHz.

    wave: (s,), (s, channels) or (channels, s); the shorter axis is taken for the channels. Integers are scaled by
    their type's full scale. Treatments, none of them silent damage:
    * channels are averaged; channels that cancel each other are refused as silence;
    * any rate from 4 kHz up is resampled; below 16 kHz with an AudioWarning, since the upper band is missing;
    * clipped samples are accepted as they are, with an AudioWarning from 2 % on;
    * floats beyond full scale are scaled down to it.
    Raises AudioError naming the input: no samples, not numbers, NaN or infinite, silent or constant, shorter than
    0.3 s, longer than ten minutes, an impossible rate or shape.
    """
    samples = np.asarray(wave)
    if not RATES[0] <= rate <= RATES[1]:
        raise _implausible(name, rate)
    if samples.dtype.kind not in "iuf" or samples.ndim not in (1, 2):
        raise AudioError(
            f"{name}: {samples.dtype} samples of shape {samples.shape} are not sound; give (samples,) or "
            "(samples, channels) as float or integer"
        )
    if not samples.size:
        raise AudioError(f"{name} holds no samples; give at least {MIN_SECONDS} s of a voice")
    if samples.ndim == 2:
        samples = samples if samples.shape[0] >= samples.shape[1] else samples.T  # (samples, channels)
        if samples.shape[1] > MAX_CHANNELS:
            raise AudioError(
                f"{name}: shape {samples.shape} is not sound; give (samples,) or (samples, channels)"
            )
    seconds = len(samples) / rate
    if seconds > MAX_SECONDS:
        raise _too_long(name, seconds)
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{name} lasts {seconds:.2f} s; at least {MIN_SECONDS} s of a voice are needed, better 1 s"
        )
    samples = _unit_floats(samples)
    if bad := int((~np.isfinite(samples)).sum()):
        raise AudioError(
            f"{name}: {bad} of {samples.size} samples are NaN or infinite; export the recording again"
        )
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    samples = samples.astype(np.float32)
    if float(np.ptp(samples)) < 2 * SILENCE_PEAK:
        raise AudioError(f"{name} is silent or constant; give a recording in which someone speaks")
    clipped = float((np.abs(samples) >= 0.9999).mean())
    if clipped >= CLIPPED_SHARE:
        warnings.warn(
            f"{name}: {clipped:.0%} of the samples are clipped; used as they are", AudioWarning, stacklevel=2
        )
    if rate < NARROW_RATE:
        warnings.warn(
            f"{name}: recorded at {rate} Hz, nothing above {rate // 2} Hz", AudioWarning, stacklevel=2
        )
    return resample(samples, rate)


def _unit_floats(samples: np.ndarray) -> np.ndarray:
    """Integers scaled by their full scale (unsigned: offset binary), floats scaled down to full scale if beyond."""
    if samples.dtype.kind == "f":
        peak = np.abs(samples).max()
        return samples / peak if np.isfinite(peak) and peak > 1 else samples
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return (samples / half - (samples.dtype.kind == "u")).astype(np.float32)


def _implausible(name: str, rate: int) -> AudioError:
    return AudioError(
        f"{name}: a sampling rate of {rate} Hz is not plausible; give the rate it was recorded at"
    )


def _too_long(name: str, seconds: float) -> AudioError:
    return AudioError(
        f"{name} lasts {seconds / 60:.1f} minutes; at most {MAX_SECONDS / 60:.0f} are read: "
        "cut out one second of speech"
    )


def write(path: str | Path, wave: np.ndarray, rate: int = SAMPLE_RATE) -> Path:
    """Write mono samples in -1..1 as .wav, .flac or .ogg, atomically.

    Samples beyond full scale are scaled down to it, never wrapped. Raises AudioError naming the path when the
    folder cannot be written, the disk is full or the format is unknown; nothing half-written is left.
    """
    path = Path(path)
    formats = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "OPUS")}
    if path.suffix.lower() not in formats:
        raise AudioError(
            f"{path}: cannot write {path.suffix or 'a file without ending'}; use .wav, .flac or .ogg"
        )
    kind, subtype = formats[path.suffix.lower()]
    wave = np.asarray(wave, dtype=np.float32)
    peak = float(np.abs(wave).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError(f"{path}: the samples to write are not finite")
    wave = wave / max(1.0, peak)
    level = OPUS_COMPRESSION if subtype == "OPUS" else None
    try:
        with paths.appearing(path) as partial:
            soundfile.write(partial, wave, rate, format=kind, subtype=subtype, compression_level=level)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(
            f"cannot write {path}: {error}; check that the folder is writable and has space"
        ) from error
    return path
