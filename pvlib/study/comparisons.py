"""Systems against each other on the same utterances, and the paper's orderings put to the test.

A difference is called shown only when its 95 % interval, from resampled speakers, excludes zero.
"""

from __future__ import annotations

import pandas as pd

from pvlib.study import paper
from pvlib.study.measure import in_stratum
from pvlib.study.statistics import Interval, cluster_bootstrap_mean

NAMES = {
    "wer_capped": "word error rate (capped at 1)",
    "wer": "word error rate (uncapped)",
    "secs_ecapa_clip": "SECS (ECAPA, against the clip)",
    "secs_ecapa_speaker": "SECS (ECAPA, against the speaker's other speech)",
    "secs_ge2e_clip": "SECS (GE2E, against the clip)",
    "secs_ge2e_speaker": "SECS (GE2E, against the speaker's other speech)",
    "dnsmos": "DNSMOS",
    "cfr": "catastrophic failure rate",
}


def difference(rows: pd.DataFrame, metric: str, one: str, other: str, stratum: str = "overall") -> Interval:
    """Mean of (one - other) over the utterances that both have, with an interval over speakers.

    Raises ValueError when they share no utterance with a value.
    """
    own = in_stratum(rows, stratum)
    sides = [
        own.loc[own["system"] == name, ["utterance", "speaker", metric]].dropna(subset=[metric])
        for name in (one, other)
    ]
    both = sides[0].merge(sides[1][["utterance", metric]], on="utterance", suffixes=("", "_other"))
    if both.empty:
        raise ValueError(f"{one} and {other} share no {stratum} utterance with a value of {metric}")
    return cluster_bootstrap_mean(both[metric] - both[f"{metric}_other"], both["speaker"])


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
    if found.low <= 0 <= found.high:
        ends = f"95 % interval {found.low:+.3f} to {found.high:+.3f}"
        return f"{base} ({ends}; {size}). The interval contains zero: **no difference is shown**."
    return f"{base} (95 % interval {low:.3f} to {high:.3f} {word}; {size}). **The difference is shown.**"


def patterns(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's orderings that can be asked of this table, with the measured answer: one line each.

    A pattern holds when the measured difference has the paper's sign and its interval excludes zero.
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
    ]
    values = paper.points()
    lines = []
    for title, metric, stratum, other, sign in asked:
        printed = values[(values["metric"] == metric) & (values["stratum"] == stratum)].set_index("system")[
            "value"
        ]
        theirs = printed.get("personavoice", float("nan")) - printed.get(other, float("nan"))
        try:
            found = difference(rows, metric, "personavoice", other, stratum)
        except ValueError:
            lines.append((title, theirs, float("nan"), "-", "not measured"))
            continue
        lines.append(
            (title, theirs, found.value, f"{found.low:+.3f} to {found.high:+.3f}", _verdict(found, sign))
        )
    columns = [
        "personavoice has ...",
        "the paper's difference",
        "measured difference",
        "95 % interval",
        "verdict",
    ]
    return pd.DataFrame(lines, columns=columns).set_index(columns[0])


def _verdict(found: Interval, sign: int) -> str:
    if found.low <= 0 <= found.high:
        return "not shown"
    return "holds" if found.value * sign > 0 else "the opposite holds"


def many(n: int, noun: str) -> str:
    """A noun in the number that fits."""
    return noun if n == 1 else f"{noun}s"
