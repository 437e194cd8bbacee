"""Equal error rate of a speaker verification."""

from __future__ import annotations

import numpy as np


def equal_error_rate(scores: np.ndarray, labels: np.ndarray) -> float:
    """The error rate at the threshold where false rejections and false acceptances are equally frequent.

    scores: (n,) similarity of each trial; labels: (n,) 1 for the same speaker, 0 for different ones.
    A trial is accepted when its score reaches the threshold. Between two thresholds the rates are joined by a
    straight line. Returns a share, 0 to 1.
    Raises ValueError on unequal lengths, scores that are not finite or a missing class.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"one label per score is needed: {scores.shape} scores, {labels.shape} labels")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold values that are not finite; leave failed trials out before counting")
    same, different = np.sort(scores[labels]), np.sort(scores[~labels])
    if not len(same) or not len(different):
        raise ValueError(f"both kinds of trial are needed: {len(same)} same, {len(different)} different")
    thresholds = np.append(np.unique(scores), np.inf)
    rejected = np.searchsorted(same, thresholds, side="left") / len(same)
    accepted = 1 - np.searchsorted(different, thresholds, side="left") / len(different)
    # `rejected` rises from 0 to 1 and `accepted` falls from 1 to 0: they cross between k - 1 and k
    gap = rejected - accepted
    k = int(np.argmax(gap >= 0))
    share = gap[k - 1] / (gap[k - 1] - gap[k])
    return float(rejected[k - 1] + share * (rejected[k] - rejected[k - 1]))
