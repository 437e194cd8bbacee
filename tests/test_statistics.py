"""Paired tests, effect sizes, corrections and modes against published examples and second implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from pvlib.study import modality, pairs
from pvlib.study import statistics as stats

# Student (1908), hours of sleep gained under two drugs, as in R's data set `sleep`
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Lakens (2013), table 1: ten viewers rate two films
FILM_1 = [9, 7, 8, 9, 8, 9, 9, 10, 9, 9]
FILM_2 = [9, 6, 7, 8, 7, 9, 8, 8, 8, 7]
# silica in 22 chondrite meteorites, per cent (Good and Gaskins, 1980)
SILICA = [20.77, 22.56, 22.71, 22.99, 26.39, 27.08, 27.32, 27.33, 27.57, 27.81, 28.69]
SILICA += [29.36, 30.25, 31.89, 32.88, 33.23, 33.28, 33.40, 33.52, 33.83, 33.95, 34.82]


def test_paired_t_on_students_sleep():
    found = stats.paired_t(FIRST, SECOND)
    assert found.n == 10 and found.statistic == pytest.approx(-4.0621, abs=5e-5)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    theirs = scipy.stats.ttest_rel(FIRST, SECOND)
    assert (found.statistic, found.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-12)


def test_wilcoxon_on_darwins_maize():
    """Height differences of crossed and self-fertilised plants (Darwin, 1876): 24 and 0.041."""
    heights = np.array([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75])
    found = stats.wilcoxon(heights, np.zeros(15))
    assert (found.statistic, found.n) == (24, 15) and found.p == pytest.approx(0.0413, abs=5e-5)


def test_pairs_without_a_difference_are_ranked():
    """Pratt: zeros take the lowest ranks and are then left out of both sums."""
    a = np.array([0.0, 0, 0, 1, -2, 3, 4, 5, 6, 7])
    ranks = scipy.stats.rankdata(np.abs(a))
    assert stats.wilcoxon(a, np.zeros(10)).statistic == min(ranks[a > 0].sum(), ranks[a < 0].sum())


@pytest.mark.parametrize("n", [13, 14])
def test_a_few_pairs_with_ties_and_zeros_are_tested_over_all_signs(n):
    a = np.array([1.0, 1, -1, 2, 0, 3, 3, 0, 1, 2, -2, 4, 4, 5])[:n]
    ranks = np.where(a != 0, scipy.stats.rankdata(np.abs(a)), 0)
    found = stats.wilcoxon(a, np.zeros(n))
    sums = np.array(list(itertools.product((0, 1), repeat=n))) @ ranks
    over_all = np.mean(np.minimum(sums, ranks.sum() - sums) <= found.statistic)
    assert (found.p == pytest.approx(over_all, abs=1e-12)) == (n <= 13)


def test_effect_sizes_of_lakens():
    assert stats.paired_t(FILM_1, FILM_2).statistic == pytest.approx(4.74, abs=0.005)
    assert stats.cohens_d(FILM_1, FILM_2).value == pytest.approx(1.50, abs=0.005)
    assert stats.cohens_d(FILM_1, FILM_2, "d_av").value == pytest.approx(1.13, abs=0.005)


def test_the_interval_of_d_on_students_sleep():
    """The R package effectsize documents -1.28 [-2.12, -0.41] for these data."""
    d = stats.cohens_d(FIRST, SECOND)
    assert (d.value, d.low, d.high) == pytest.approx((-1.28, -2.12, -0.41), abs=0.005)
    t, root = stats.paired_t(FIRST, SECOND).statistic, np.sqrt(10)
    assert scipy.stats.nct.sf(t, 9, d.low * root) == pytest.approx(0.025, abs=1e-9)
    assert scipy.stats.nct.cdf(t, 9, d.high * root) == pytest.approx(0.025, abs=1e-9)


def test_the_interval_of_d_av_is_that_of_d_z_on_another_scale():
    """Algina and Keselman (2003): ends of the noncentrality times sqrt(2 s_d^2 / (n (s_1^2 + s_2^2)))."""
    d_z, d_av = stats.cohens_d(FIRST, SECOND), stats.cohens_d(FIRST, SECOND, "d_av")
    spread = np.var(np.subtract(FIRST, SECOND), ddof=1)
    scale = np.sqrt(2 * spread / (np.var(FIRST, ddof=1) + np.var(SECOND, ddof=1)))
    assert (d_av.value, d_av.low, d_av.high) == pytest.approx(
        (d_z.value * scale, d_z.low * scale, d_z.high * scale)
    )


def test_no_difference_at_all_is_no_effect():
    assert stats.paired_t(FIRST, FIRST).p == stats.wilcoxon(FIRST, FIRST).p == 1
    d = stats.cohens_d(FIRST, FIRST)
    assert (
        d.value == 0
        and d.low == pytest.approx(-d.high)
        and d.high == pytest.approx(1.96 / np.sqrt(10), abs=1e-3)
    )


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0], [2.0], "two pairs"),
        ([1.0, 2.0], [1.0], "two pairs"),
        ([1.0, np.nan], [1.0, 2.0], "not finite"),
    ],
)
def test_what_cannot_be_tested_is_refused(a, b, message):
    for test in (stats.paired_t, stats.wilcoxon, stats.cohens_d):
        with pytest.raises(ValueError, match=message):
            test(a, b)
    with pytest.raises(ValueError, match="no effect size"):
        stats.cohens_d(FIRST, SECOND, "d_rm")


@pytest.mark.parametrize("shift", [1.0, 0.1, -1e-6])
def test_the_same_difference_everywhere_is_tested_by_ranks_and_has_no_effect_size(shift):
    """All signs are alike, which a fair coin does in 2 of 2^n cases; scipy has the same without ties."""
    a = np.linspace(0.2, 0.7, 8)
    b = a - shift
    assert stats.uniform(a, b) and not stats.uniform(a, a) and not stats.uniform(a, a + a)
    for test in (stats.wilcoxon(a, b), stats.paired_test(a, b)):
        assert (test.name, test.p) == ("Wilcoxon", 2 / 2**8)
    assert scipy.stats.wilcoxon(np.arange(1.0, 9.0)).pvalue == 2 / 2**8
    assert stats.paired_test(FIRST, SECOND) == stats.paired_t(FIRST, SECOND)
    for test in (stats.paired_t, stats.cohens_d):
        with pytest.raises(ValueError, match="without variation"):
            test(a, b)


def test_what_rounding_leaves_is_no_difference():
    a = np.full(6, 0.1 + 0.2)
    assert stats.paired_test(a, np.full(6, 0.3)).p == 1 and stats.cohens_d(a, np.full(6, 0.3)).value == 0


@pytest.mark.parametrize("margin", [0.2, 0.4, 0.6])
def test_equivalence_agrees_with_the_ninety_per_cent_interval(margin):
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.1, 0.3):
        a, b = rng.normal(shift, 1, 100), rng.normal(0, 1, 100)
        d = stats.cohens_d(a, b, level=0.9)
        assert (stats.equivalence(a, b, margin).p < 0.05) == (-margin < d.low and d.high < margin)
    with pytest.raises(ValueError, match="positive"):
        stats.equivalence(a, b, 0)


def test_tails_of_effects_far_out():
    assert stats.effect_tail(0.3, 100, 0.2) == scipy.stats.nct.sf(3, 99, 2)
    assert stats.effect_tail(2.0, 200, 0.1) == 0 and stats.effect_tail(-2.0, 200, 0.1) == 1
    rng = np.random.default_rng(0)
    a, b = rng.normal(5, 0.1, 200), rng.normal(0, 0.1, 200)
    d = stats.cohens_d(a, b)
    assert d.low < d.value < d.high and stats.equivalence(a, b, 0.2).p == 1


def test_the_bootstrap_of_a_median_resamples_speakers():
    """With a value per speaker it is the plain bootstrap, which scipy can do itself; one wild value moves nothing."""
    values = np.random.default_rng(0).normal(size=41)
    found = stats.cluster_bootstrap_median(values, [str(k) for k in range(41)], resamples=20_000)
    theirs = scipy.stats.bootstrap((values,), np.median, n_resamples=20_000, method="percentile", rng=1)
    ends = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert found.value == np.median(values) and (found.n, found.clusters) == (41, 41)
    assert (found.low, found.high) == pytest.approx(ends, abs=0.05)
    wild = np.append(values, 1e6)
    assert stats.cluster_bootstrap_median(wild, [str(k) for k in range(42)]).high < 1
    alike = stats.cluster_bootstrap_median([1.0, 2.0, 3.0] * 2, ["a"] * 3 + ["b"] * 3)
    assert (alike.low, alike.high) == (2, 2)  # whole speakers are drawn, and both are the same
    for values, clusters, told in (
        ([1.0], ["a", "b"], "labels"),
        ([], [], "nothing to estimate"),
        ([np.nan], ["a"], "not finite"),
    ):
        with pytest.raises(ValueError, match=told):
            stats.cluster_bootstrap_median(values, clusters)


def test_a_target_is_settled_only_where_the_whole_interval_is_on_one_side():
    unsettled = " by the estimate, which its interval does not settle"
    for relation, sign in (("at least", 1), ("at most", -1)):
        for ends, told in {
            (3, 2, 4): "met",
            (2, 2, 4): "met",
            (3, 1, 4): "met" + unsettled,
            (1, 0, 3): "missed" + unsettled,
            (1, 0, 1.5): "missed",
        }.items():
            value, *interval = (sign * end for end in ends)
            assert stats.against_target(value, min(interval), max(interval), sign * 2, relation) == told
    with pytest.raises(ValueError, match="at least or at most"):
        stats.against_target(1, 0, 2, 1, "about")


def test_the_paired_bootstrap_is_that_of_the_differences():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 60), rng.normal(0, 1, 60)
    speakers = np.repeat([f"s{k}" for k in range(12)], 5)
    found = stats.paired_bootstrap(a, b, speakers, resamples=20_000)
    means = (a - b).reshape(12, 5).mean(axis=1)
    theirs = scipy.stats.bootstrap((means,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert found.value == pytest.approx((a - b).mean()) and found.clusters == 12
    ends = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=0.02)
    with pytest.raises(ValueError, match="no pairs"):
        stats.paired_bootstrap(a, b[:-1], speakers)


def test_the_interval_of_an_equal_error_rate_is_as_wide_as_new_speakers_make_it():
    """Many sets of speakers drawn anew scatter as the interval from one set says."""
    one, other = np.triu_indices(80, 1)
    worlds = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        speaker = np.repeat(np.arange(20), 4)
        voices = rng.normal(size=(20, 6))[speaker] + 0.8 * rng.normal(size=(80, 6))
        scores = -np.linalg.norm(voices[one] - voices[other], axis=1)
        sides = (speaker[one], speaker[other])
        worlds.append(stats.verification_error(scores, sides[0] == sides[1], sides, resamples=200))
    rates = np.array([world.value for world in worlds])
    widths = np.array([world.high - world.low for world in worlds])
    inside = np.mean([world.low <= rates.mean() <= world.high for world in worlds])
    assert worlds[0].n == len(one) and worlds[0].clusters == 20
    assert 0.75 < widths.mean() / (2 * 1.96 * rates.std(ddof=1)) < 1.4
    assert inside > 0.85


def test_without_both_kinds_of_trial_there_is_no_equal_error_rate():
    with pytest.raises(ValueError, match="both kinds of trial are needed"):
        stats.verification_error([0.1, 0.2], [True, True], (["a", "b"], ["a", "b"]))


def test_mcnemar_on_airway_responses_of_children():
    """Bentur et al. (2009) as tested by Fagerland, Lydersen and Laake (2013): 1, 1, 7 and 12 of 21 children."""
    before = [True] * 2 + [False] * 19
    after = [True, False] + [True] * 7 + [False] * 12
    found = stats.mcnemar(before, after)
    assert (found.only_first, found.only_second, found.n) == (1, 7, 21)
    assert (found.exact, found.mid_p, found.asymptotic) == pytest.approx((0.0703, 0.0391, 0.0339), abs=5e-5)


def test_mcnemar_equals_the_binomial_test():
    for b, c in ((3, 3), (0, 5), (12, 20)):
        first, second = [True] * b + [False] * c + [True], [False] * b + [True] * c + [True]
        found = stats.mcnemar(first, second)
        assert found.exact == pytest.approx(scipy.stats.binomtest(b, b + c).pvalue)
        point = scipy.stats.binom.pmf(b, b + c, 0.5)
        tail = scipy.stats.binom.cdf(min(b, c) - 1, b + c, 0.5)
        assert found.mid_p == pytest.approx(min(1 - point / 2, 2 * (tail + point / 2)))
    assert stats.mcnemar([True, False], [True, False]).mid_p == 1
    for first, second in (([], []), ([True], [True, False]), ([0.5], [1.0])):
        with pytest.raises(ValueError):
            stats.mcnemar(first, second)


def test_holm_by_hand():
    p = [0.01, 0.04, float("nan"), 0.03, 0.005]
    assert stats.holm(p) == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    assert np.isnan(stats.holm([float("nan")])).all()
    with pytest.raises(ValueError, match="outside"):
        stats.holm([0.5, 1.2])


def test_power_of_the_papers_two_hundred_utterances():
    """G*Power: 34 pairs show d_z = 0.5 with power 0.808. With 200, d = 0.1 is found in three runs of ten."""
    assert stats.power(0.5, 34) == pytest.approx(0.8078, abs=5e-5)
    edge = scipy.stats.t.ppf(0.975, 199)
    for d in (0.1, 0.2):
        by_hand = scipy.stats.nct.sf(edge, 199, d * np.sqrt(200)) + scipy.stats.nct.cdf(
            -edge, 199, d * np.sqrt(200)
        )
        assert stats.power(d, 200) == stats.power(-d, 200) == pytest.approx(by_hand, abs=1e-6)
    assert 0.28 < stats.power(0.1, 200) < 0.3
    assert stats.power(stats.detectable(200), 200) == pytest.approx(0.8, abs=1e-5)
    assert stats.detectable(200) == pytest.approx(0.199, abs=5e-4)
    for n, wanted in ((1, 0.8), (200, 1.0), (200, 0.01)):
        with pytest.raises(ValueError):
            stats.detectable(n, wanted)
    with pytest.raises(ValueError):
        stats.power(0.1, 1)


# One heap or two


def test_the_coefficient_of_bimodality_uses_unbiased_moments():
    for values in (SILICA, np.random.default_rng(0).exponential(size=50)):
        series, n = pd.Series(values), len(values)
        tails = series.kurt() + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
        assert modality.bimodality_coefficient(values) == pytest.approx((series.skew() ** 2 + 1) / tails)
    even = np.linspace(0, 1, 5000)
    assert modality.bimodality_coefficient(even) == pytest.approx(modality.TWO_MODES, abs=1e-3)


def test_critical_bandwidths():
    """Two equal heaps blend when the bandwidth is half their distance; 2.39 is Silverman's own (1981)."""
    assert modality.critical_bandwidth(np.repeat([0.0, 1.0], 11)) == pytest.approx(0.5, rel=0.01)
    assert modality.critical_bandwidth(np.array(SILICA)) == pytest.approx(2.39, abs=0.01)
    assert len(modality.kernel_modes(np.array(SILICA), 2.0)) == 2


