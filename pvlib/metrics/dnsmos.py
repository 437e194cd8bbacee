"""DNSMOS (speechmos): a neural proxy for the judgement of sound quality. A proxy, not listeners."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from pvlib.audio import SAMPLE_RATE, resample

DNSMOS_RATE = 16_000
WINDOW = int(9.01 * DNSMOS_RATE)  # what the network hears at once


@lru_cache(maxsize=1)
def _model():
    """The official scorer with its sessions bound to torch's thread count, and without the P.808 model.

    P.808 is a second network whose score is not reported here; the three P.835 scores are the package's own.
    """
    import onnxruntime
    from speechmos import dnsmos

    class Silent:
        def run(self, *_: object) -> np.ndarray:
            return np.full((1, 1, 1), np.nan)

    class Scorer(dnsmos.DNSMOS):
        def __init__(self) -> None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.inter_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            path = Path(dnsmos.__file__).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
            self.onnx_sess = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            self.p808_onnx_sess = Silent()

        def audio_melspec(self, audio: np.ndarray, **_: object) -> np.ndarray:
            return np.zeros((1, 1), dtype=np.float32)

    return Scorer()


def scores(wave: np.ndarray, rate: int = SAMPLE_RATE) -> dict[str, float]:
    """P.835 scores of one utterance, each roughly 1 (bad) to 5 (excellent).

    wave: (s,) mono, any level; scaled down where it leaves -1..1. The model hears 16 kHz in windows of 9.01 s, one
    per second, averaged. Shorter sound is repeated until it fills one window, and only one: the package goes on
    repeating and averages up to nine shifted windows of the same sound, which costs nine times as much and moves
    the score by less than 0.1.
    Returns {"overall", "signal", "background"}. Raises ValueError on empty or non-finite samples.
    """
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not wave.size or not np.isfinite(wave).all():
        raise ValueError("DNSMOS needs finite mono samples")
    wave = resample(wave, rate, DNSMOS_RATE)
    wave = wave / max(1.0, float(np.abs(wave).max()))
    if len(wave) < WINDOW:
        wave = np.resize(wave, WINDOW)  # repeats it
    out = _model()(wave, DNSMOS_RATE, False)
    return {
        "overall": float(out["ovrl_mos"]),
        "signal": float(out["sig_mos"]),
        "background": float(out["bak_mos"]),
    }


def overall(wave: np.ndarray, rate: int = SAMPLE_RATE) -> float:
    """The overall P.835 score of one utterance; see `scores`."""
    return scores(wave, rate)["overall"]
