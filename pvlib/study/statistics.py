"""Means and rates with their intervals, and paired tests of two systems on the same utterances.

Utterances of one speaker are not independent, so intervals resample speakers. The paper's tests (paired t, Cohen's d)
treat utterances as independent; they are here to repeat its procedure, with Holm's correction for many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pvlib.metrics.eer import equal_error_rate

RESAMPLES = 2000
LEVEL = 0.95
ALPHA = 0.05
ROUNDING = 1e-14  # of two values: nearer ones are the same
UNIFORM = 1e-9  # of the largest difference: nearer ones are the same


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
    member, draws = _drawn(columns, clusters, resamples, seed)
    count = draws.shape[1]
    sums = np.stack([np.bincount(member, weights=column, minlength=count) for column in columns])
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*columns.sum(axis=1, keepdims=True))[0])
        estimates = statistic(*(sums @ draws.T))
    estimates = estimates[np.isfinite(estimates)]
    if not np.isfinite(value) or not len(estimates):
        raise ValueError("the statistic is not finite on these utterances")
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(member), count)


def _drawn(
    values: np.ndarray, clusters: Sequence[str], resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which cluster each of n utterances belongs to, (n,), and how often each of c is drawn, (resamples, c).

    values: (..., n). Raises ValueError where there are none, not as many as labels, or one is not finite.
    """
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    if values.shape[-1] != len(member):
        raise ValueError(f"{values.shape[-1]} values for {len(member)} cluster labels")
    if not len(member):
        raise ValueError("no utterances: nothing to estimate")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite; leave such utterances out and say how many")
    even = np.full(len(names), 1 / len(names))
    return member, np.random.default_rng(seed).multinomial(len(names), even, size=resamples)


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


def cluster_bootstrap_median(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The median over utterances with a percentile interval from resampled speakers. Raises ValueError as above."""
    values = np.asarray(values, dtype=float)
    member, draws = _drawn(values, clusters, resamples, seed)
    order = np.argsort(values)
    medians = [np.median(np.repeat(values[order], drawn[member[order]])) for drawn in draws]
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.median(values)), float(low), float(high), len(values), draws.shape[1])


def verification_error(
    scores: Sequence[float],
    same: Sequence[bool],
    speakers: tuple[Sequence[str], Sequence[str]],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The equal error rate of trials, with a percentile interval from resampled speakers.

    scores, same: (n,) of each trial; speakers: (n,) who speaks on either side. A trial of two speakers counts as often
    as both were drawn, one of a single speaker as often as that one was (Poh & Bengio, 2007, "Performance
    Generalization in Biometric Authentication Using Joint User-Specific and Sample Bootstraps", the users' part).
    Resamples that lack one kind of trial are left out. Raises ValueError on what `equal_error_rate` refuses.
    """
    scores, same = np.asarray(scores, dtype=float), np.asarray(same, dtype=bool)
    value = equal_error_rate(scores, same)
    names, member = np.unique(np.concatenate(speakers), return_inverse=True)
    first, second = member.reshape(2, -1)
    rates = []
    for drawn in np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    ):
        times = np.where(same, drawn[first], drawn[first] * drawn[second])
        if times[same].any() and times[~same].any():
            rates.append(equal_error_rate(np.repeat(scores, times), np.repeat(same, times)))
    if not rates:
        raise ValueError("no resample of speakers holds trials of both kinds")
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(scores), len(names))


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a proportion: sensible at 0 and 1, where a bootstrap has no width. Ignores clusters.

    Raises ValueError when n is 0 or successes are outside 0..n.
    """
    from statsmodels.stats.proportion import proportion_confint

    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is not a proportion")
    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return float(low), float(high)


def auc(
    *groups: tuple[Sequence[float], Sequence[float]],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Area under the ROC curve, the chance that a high case scores above a low one (ties half): U / (n1 n2).

    groups: one (scores of high cases, scores of low cases), or several, whose areas are averaged. The percentile
    bootstrap draws high and low cases of each group apart, with replacement.
    Raises ValueError on no group, an empty side, or a score that is not finite.
    """
    from scipy.stats import mannwhitneyu

    if not groups:
        raise ValueError("no scores: nothing to compare")
    rng = np.random.default_rng(seed)
    areas, draws, n = [], [], 0
    for group in groups:
        high, low = (np.asarray(side, dtype=float) for side in group)
        if not len(high) or not len(low):
            raise ValueError(f"{len(high)} high and {len(low)} low scores: an AUC needs both")
        if not (np.isfinite(high).all() and np.isfinite(low).all()):
            raise ValueError("a score is not finite; leave such cases out and say how many")
        areas.append(mannwhitneyu(high, low).statistic / (len(high) * len(low)))
        above = (np.sign(high[:, None] - low) + 1) / 2
        counts = [rng.multinomial(len(s), np.full(len(s), 1 / len(s)), size=resamples) for s in (high, low)]
        draws.append(((counts[0] @ above) * counts[1]).sum(1) / above.size)
        n += len(high) + len(low)
    ends = np.quantile(np.mean(draws, axis=0), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(areas)), float(ends[0]), float(ends[1]), n, n)