def test_modes_equal_those_of_scipys_density():
    x = np.random.default_rng(1).normal(size=40)
    for width in (0.1, 0.2, 0.4):
        grid = np.linspace(x.min() - 1, x.max() + 1, 4000)
        density = scipy.stats.gaussian_kde(x, bw_method=width / x.std(ddof=1))(grid)
        tops = grid[1:-1][(density[1:-1] > density[:-2]) & (density[1:-1] > density[2:])]
        assert modality.kernel_modes(x, width) == pytest.approx(list(tops), abs=width / 2)


def test_two_heaps_are_told_from_one():
    broken = [0.0] * 5 + [0.25, 0.5, 0.5, 0.75] + [1.0] * 13  # like the paper's 22 ultra-short texts
    found = modality.bimodality(broken)
    assert found.n == 22 and found.coefficient > modality.TWO_MODES and found.p < 0.05
    assert len(found.modes) == 2 and found.modes[0] < 0.3 and found.modes[1] > 0.7
    slope = np.linspace(0, 1, 40) ** 3  # one heap at zero with a long tail: skewed, but one mode
    assert modality.bimodality(slope).p > 0.05
    rng = np.random.default_rng(5)
    small = [modality.bimodality(rng.normal(size=22), resamples=99).p < 0.05 for _ in range(40)]
    assert sum(small) <= 4
    for values in ([1.0, 1.0, 1.0, 1.0], [0.0, 1.0], [0.0, 1.0, np.nan, 0.5]):
        with pytest.raises(ValueError):
            modality.bimodality(values)


