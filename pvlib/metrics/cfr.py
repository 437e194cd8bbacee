"""Catastrophic failure rate: the share of utterances whose word error rate exceeds one half (seed, key results)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

THRESHOLD = 0.5  # WER above this is a catastrophic failure; exactly one half is not


def catastrophic(wer: Sequence[float] | np.ndarray) -> np.ndarray:
    """Which utterances fail. wer: (n,), no NaN (a failed synthesis counts as WER 1). Returns (n,) of bool.

    Raises ValueError on NaN.
    """
    wer = np.asarray(wer, dtype=float)
    if np.isnan(wer).any():
        raise ValueError("an error rate is NaN; a failed row counts as 1")
    return wer > THRESHOLD


def cfr(wer: Sequence[float] | np.ndarray) -> float:
    """Share of catastrophic failures in 0..1. Raises ValueError on NaN or on no utterances."""
    failed = catastrophic(wer)
    if not failed.size:
        raise ValueError("no utterances: the failure rate needs at least one")
    return float(failed.mean())
