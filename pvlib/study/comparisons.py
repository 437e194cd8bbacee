"""Systems against each other on the same utterances, and the paper's orderings put to the test.

A difference is called shown only when its 95 % interval, from resampled speakers, excludes zero, and never on fewer
than `pairs.LEAST` utterances; a table of differences is corrected for their number as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pvlib.metrics.cfr import catastrophic
from pvlib.study import paper, statistics
from pvlib.study.measure import in_stratum
from pvlib.study.pairs import LEAST, paired_line
from pvlib.study.statistics import Interval, cluster_bootstrap, cluster_bootstrap_mean

NAMES = {
    "wer_capped": "word error rate (capped at 1)",
    "wer": "word error rate (uncapped)",
    "secs_ecapa_clip": "SECS (ECAPA, against the clip)",
    "secs_ecapa_speaker": "SECS (ECAPA, against the speaker's other speech)",
    "secs_ge2e_clip": "SECS (GE2E, against the clip)",
    "secs_ge2e_speaker": "SECS (GE2E, against the speaker's other speech)",
    "dnsmos": "DNSMOS",
    "cfr": "catastrophic failure rate",
    "wer_rest": "word error rate without the first word (capped at 1)",
    "first_lost": "share of wrong first words",
}


def difference(rows: pd.DataFrame, metric: str, one: str, other: str, stratum: str = "overall") -> Interval:
    """Mean of (one - other) over the utterances that both have, with an interval over speakers.

    metric: a column of rows, or `cfr` for catastrophic failures. Raises ValueError when they share no utterance with a
    value.
    """
    rows = rows.assign(cfr=catastrophic(rows["wer"]).astype(float)) if metric == "cfr" else rows
    own = in_stratum(rows, stratum)
    sides = [
        own.loc[own["system"] == name, ["utterance", "speaker", metric]].dropna(subset=[metric])
        for name in (one, other)
    ]
    both = sides[0].merge(sides[1][["utterance", metric]], on="utterance", suffixes=("", "_other"))
    if both.empty:
        raise ValueError(f"{one} and {other} share no {stratum} utterance with a value of {metric}")
    return cluster_bootstrap_mean(both[metric] - both[f"{metric}_other"], both["speaker"])


class TooFewError(ValueError):
    """Fewer than `LEAST` utterances of a stratum have a value; n: how many have."""

    def __init__(self, n: int, stratum: str, metric: str):
        super().__init__(f"{n} {stratum} {many(n, 'utterance')} with a value of {metric}: {LEAST} are needed")
        self.n, self.stratum = n, stratum


def contrast(rows: pd.DataFrame, metric: str, first: str, second: str) -> Interval:
    """Mean on `first` texts minus mean on `second` ones, of one system, with an interval over speakers.

    The utterances differ, so nothing is paired but speakers. metric: a column of rows, or `cfr`. Raises TooFewError
    where a side has fewer than `LEAST` utterances with a value, ValueError on an unknown stratum.
    """
    rows = rows.reset_index(drop=True)
    values = np.asarray(catastrophic(rows["wer"]) if metric == "cfr" else rows[metric], dtype=float)
    heard, totals = np.isfinite(values), []
    for stratum in (first, second):
        side = rows.index.isin(in_stratum(rows, stratum).index) & heard
        if (n := rows["utterance"][side].nunique()) < LEAST:
            raise TooFewError(n, stratum, metric)
        totals += [np.where(side, values, 0.0), side.astype(float)]
    return cluster_bootstrap(lambda s, n, t, m: s / n - t / m, totals, rows["speaker"])


def compare(rows: pd.DataFrame, metric: str, one: str, other: str, stratum: str = "overall") -> str:
    """One sentence: how much a metric differs between two systems on the same utterances, and whether it is shown."""
    try:
        found = difference(rows, metric, one, other, stratum)
    except ValueError as error:
        return f"Not measured: {error}."
    where = "" if stratum == "overall" else f" on {stratum} texts"
    word = "higher" if found.value > 0 else "lower" if found.value < 0 else "apart"
    low, high = sorted((abs(found.low), abs(found.high)))
    base = f"`{one}` against `{other}`{where}, {NAMES[metric]}: {abs(found.value):.3f} {word}"
    size = f"{found.n} {many(found.n, 'utterance')}, {found.clusters} {many(found.clusters, 'speaker')}"
    if found.n < LEAST:
        return f"{base} ({size}). Too few to tell: **no difference is shown**."
    if found.low <= 0 <= found.high:
        ends = f"95 % interval {found.low:+.3f} to {found.high:+.3f}"
        return f"{base} ({ends}; {size}). The interval contains zero: **no difference is shown**."
    return f"{base} (95 % interval {low:.3f} to {high:.3f} {word}; {size}). **The difference is shown.**"


def _printed(entries: pd.DataFrame, other: str) -> str:
    """The pipeline's entry minus that of another system, a tilde in front where one is the paper's estimate."""
    if not {"personavoice", other} <= set(entries.index):
        return "-"
    one, two = entries.loc["personavoice"], entries.loc[other]
    return f"{'~' * bool(one['estimated'] or two['estimated'])}{one['value'] - two['value']:+.3f}"


def patterns(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's orderings that can be asked of this table, with the measured answer: one line each.

    The paper's difference is "-" where it prints none, and has a tilde where one of its entries is an estimate. A
    pattern holds when the measured difference has the paper's sign, its interval excludes zero, and its paired test
    survives Holm's correction over this table.
    """
    asked = [
        ("closer clones than F5-TTS as published", "secs_ecapa_clip", "overall", "f5-as-published", 1),
        ("fewer word errors than F5-TTS as published", "wer_capped", "overall", "f5-as-published", -1),
        (
            "fewer word errors on long texts than F5-TTS as published",
            "wer_capped",
            "long",
            "f5-as-published",
            -1,
        ),
        (
            "closer clones than F5-TTS with the clip's transcript",
            "secs_ecapa_clip",
            "overall",
            "f5-official",
            1,
        ),
        (
            "fewer word errors than F5-TTS with the clip's transcript",
            "wer_capped",
            "overall",
            "f5-official",
            -1,
        ),
        ("fewer catastrophic failures than F5-TTS as published", "cfr", "overall", "f5-as-published", -1),
        (
            "fewer catastrophic failures than F5-TTS with the clip's transcript",
            "cfr",
            "overall",
            "f5-official",
            -1,
        ),
    ]
    values = paper.points()
    own, lines = rows[rows["system"] == "personavoice"], []
    for title, metric, stratum, other, sign in asked:
        printed = values[(values["metric"] == metric) & (values["stratum"] == stratum)]
        printed = printed.set_index("system")
        line = {"personavoice has ...": title, "the paper's difference": _printed(printed, other)}
        try:
            sides = (in_stratum(side, stratum) for side in (own, rows[rows["system"] == other]))
            found = paired_line(*sides, metric)
        except ValueError:
            lines.append(line | {"p": np.nan, "sign": sign})
            continue
        tested = found["p"] if found["n"] >= LEAST else np.nan
        lines.append(
            line
            | {key: found[key] for key in ("n", "difference", "low", "high")}
            | {"p": tested, "sign": sign}
        )
    numbers = ["n", "difference", "low", "high"]
    table = pd.DataFrame(lines).reindex(
        columns=[*lines[0], *(name for name in numbers if name not in lines[0])]
    )
    table = table.astype(dict.fromkeys(numbers, float)).assign(holm=statistics.holm(table["p"]))
    return pd.DataFrame(
        {
            "personavoice has ...": table["personavoice has ..."],
            "the paper's difference": table["the paper's difference"],
            "measured difference": table["difference"],
            "95 % interval": [
                "-" if np.isnan(low) else f"{low:+.3f} to {high:+.3f}"
                for low, high in zip(table["low"], table["high"])
            ],
            "Holm's p": table["holm"],
            "verdict": [_verdict(line) for line in table.itertuples()],
        }
    ).set_index("personavoice has ...")


def _verdict(line: Any) -> str:
    if np.isnan(line.difference):
        return "not measured"
    if np.isnan(line.p):
        return f"fewer than {LEAST} pairs"
    if line.low <= 0 <= line.high or line.holm >= statistics.ALPHA:
        return "not shown"
    return "holds" if line.difference * line.sign > 0 else "the opposite holds"


def many(n: int, noun: str) -> str:
    """A noun in the number that fits."""
    return noun if n == 1 else f"{noun}s"