@pytest.mark.parametrize(
    ("perfect", "between", "broken", "heap", "two"),
    [
        (5, 4, 13, True, True),
        (105, 43, 2, False, False),
        (148, 0, 2, False, False),
        (64, 56, 30, True, False),
    ],
)
def test_a_heap_is_a_tenth_of_all_and_two_have_fewer_between(perfect, between, broken, heap, two):
    at = modality.ends([0.0] * perfect + [0.8] * between + [1.0] * broken)
    assert (at.perfect, at.between, at.broken) == (perfect, between, broken)
    assert (at.heap, at.two) == (heap, two)


def test_the_smallest_p_of_two_heaps_outlives_a_family_of_tests():
    apart = np.repeat([0.0, 1.0], 11) + np.linspace(0, 0.01, 22)
    found = modality.bimodality(apart)
    assert found.p == 1 / (modality.RESAMPLES + 1) <= 0.0002
    assert stats.holm([found.p, *[0.5] * 199])[0] < stats.ALPHA


# Two systems in one table


def rows_of(system: str, wer, secs, seed: int = 0) -> pd.DataFrame:
    """Rows as `evaluate` makes them, as far as a comparison reads them: five utterances a speaker."""
    lines = [
        (
            system,
            f"u{k:03}",
            f"s{k // 5}",
            "long",
            seed,
            rate,
            min(rate, 1),
            value,
            "" if value == value else "broken",
        )
        for k, (rate, value) in enumerate(zip(wer, secs))
    ]
    columns = [
        "system",
        "utterance",
        "speaker",
        "bucket",
        "seed",
        "wer",
        "wer_capped",
        "secs_ecapa_clip",
        "error",
    ]
    return pd.DataFrame(lines, columns=columns)


