"""The first word of each text, apart from the rest of it.

Sound that a system says too early is cut off with the clip, so the first word can be lost where all others are well.
"""

from __future__ import annotations

import jiwer
import pandas as pd

from pvlib.metrics.wer import capped, normalise
from pvlib.study.statistics import cluster_bootstrap_mean

METRICS = ("wer_capped", "first_lost", "wer_rest")


def split(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with first_lost and wer_rest.

    first_lost: 1.0 where the best alignment of text and transcript deletes or substitutes the first word, else 0.0.
    wer_rest: the errors of the same alignment behind the first word, per word of the rest, at most 1; NaN for a text of
    one word. A failed utterance loses all its words.
    """
    found = [_split(row.text, row.hypothesis) for row in rows.itertuples()]
    first, rest = zip(*found, strict=True) if found else ((), ())
    return rows.assign(first_lost=list(first), wer_rest=list(rest))


def _split(text: str, hypothesis: str) -> tuple[float, float]:
    words = normalise(text).split()
    lost, errors = True, 0
    for part in jiwer.process_words(" ".join(words), normalise(hypothesis)).alignments[0]:
        covers_first = part.ref_start_idx == 0 and part.ref_end_idx > 0
        if part.type == "equal":
            lost = lost and not covers_first
        elif part.type == "insert":
            errors += (part.hyp_end_idx - part.hyp_start_idx) * (part.ref_start_idx > 0)
        else:
            errors += part.ref_end_idx - part.ref_start_idx - covers_first
    rest = len(words) - 1
    return float(lost), capped(errors / rest) if rest > 0 else float("nan")


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per system: utterances, share with a wrong first word, error rates of the whole text and of the rest.

    rows: as `split` returns them. Error rates are means over utterances, capped at 1, with 95 % intervals from
    resampled speakers in brackets.
    """
    lines = []
    for system, own in rows.groupby("system", sort=False):
        line = {"system": system, "n": len(own)}
        for title, metric in (
            ("first word wrong", "first_lost"),
            ("WER", "wer_capped"),
            ("WER without the first word", "wer_rest"),
        ):
            heard = own.dropna(subset=[metric])
            found = cluster_bootstrap_mean(heard[metric], heard["speaker"])
            line[title] = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
        lines.append(line)
    return pd.DataFrame(lines)