def against_target(value: float, low: float, high: float, target: float, relation: str = "at least") -> str:
    """Whether an estimate meets a target that was set before: "met" or "missed", and whether its interval settles it.

    low, high: the ends of the interval. relation: "at least" or "at most"; a value on the target meets it. Raises
    ValueError on another relation.
    """
    if relation not in ("at least", "at most"):
        raise ValueError(f"no relation {relation!r}: at least or at most")
    reached = [end >= target if relation == "at least" else end <= target for end in (low, value, high)]
    told = "met" if reached[1] else "missed"
    settled = reached[0] == reached[1] == reached[2]
    return told if settled else f"{told} by the estimate, which its interval does not settle"


# Paired tests: a and b hold one value per utterance, in the same order


@dataclass(frozen=True)
class PairedTest:
    """A test of the hypothesis that its docstring names: statistic, two-sided p, pairs it rests on."""

    name: str
    statistic: float
    p: float
    n: int


def paired_t(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Student's paired t-test that the mean of a - b is zero. a, b: (n,), n at least 2.

    Where no pair differs the statistic is 0 and p is 1. Raises ValueError on fewer than two pairs, unequal lengths, a
    value that is not finite, and differences that are all the same without being zero.
    """
    difference = _differences(a, b)
    n = len(difference)
    if not difference.any():
        return PairedTest("paired t", 0.0, 1.0, n)
    from scipy.stats import ttest_1samp

    found = ttest_1samp(difference, 0.0)
    return PairedTest("paired t", float(found.statistic), float(found.pvalue), n)


def uniform(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether all pairs differ by the same amount and it is not zero, so that neither t nor d is defined.

    Raises ValueError on fewer than two pairs, unequal lengths, and a value that is not finite.
    """
    return _is_uniform(_pairs(a, b))


def wilcoxon(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Wilcoxon's signed-rank test that a - b is symmetric about zero; pairs without a difference are ranked (Pratt).

    Exact for up to 50 pairs without ties and zeros, for up to 13 with them (over all signs), and where all pairs differ
    by the same amount (2^(1 - n), as of the sign test); else with the normal approximation.
    Raises ValueError on fewer than two pairs, unequal lengths, and a value that is not finite.
    """
    difference = _pairs(a, b)
    n = len(difference)
    if not difference.any():
        return PairedTest("Wilcoxon", 0.0, 1.0, n)
    if _is_uniform(difference):
        return PairedTest("Wilcoxon", 0.0, 0.5 ** (n - 1), n)
    from scipy.stats import wilcoxon as signed_rank

    found = signed_rank(difference, zero_method="pratt")
    return PairedTest("Wilcoxon", float(found.statistic), float(found.pvalue), len(difference))


def paired_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """The paired t-test, or Wilcoxon's where all pairs differ by the same amount; its name says which.

    Raises ValueError on fewer than two pairs, unequal lengths, and a value that is not finite.
    """
    return wilcoxon(a, b) if uniform(a, b) else paired_t(a, b)


def cohens_d(a: Sequence[float], b: Sequence[float], kind: str = "d_z", level: float = LEVEL) -> Interval:
    """Cohen's d of a - b with its interval from the noncentral t distribution.

    d_z: the mean difference over the standard deviation of the differences, t / sqrt(n). It is what the tables
    report: the d of the paper's retired modules follows from its p-values in this form. The interval is exact for
    normal differences. d_av: over the root mean square of the two standard deviations, with the approximate
    interval of Algina and Keselman (2003); comparable with d of unpaired studies.
    Raises ValueError as `paired_t`, on another kind, and when neither a nor b varies.
    """
    if kind not in ("d_z", "d_av"):
        raise ValueError(f"no effect size {kind!r}: d_z or d_av")
    difference = _differences(a, b)
    n = len(difference)
    t, spread = paired_t(a, b).statistic, float(difference.std(ddof=1))
    scale = 1 / np.sqrt(n)
    if kind == "d_av":
        pooled = np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
        if pooled == 0:
            raise ValueError("neither side varies: d_av is not defined")
        scale *= spread / pooled
    low, high = noncentrality(t, n - 1, level)
    return Interval(float(t * scale), float(low * scale), float(high * scale), n, n)


def noncentrality(t: float, df: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the noncentrality parameter of which t is a draw with df degrees of freedom."""
    from scipy.optimize import brentq
    from scipy.stats import nct, norm

    spread = np.sqrt(1 + t * t / (2 * df))

    def excess(shift: float, share: float) -> float:
        return nct.cdf(t, df, shift) - share

    ends = []
    for share in ((1 + level) / 2, (1 - level) / 2):
        guess = (
            t - norm.ppf(share) * spread
        )  # nct is not computable far out, so the search starts near its end
        low, high = guess - spread, guess + spread
        while excess(low, share) < 0:
            low -= spread
        while excess(high, share) > 0:
            high += spread
        ends.append(float(brentq(excess, low, high, args=(share,))))
    return ends[0], ends[1]


def equivalence(a: Sequence[float], b: Sequence[float], margin: float) -> PairedTest:
    """Test that |d_z| is at least `margin`: a small p shows that the two are equivalent up to it.

    Two one-sided tests with the noncentral t distribution (Wellek, Testing Statistical Hypotheses of Equivalence and
    Noninferiority, 2010, section 5.3); the p is the larger of the two. Raises ValueError as `paired_t`, and on a
    margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin = {margin} must be positive")
    found = paired_t(a, b)
    p = equivalence_p(found.statistic / np.sqrt(found.n), found.n, margin)
    return PairedTest("equivalence", found.statistic, p, found.n)


def equivalence_p(d: float, n: int, margin: float) -> float:
    """The p of `equivalence` for an observed d_z of n pairs."""
    return max(1 - effect_tail(d, n, margin), 1 - effect_tail(-d, n, margin))


def effect_tail(d: float, n: int, margin: float) -> float:
    """The chance to observe a d_z of n pairs as large as this one when the true one is `margin`."""
    from scipy.stats import nct

    t, shift = d * np.sqrt(n), margin * np.sqrt(n)
    if abs(t - shift) > 8 * np.sqrt(1 + t * t / (2 * (n - 1))):  # where nct is not computable, and is 0 or 1
        return float(t < shift)
    return float(nct.sf(t, n - 1, shift))


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The mean of a - b with a percentile interval from resampled speakers. Raises ValueError on unequal lengths."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}: these are no pairs")
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return cluster_bootstrap_mean(difference, clusters, resamples=resamples, level=level, seed=seed)


@dataclass(frozen=True)
class McNemar:
    """Failures that only one of two systems has, and p-values of the hypothesis that both fail equally often.

    exact: binomial, conservative; mid_p: what the tables report (Fagerland, Lydersen and Laake, 2013); asymptotic:
    chi-squared without continuity correction.
    """

    only_first: int
    only_second: int
    n: int
    exact: float
    mid_p: float
    asymptotic: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's test of paired failures; first, second: (n,) of bool, in the same order. All p are 1 without discord.

    Raises ValueError on unequal lengths, no pair, or values that are not 0 or 1.
    """
    from scipy.stats import binom
    from statsmodels.stats.contingency_tables import mcnemar as test

    sides = [np.asarray(side, dtype=float) for side in (first, second)]
    if sides[0].shape != sides[1].shape or not sides[0].size:
        raise ValueError(f"{sides[0].size} outcomes against {sides[1].size}: these are no pairs")
    if not np.isin(np.concatenate(sides), (0.0, 1.0)).all():
        raise ValueError("an outcome is neither 0 nor 1; take one seed per utterance")
    one, other = (side.astype(bool) for side in sides)
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    if not b + c:
        return McNemar(0, 0, len(one), 1.0, 1.0, 1.0)
    table = [[int((one & other).sum()), b], [c, int((~one & ~other).sum())]]
    exact = float(test(table, exact=True).pvalue)
    point = float(binom.pmf(min(b, c), b + c, 0.5))
    mid_p = 1 - point / 2 if b == c else exact - point
    return McNemar(b, c, len(one), exact, mid_p, float(test(table, exact=False, correction=False).pvalue))


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values of one table, (n,); what was not tested (NaN) stays NaN and does not count.

    Raises ValueError on a p outside 0..1.
    """
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=float)
    known = ~np.isnan(p)
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError("a p-value lies outside 0 to 1")
    adjusted = np.full(p.shape, np.nan)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted


def power(d: float, n: int, alpha: float = ALPHA) -> float:
    """The chance that a two-sided paired t-test on n pairs shows a true effect d_z. Raises ValueError on n below 2."""
    from statsmodels.stats.power import TTestPower

    if n < 2:
        raise ValueError(f"{n} pairs: a paired t-test needs two")
    return float(TTestPower().power(abs(d), n, alpha))


def detectable(n: int, power: float = 0.8, alpha: float = ALPHA) -> float:
    """The smallest true d_z that a two-sided paired t-test on n pairs shows with this power: 0.199 for n = 200.

    Raises ValueError on n below 2 or a power that is not between alpha and 1.
    """
    from statsmodels.stats.power import TTestPower

    if n < 2 or not alpha < power < 1:
        raise ValueError(
            f"n = {n}, power = {power}: give two pairs or more, and a power between {alpha} and 1"
        )
    return float(np.squeeze(TTestPower().solve_power(nobs=n, power=power, alpha=alpha)))


def _pairs(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    """The differences a - b; what rounding of the values leaves of a difference of nothing is zero."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"{a.size} values against {b.size}: a paired test needs two pairs or more")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a value is not finite; leave such pairs out and say how many")
    rounding = ROUNDING * np.maximum(np.abs(a), np.abs(b))
    return np.where(np.abs(a - b) <= rounding, 0.0, a - b)


def _is_uniform(difference: np.ndarray) -> bool:
    return bool(difference.any()) and np.ptp(difference) <= UNIFORM * np.abs(difference).max()


def _differences(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    difference = _pairs(a, b)
    if _is_uniform(difference):
        raise ValueError(
            f"all {len(difference)} differences are {difference[0]:g}: without variation there is no test"
        )
    return difference