def test_a_table_of_pairs():
    rng = np.random.default_rng(2)
    base = rng.uniform(0.2, 0.8, 60)
    full = rows_of("full", base, rng.normal(0.6, 0.05, 60))
    worse = rows_of("worse", base + rng.uniform(0.2, 0.5, 60), rng.normal(0.5, 0.05, 60))
    worse.loc[7, ["wer", "wer_capped", "secs_ecapa_clip"]] = (1.0, 1.0, np.nan)
    same = rows_of("same", base, full["secs_ecapa_clip"])
    table = pairs.paired_table(
        pd.concat([full, worse, same]), "full", ["worse", "same"], ["wer", "secs_ecapa_clip", "cfr"]
    )
    assert list(table.columns) == list(pairs.COLUMNS) and len(table) == 6
    table = table.set_index(["other", "metric"])
    line = table.loc[("worse", "secs_ecapa_clip")]
    a, b = full["secs_ecapa_clip"].drop(7), worse["secs_ecapa_clip"].drop(7)
    assert (line["n"], line["left_out"], line["speakers"]) == (59, 1, 12)
    assert line["p"] == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    assert (
        line["difference"] == pytest.approx((a - b).mean()) and line["low"] > 0 and line["test"] == "paired t"
    )
    assert line["d"] == pytest.approx((a - b).mean() / (a - b).std())
    failed = table.loc[("worse", "cfr")]
    assert failed["test"] == "McNemar"
    assert failed["p"] == stats.mcnemar(full["wer"] > 0.5, worse["wer"] > 0.5).mid_p
    assert failed["difference"] == pytest.approx((full["wer"] > 0.5).mean() - (worse["wer"] > 0.5).mean())
    assert (table.loc["same"]["p"] == 1).all() and (table.loc["same"]["d"] == 0).all()
    assert list(table["p_holm"]) == pytest.approx(list(stats.holm(table["p"])))


