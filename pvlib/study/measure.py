"""From rows to measurements: every metric in every stratum for every system, with intervals. No formatting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pvlib.config import Inference
from pvlib.metrics import wer as word_errors
from pvlib.metrics.cfr import catastrophic
from pvlib.metrics.secs import retention
from pvlib.study.rows import PROXIES
from pvlib.study.statistics import RESAMPLES, Interval, cluster_bootstrap, cluster_bootstrap_mean, wilson

STRATA: dict[str, tuple[str, ...]] = {
    "overall": ("ultra-short", "short", "long"),
    "long": ("long",),
    "short": ("ultra-short", "short"),  # the paper's: at most 8 words
    "ultra-short": ("ultra-short",),
    "5-8 words": ("short",),
}
CHUNKS = {"several-chunk": True, "one-chunk": False}  # strata of what LAAG cuts, and of what it does not
MEANS = (
    "secs_ecapa_clip",
    "secs_ecapa_speaker",
    "secs_ge2e_clip",
    "secs_ge2e_speaker",
    "wer",
    "wer_capped",
    "dnsmos",
)
RETENTION_ON = "secs_ge2e_speaker"
METRICS = (*MEANS, "wer_corpus", "cfr", "secs_retention")  # of any profile; `PROXIES` of those that name them
COLUMNS = ("metric", "stratum", "system", "value", "low", "high", "n", "failures")


def of_several_words(rows: pd.DataFrame, stratum: str) -> pd.DataFrame:
    """Rows of a stratum without the texts of one word, which are right or wrong: nothing can lie between."""
    own = in_stratum(rows, stratum)
    return own[own["words"] > 1]


def in_stratum(rows: pd.DataFrame, stratum: str) -> pd.DataFrame:
    """The rows whose bucket, or length against the paper's chunks, is of a stratum. Raises ValueError on another."""
    if stratum in CHUNKS:
        return rows[(rows["text"].str.len() > Inference().laag_chunk_max_chars) == CHUNKS[stratum]]
    if stratum not in STRATA:
        raise ValueError(f"no stratum {stratum!r}: choose one of {', '.join((*STRATA, *CHUNKS))}")
    return rows[rows["bucket"].isin(STRATA[stratum])]


def measure(
    rows: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    strata: Sequence[str] = tuple(STRATA),
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """All metrics of all systems in all strata, one line each: columns as `COLUMNS`.

    metrics: by default `METRICS`, and those of the `PROXIES` that the rows have.
    Intervals are 95 %: a bootstrap over speakers, for `cfr` Wilson's. Failed rows count as WER 1 and as
    catastrophic, are left out of similarities and sound quality, and are counted in `failures`; n is the number of
    rows used. A metric without a value (no row of the stratum, no enrolment, no controls for `secs_retention`) is
    NaN with n = 0.
    Retention is (mean - impostor) / (ground truth - impostor) of SECS by GE2E against the speaker's other speech.
    """
    metrics = (*METRICS, *(name for name in PROXIES if name in rows)) if metrics is None else metrics
    if unknown := set(metrics) - {*METRICS, *PROXIES}:
        there = ", ".join((*METRICS, *PROXIES))
        raise ValueError(f"no metric {', '.join(sorted(unknown))}; there are {there}")
    rows = rows.reset_index(drop=True)
    counts = [word_errors.count(r.text, r.hypothesis) for r in rows.itertuples()]
    rows = rows.assign(_errors=[c[0] for c in counts], _words=[c[1] for c in counts])
    options = {"resamples": resamples, "seed": seed}
    table = []
    for stratum in strata:
        own = in_stratum(rows, stratum)
        for system in dict.fromkeys(rows["system"]):
            part = own[own["system"] == system]
            for metric in metrics:
                interval = _interval(metric, part, own, options)
                failures = int((part["error"] != "").sum())
                values = (
                    (interval.value, interval.low, interval.high, interval.n)
                    if interval
                    else (np.nan, np.nan, np.nan, 0)
                )
                table.append((metric, stratum, system, *values, failures))
    return pd.DataFrame(table, columns=list(COLUMNS))


def lookup(measured: pd.DataFrame, metric: str, stratum: str, system: str) -> pd.Series | None:
    """One line of a table of measurements, or None where it was not measured."""
    found = measured[
        (measured["metric"] == metric) & (measured["stratum"] == stratum) & (measured["system"] == system)
    ]
    return None if found.empty or not found.iloc[0]["n"] else found.iloc[0]


def _interval(
    metric: str, part: pd.DataFrame, stratum: pd.DataFrame, options: dict[str, int]
) -> Interval | None:
    if metric in PROXIES and metric not in part:
        return None
    if metric in (*MEANS, *PROXIES):
        heard = part[part[metric].notna()]
        if heard.empty:
            return None
        return cluster_bootstrap_mean(heard[metric], heard["speaker"], **options)
    if part.empty:
        return None
    if metric == "wer_corpus":
        totals = [part["_errors"], part["_words"]]
        return cluster_bootstrap(lambda errors, words: errors / words, totals, part["speaker"], **options)
    if metric == "cfr":
        failed = int(catastrophic(part["wer"]).sum())
        low, high = wilson(failed, len(part))
        return Interval(failed / len(part), low, high, len(part), part["speaker"].nunique())
    return _retention(part, stratum, options)


def _retention(part: pd.DataFrame, stratum: pd.DataFrame, options: dict[str, int]) -> Interval | None:
    """System, impostor and ground truth are resampled together, speaker by speaker."""
    frames = [part, *(stratum[stratum["system"] == name] for name in ("impostor", "ground-truth"))]
    frames = [frame[frame[RETENTION_ON].notna()] for frame in frames]
    if any(frame.empty for frame in frames):
        return None
    owner = np.concatenate([np.full(len(frame), index) for index, frame in enumerate(frames)])
    values = np.concatenate([frame[RETENTION_ON] for frame in frames])
    totals = [column * (owner == index) for index in range(3) for column in (values, np.ones_like(values))]
    speakers = pd.concat([frame["speaker"] for frame in frames])

    def statistic(s: np.ndarray, n: np.ndarray, *controls: np.ndarray) -> np.ndarray:
        impostor, truth = controls[0] / controls[1], controls[2] / controls[3]
        return (s / n - impostor) / (truth - impostor)

    interval = cluster_bootstrap(statistic, totals, speakers, **options)
    value = retention(*(frame[RETENTION_ON].mean() for frame in frames))
    return Interval(value, interval.low, interval.high, len(frames[0]), interval.clusters)
