"""Means and rates with their intervals. Utterances of one speaker are not independent, so speakers are resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval, and how many utterances and speakers it rests on."""

    value: float
    low: float
    high: float
    n: int
    clusters: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def cluster_bootstrap(
    statistic: Callable[..., np.ndarray],
    totals: Sequence[np.ndarray],
    clusters: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """A percentile bootstrap of a statistic of totals, with whole clusters (speakers) drawn with replacement.

    totals: arrays (n,), one value per utterance; the statistic receives their sums over a resample, each (resamples,),
    and returns (resamples,): a mean is `lambda s, n: s / n` of the values and of ones. Resamples in which it is not
    finite (a speaker-poor stratum drew nothing that it needs) are left out.
    Raises ValueError on no utterance, on NaN, or when no resample gives a finite value.
    """
    columns = np.stack([np.asarray(total, dtype=float) for total in totals])  # (k, n)
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    if columns.shape[1] != len(member):
        raise ValueError(f"{columns.shape[1]} values for {len(member)} cluster labels")
    if not len(member):
        raise ValueError("no utterances: nothing to estimate")
    if not np.isfinite(columns).all():
        raise ValueError("a value is not finite; leave such utterances out and say how many")
    sums = np.stack([np.bincount(member, weights=column, minlength=len(names)) for column in columns])
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*columns.sum(axis=1, keepdims=True))[0])
        estimates = statistic(*(sums @ draws.T))
    estimates = estimates[np.isfinite(estimates)]
    if not np.isfinite(value) or not len(estimates):
        raise ValueError("the statistic is not finite on these utterances")
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(member), len(names))


def cluster_bootstrap_mean(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The mean over utterances with a percentile interval from resampled speakers. Raises ValueError as above."""
    values = np.asarray(values, dtype=float)
    options = {"resamples": resamples, "level": level, "seed": seed}
    return cluster_bootstrap(lambda s, n: s / n, [values, np.ones_like(values)], clusters, **options)


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a proportion: sensible at 0 and 1, where a bootstrap has no width. Ignores clusters.

    Raises ValueError when n is 0 or successes are outside 0..n.
    """
    from statsmodels.stats.proportion import proportion_confint

    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is not a proportion")
    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return float(low), float(high)
