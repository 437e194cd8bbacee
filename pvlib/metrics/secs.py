"""Speaker encoder cosine similarity (SECS)."""

from __future__ import annotations

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between speaker embeddings along the last axis.

    a, b: (..., d), any norm. Returns (...) in -1..1. Raises ValueError on a zero or non-finite embedding.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    norm = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    if not np.all(np.isfinite(norm)) or np.any(norm == 0):
        raise ValueError("a speaker embedding is zero or not finite")
    return np.clip((a * b).sum(axis=-1) / norm, -1.0, 1.0)


def retention(system: float, impostor: float, ground_truth: float) -> float:
    """Where a similarity lies between another speaker (0) and the speaker's own true recordings (1).

    Each argument is a mean SECS on the same encoder and reference. Raises ValueError when the two ends coincide.
    """
    if ground_truth == impostor:
        raise ValueError("ground truth and impostor have the same similarity: retention is not defined")
    return (system - impostor) / (ground_truth - impostor)
