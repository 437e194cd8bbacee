"""Two systems on the same utterances, metric by metric: what an ablation table holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pvlib.metrics.cfr import catastrophic
from pvlib.study.statistics import (
    Interval,
    cohens_d,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_test,
    uniform,
    wilcoxon,
)

LEAST = 6  # pairs below which no verdict is drawn: of five, even the signed-rank test can never reach 0.05
LAST_DIGIT = 1.5e-6  # a unit of the sixth digit, which is the last that rows keep
COLUMNS = (
    "metric",
    "one",
    "other",
    "n",
    "speakers",
    "left_out",
    "mean_one",
    "mean_other",
    "difference",
    "low",
    "high",
    "spread",
    "test",
    "p",
    "p_wilcoxon",
    "d",
    "d_low",
    "d_high",
    "p_holm",
)


def apart(one: pd.DataFrame, other: pd.DataFrame) -> np.ndarray:
    """Which rows of two systems differ in the words heard or in a similarity: (n,) of bool, for frames indexed alike.

    Rows keep six digits, and the company of a batch can turn the last one: a unit of it is no difference. Rows that
    failed on both sides are alike.
    """
    judged = ["wer", "secs_ecapa_clip", "secs_ge2e_clip"]
    close = np.isclose(one[judged], other[judged], rtol=0, atol=LAST_DIGIT, equal_nan=True).all(axis=1)
    words = [side["hypothesis"].fillna("").to_numpy() for side in (one, other)]
    return ~close | (words[0] != words[1])


def aligned(one: pd.DataFrame, other: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of two systems side by side: columns utterance, speaker, bucket, one, other; failed values are NaN.

    one, other: rows of one system each. metric: a column of rows, or `cfr` for catastrophic failures. Seeds of one
    utterance are averaged first: they are no independent samples.
    Raises ValueError naming the first utterance that only one of the two has.
    """
    keys = ["utterance", "speaker", "bucket"]
    names, sides = [], []
    for rows in (one, other):
        if rows.empty:
            raise ValueError("a side without rows cannot be compared; run `pvlib evaluate` for it")
        if metric != "cfr" and metric not in rows:
            raise ValueError(f"rows have no metric {metric!r}")
        values = catastrophic(rows["wer"]).astype(float) if metric == "cfr" else rows[metric]
        sides.append(rows[keys].assign(value=values).groupby(keys)["value"].mean())
        names.append(rows["system"].iloc[0])
    for side, there, here, absent in zip(sides, sides[::-1], names, names[::-1], strict=True):
        if len(lost := side.index.difference(there.index)):
            raise ValueError(
                f"{here} has {lost[0][0]} ({len(lost)} such), {absent} has not; evaluate both on the same sample"
            )
    return pd.concat(sides, axis=1, keys=["one", "other"]).reset_index()


def differing(one: pd.DataFrame, other: pd.DataFrame, pairs: pd.DataFrame) -> int:
    """How many pairs are not the same sound; what they share only dilutes a difference.

    one, other: rows of one system each, of the same utterances and seeds. pairs: those to count, of `aligned`.
    """
    one, other = (side.set_index(["utterance", "seed"]).sort_index() for side in (one, other))
    utterances = one.index.get_level_values("utterance")[apart(one, other)]
    return int(pairs["utterance"].isin(utterances).sum())


def paired_line(one: pd.DataFrame, other: pd.DataFrame, metric: str) -> dict[str, Any]:
    """What `paired_table` says of one metric of two systems: `COLUMNS` without `p_holm`.

    Where all pairs differ by the same amount, and it is not zero, d is not defined (NaN) and the test is Wilcoxon's; a
    difference of zero everywhere is no difference (d = 0, p = 1). Raises ValueError as `paired_table`.
    """
    both = aligned(one, other, metric)
    pairs = both.dropna(subset=["one", "other"])
    a, b = pairs["one"].to_numpy(), pairs["other"].to_numpy()
    test, interval = paired_test(a, b), paired_bootstrap(a, b, pairs["speaker"])
    no_effect_size = Interval(np.nan, np.nan, np.nan, len(pairs), len(pairs))
    d = no_effect_size if uniform(a, b) else cohens_d(a, b)
    name, p = test.name, test.p
    if metric == "cfr" and np.isin(np.concatenate([a, b]), (0, 1)).all():
        name, p = "McNemar", mcnemar(a, b).mid_p
    return {
        "metric": metric,
        "one": one["system"].iloc[0],
        "other": other["system"].iloc[0],
        "n": len(pairs),
        "speakers": interval.clusters,
        "left_out": len(both) - len(pairs),
        "mean_one": a.mean(),
        "mean_other": b.mean(),
        "difference": interval.value,
        "low": interval.low,
        "high": interval.high,
        "spread": float(np.std(a - b, ddof=1)),
        "test": name,
        "p": p,
        "p_wilcoxon": wilcoxon(a, b).p,
        "d": d.value,
        "d_low": d.low,
        "d_high": d.high,
    }


def paired_table(rows: pd.DataFrame, one: str, others: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """One system against others, a line per system and metric: columns as `COLUMNS`.

    rows: of one stratum, as `evaluate` returns them. difference: one - other, with an interval from resampled
    speakers; spread: the standard deviation of the differences. test: "paired t", or "McNemar" (mid-p) for `cfr`;
    where an utterance has several seeds, its failure rate is compared by the paired t-test; "Wilcoxon" where all pairs
    differ by the same amount. d: d_z. p_holm: Holm over the whole table. left_out: pairs without a value on either
    side. Raises ValueError as `aligned` and the tests do.
    """
    own = rows[rows["system"] == one]
    lines = [
        paired_line(own, rows[rows["system"] == other], metric) for other in others for metric in metrics
    ]
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    return table.assign(p_holm=holm(table["p"]))