def test_seeds_of_an_utterance_are_no_independent_samples():
    rng = np.random.default_rng(4)
    runs = [rows_of("many", rng.uniform(0, 1, 20), rng.normal(0.6, 0.1, 20), seed) for seed in range(3)]
    one = rows_of("once", rng.uniform(0, 1, 20), rng.normal(0.6, 0.1, 20))
    both = pairs.aligned(pd.concat(runs), one, "wer")
    assert len(both) == 20
    assert both["one"].to_numpy() == pytest.approx(np.mean([run["wer"] for run in runs], axis=0))
    table = pairs.paired_table(pd.concat([*runs, one]), "many", ["once"], ["cfr"])
    assert table.loc[0, "test"] == "paired t" and table.loc[0, "n"] == 20


def test_truncated_rows_are_named():
    full = rows_of("full", np.linspace(0, 1, 20), np.linspace(0.4, 0.6, 20))
    other = full.assign(system="other")
    with pytest.raises(ValueError, match=r"full has u003 \(1 such\), other has not"):
        pairs.aligned(full, other.drop(3), "wer")
    with pytest.raises(ValueError, match=r"other has u003"):
        pairs.aligned(full.drop(3), other, "wer")
    with pytest.raises(ValueError, match="full has u000"):  # the same name for another speaker's utterance
        pairs.aligned(full, other.assign(speaker="s9"), "wer")
    with pytest.raises(ValueError, match="without rows"):
        pairs.aligned(full, other.iloc[:0], "wer")
    with pytest.raises(ValueError, match="no metric"):
        pairs.aligned(full, other, "loudness")
