"""Decoding and the treatment of samples: levels, channels, rates, and the mel against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from babble import babble

from pvlib import audio
from pvlib.audio import SAMPLE_RATE, AudioError, AudioWarning


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def loudest_hertz(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(wave))


@pytest.mark.parametrize(
    "ending, rate", [("wav", 24_000), ("flac", 44_100), ("ogg", 48_000), ("mp3", 16_000)]
)
def test_load_decodes_to_mono_24_khz(tmp_path, ending, rate):
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, tone(rate), rate)
    wave = audio.load(path)
    assert wave.dtype == np.float32 and wave.ndim == 1
    assert len(wave) == pytest.approx(SAMPLE_RATE, abs=0.12 * SAMPLE_RATE)  # mp3 pads to its frames
    assert loudest_hertz(wave) == pytest.approx(440, abs=3)
    assert np.abs(wave[2400:-4800]).max() == pytest.approx(0.5, abs=0.05)


def test_load_leaves_24_khz_mono_samples_as_they_are(tmp_path):
    wave = tone(SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_array_equal(audio.load(tmp_path / "a.wav"), wave)


def test_load_asks_the_header_before_reading(tmp_path, monkeypatch):
    path = tmp_path / "hour.flac"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(60 * 8000, dtype=np.float32))
    monkeypatch.setattr(soundfile, "read", lambda *_, **__: pytest.fail("read an hour into memory"))
    with pytest.raises(AudioError, match=r"hour\.flac lasts 60\.0 minutes; at most 10"):
        audio.load(path)


def test_channels_are_averaged_in_either_orientation():
    left, right = tone(24_000, peak=0.4), tone(24_000, peak=0.2)
    for stereo in (np.stack([left, right]), np.stack([left, right], axis=1)):
        np.testing.assert_allclose(audio.check(stereo, 24_000), (left + right) / 2, atol=1e-7)


def test_integers_are_scaled_by_their_type():
    wave = tone(24_000)
    for samples in (
        np.round(wave * 32768).astype(np.int16),
        np.round(wave * 2**31).astype(np.int32),
        np.round(wave * 128 + 128).astype(np.uint8),
    ):
        np.testing.assert_allclose(audio.check(samples, 24_000), wave, atol=1 / 128)


def test_floats_beyond_full_scale_are_scaled_down():
    checked = audio.check(tone(24_000, peak=20_000.0), 24_000)
    assert np.abs(checked).max() == pytest.approx(1.0)


def test_narrow_and_clipped_recordings_are_used_with_a_warning():
    with pytest.warns(AudioWarning, match="8000 Hz"):
        assert loudest_hertz(audio.check(tone(8000), 8000)) == pytest.approx(440, abs=3)
    with pytest.warns(AudioWarning, match="clipped"):
        audio.check(np.clip(tone(24_000, peak=3.0), -1, 1), 24_000, "shout")


def test_check_does_not_change_its_input():
    wave = tone(24_000, peak=2.0)
    before = wave.copy()
    audio.check(wave, 24_000)
    np.testing.assert_array_equal(wave, before)


def test_write_then_load_returns_the_wave(tmp_path):
    wave = babble()
    for ending, tolerance in (("wav", 1e-4), ("flac", 1e-4)):
        path = audio.write(tmp_path / f"a.{ending}", wave)
        np.testing.assert_allclose(audio.load(path), wave, atol=tolerance)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.flac", "a.wav"]


def test_one_second_has_94_frames():
    mel = audio.mel(torch.from_numpy(babble(1.0)))
    assert mel.shape == (1, 100, audio.CLIP_FRAMES) == (1, 100, 94)


def test_mel_follows_its_definition():
    """Against a plain numpy transform: centred frames, Hann window, HTK triangles of height one, natural logarithm."""
    wave = babble(0.5).astype(np.float64)
    padded = np.pad(wave, 512, mode="reflect")
    window = np.hanning(1025)[:-1]
    frames = np.stack([padded[k * 256 : k * 256 + 1024] * window for k in range(len(wave) // 256 + 1)])
    magnitude = np.abs(np.fft.rfft(frames))  # (n, 513)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12_000 / 700), 102) / 2595) - 1)
    hertz = np.linspace(0, 12_000, 513)
    rising = (hertz[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - hertz[:, None]) / np.diff(edges)[1:]
    expected = np.log(np.maximum(magnitude @ np.maximum(0, np.minimum(rising, falling)), 1e-5))
    measured = audio.mel(torch.from_numpy(babble(0.5)))[0].T.numpy()
    np.testing.assert_allclose(np.exp(measured), np.exp(expected), rtol=1e-3, atol=1e-5)


def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path):
    path = tmp_path / ("a" * 251 + ".wav")
    audio.write(path, audio.load(audio.write(tmp_path / "short.wav", 0.1 * np.sin(np.arange(24_000)))))
    assert [p.name for p in tmp_path.iterdir() if len(p.name) == 255] == [path.name]
