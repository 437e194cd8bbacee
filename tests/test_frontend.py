"""Core E: what Silero cuts, what it keeps, and the level afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from babble import babble

from pvlib import frontend
from pvlib.audio import SAMPLE_RATE, AudioError
from pvlib.config import Inference

INFERENCE = Inference()


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SAMPLE_RATE), dtype=np.float32)


def test_edges_are_cut_and_50_ms_kept_behind():
    wave = np.concatenate([silence(0.7), babble(1.5), silence(0.9)])
    ((first, last),) = frontend.speech_spans(wave, INFERENCE)
    assert first == pytest.approx(0.7 * SAMPLE_RATE, abs=0.1 * SAMPLE_RATE)
    assert last >= 2.1 * SAMPLE_RATE
    np.testing.assert_array_equal(frontend.trim(wave, INFERENCE), wave[first : last + 1200])


def test_pauses_inside_stay():
    wave = np.concatenate([silence(0.5), babble(1.0), silence(1.0), babble(1.0), silence(0.5)])
    assert len(frontend.speech_spans(wave, INFERENCE)) == 2
    assert len(frontend.trim(wave, INFERENCE)) > 2.8 * SAMPLE_RATE


def test_a_clip_full_of_speech_loses_next_to_nothing():
    assert len(frontend.trim(babble(1.0), INFERENCE)) >= 0.95 * SAMPLE_RATE


def test_a_short_sound_keeps_its_surroundings(monkeypatch):
    wave = np.arange(24_000, dtype=np.float32)
    for span in ((10_000, 11_000), (0, 500), (23_500, 24_000)):
        monkeypatch.setattr(frontend, "speech_spans", lambda *_, span=span: [span])
        kept = frontend.trim(wave, INFERENCE)
        assert len(kept) == 7200
        assert kept[0] <= span[0] and kept[-1] >= span[1] - 1


@pytest.mark.parametrize("level", [0.05, 0.1, 0.9])
def test_rms_reaches_its_target(level):
    wave = babble(1.0, peak=level)
    prepared, gain = frontend.prepare_with_gain(wave, INFERENCE)
    assert np.sqrt(np.mean(prepared.astype(np.float64) ** 2)) == pytest.approx(0.1, rel=1e-3)
    assert np.abs(prepared / np.float32(gain)).max() == pytest.approx(np.abs(wave).max(), rel=1e-4)


def test_gain_is_clamped():
    assert frontend.loudness_gain(babble(1.0, peak=1e-3), INFERENCE) == 10
    assert frontend.loudness_gain(np.full(100, 5.0), INFERENCE) == 0.1


def test_each_stage_can_be_switched_off():
    wave = np.concatenate([silence(0.5), babble(1.0)])
    off = replace(INFERENCE, use_silero_vad=False, use_rms_normalize=False)
    np.testing.assert_array_equal(frontend.prepare(wave, off), wave)
    assert len(frontend.prepare(wave, replace(off, use_silero_vad=True))) < len(wave)


@pytest.mark.parametrize("kind", ["noise", "tone"])
def test_nothing_is_cloned_from_noise(kind):
    t = np.arange(24_000) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(24_000)
    wave = (0.1 * (noise if kind == "noise" else np.sin(2 * np.pi * 440 * t))).astype(np.float32)
    with pytest.raises(AudioError, match=r"no speech found in hum\.wav.*silero_vad_threshold"):
        frontend.prepare(wave, INFERENCE, "hum.wav")


def test_repeats_and_leaves_the_threads_alone():
    threads = torch.get_num_threads()
    wave = np.concatenate([silence(0.3), babble(1.0)])
    first = frontend.prepare(wave, INFERENCE)
    frontend.prepare(babble(1.0, f0=220), INFERENCE)  # the network's state must not leak into the next clip
    np.testing.assert_array_equal(frontend.prepare(wave, INFERENCE), first)
    assert torch.get_num_threads() == threads
