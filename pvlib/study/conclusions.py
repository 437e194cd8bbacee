"""Sentences computed from rows: what a notebook concludes is never typed. Every sentence is markdown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pvlib.metrics.cfr import THRESHOLD
from pvlib.study import modality, paper, plots, reported
from pvlib.study.comparisons import NAMES, TooFewError, contrast, many
from pvlib.study.manifest import BUCKETS
from pvlib.study.measure import lookup, measure, of_several_words
from pvlib.study.pairs import LEAST
from pvlib.systems import CONTROLS, MAIN, absent

PAPER_STRATA = ("overall", "short", "ultra-short")  # for which the paper prints failure rates


def value(measured: pd.DataFrame, metric: str, stratum: str, system: str, form: str = ".3f") -> str:
    """A measured value with its interval as text, or "not measured"."""
    line = lookup(measured, metric, stratum, system)
    if line is None:
        return "not measured"
    return f"{line['value']:{form}} (95 % interval {line['low']:{form}} to {line['high']:{form}}, n = {line['n']:.0f})"


def sample(rows: pd.DataFrame, profile: str = "") -> str:
    """What was evaluated: utterances, speakers, systems, text lengths, failures; and, of a profile, what was not."""
    one = rows.drop_duplicates("utterance")
    buckets = one["bucket"].value_counts()
    words = {"ultra-short": "of at most 4 words", "short": "of 5-8 words", "long": "longer"}
    lengths = ", ".join(f"{buckets[name]} {words[name]}" for name in BUCKETS if name in buckets)
    failed = int((rows["error"] != "").sum())
    lost = absent(profile, MAIN) if profile else {}
    apart = "".join(f" `{name}` is not among them: {reason}." for name, reason in lost.items())
    return (
        f"{len(one)} {many(len(one), 'utterance')} ({lengths}) of {one['speaker'].nunique()} speakers, "
        f"{rows['system'].nunique()} systems, {failed} failed {'synthesis' if failed == 1 else 'syntheses'}."
        f"{apart}"
    )


def bullets(*sentences: str) -> str:
    """Sentences as a markdown list."""
    return "\n".join(f"* {sentence}" for sentence in sentences)


def lengths(
    rows: pd.DataFrame, system: str, metric: str = "wer_capped", strata: tuple[str, str] = ("short", "long")
) -> str:
    """One sentence: how a metric of a system differs between two lengths of text, beside the paper.

    The difference and its interval are those of the ledger's claims (`comparisons.contrast`).
    """
    measured = measure(rows, [metric], strata)
    if any(lookup(measured, metric, stratum, system) is None for stratum in strata):
        return f"`{system}`: not measured on both {' and '.join(strata)} texts."
    printed = paper.points().set_index(["metric", "stratum", "system"])["value"]
    theirs = [printed.get((metric, stratum, system)) for stratum in strata]
    beside = "" if None in theirs else f"; the paper prints {theirs[0]:.3f} and {theirs[1]:.3f}"
    one, other = (value(measured, metric, stratum, system) for stratum in strata)
    try:
        found = contrast(rows[rows["system"] == system], metric, *strata)
    except TooFewError as error:
        verdict = f"Too few to tell them apart ({error})."
    else:
        ends = f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
        shown = "no difference is shown" if found.low <= 0 <= found.high else "a difference is shown"
        verdict = f"Difference {ends}: {shown}."
    return f"`{system}`, {NAMES[metric]}: {one} on {strata[0]} texts, {other} on {strata[1]} ones{beside}. {verdict}"


def bimodality(rows: pd.DataFrame, system: str, stratum: str = "ultra-short") -> str:
    """One sentence: how many utterances of a stratum are perfect, how many broken, how many between, and the verdict.

    Texts of one word are left out. It asks what the ledger's claim asks (`checks.bimodal`), before any correction for
    several tests: more than one mode of the capped word error rate, a heap at either end, and fewer between.
    """
    wer = of_several_words(rows[rows["system"] == system], stratum)["wer_capped"].dropna()
    if wer.empty:
        return f"`{system}` has no {stratum} utterance of two words or more in this sample."
    at = modality.ends(wer)
    return (
        f"Of the {len(wer)} {stratum} {many(len(wer), 'utterance')} of `{system}` with two words or more, {at.perfect} "
        f"{'is' if at.perfect == 1 else 'are'} perfect, {at.broken} {'has' if at.broken == 1 else 'have'} a word error "
        f"rate above {modality.BROKEN}, {at.between} {'lies' if at.between == 1 else 'lie'} between: {_shape(wer, at)}."
    )


def _shape(wer: pd.Series, at: modality.Ends) -> str:
    if len(wer) < LEAST:
        return "too few to tell one heap from two"
    if wer.nunique() < 2:
        return "all the same"
    found = modality.bimodality(wer)
    if found.two and at.two:
        return f"two heaps ({found})"
    if at.two:
        return f"two heaps by their numbers, but {found.lacking} ({found})"
    if not found.two:
        return f"no two heaps are shown: {found.lacking} ({found})"
    why = (
        "no fewer lie between"
        if at.heap
        else f"{at.smaller} at one end {'is' if at.smaller == 1 else 'are'} no heap"
    )
    return f"more than one mode, but {why}, so not two heaps ({found})"


def failure_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Catastrophic failure rates as text, a line per system and a column per stratum, and the paper's own below."""
    lines = {
        system: {
            stratum: f"{line['value']:.1%} [{line['low']:.1%}, {line['high']:.1%}]"
            for stratum, line in own.set_index("stratum").iterrows()
            if line["n"]
        }
        for system, own in measured[measured["metric"] == "cfr"].groupby("system", sort=False)
    }
    entries = reported.read("key_results").set_index(["metric", "system"])
    for name in ("PersonaVoice v10.4.8", "F5-TTS Official", "XTTS v2", "CosyVoice"):
        found = {
            stratum: entries["value"].get((f"cfr_{stratum.replace('-', '_')}", name))
            for stratum in PAPER_STRATA
        }
        guesses = entries["estimated"].xs(name, level="system")
        shares = {
            stratum: f"~{float(value):.0%}"
            if guesses[f"cfr_{stratum.replace('-', '_')}"]
            else f"{float(value):.1%}"
            for stratum, value in found.items()
            if value is not None
        }
        guess = entries["estimated"].get(("cfr_overall", name), False)
        lines[f"{name} (paper{', its estimate' if guess else ''})"] = shares
        again = {s: entries["value"].get((f"cfr_{s}_recomputed", name)) for s in PAPER_STRATA}
        if shares := {s: f"{float(value):.1%}" for s, value in again.items() if value is not None}:
            lines[f"{name} (recomputed from its released rows)"] = shares
    strata = list(dict.fromkeys(measured["stratum"]))
    return pd.DataFrame.from_dict(lines, orient="index", columns=None).reindex(columns=strata).fillna("-")


def failure_rate(measured: pd.DataFrame, system: str) -> str:
    """One sentence: a system's catastrophic failure rate overall, on short and on long texts, beside the paper."""
    printed = paper.points().set_index(["metric", "stratum", "system"])["value"]
    parts = []
    for stratum in ("overall", "short", "ultra-short", "long"):
        theirs = printed.get(("cfr", stratum, system))
        beside = "" if theirs is None else f" [the paper: {theirs:.1%}]"
        parts.append(f"{stratum} {value(measured, 'cfr', stratum, system, '.1%')}{beside}")
    return f"`{system}`, share of utterances with a word error rate above {THRESHOLD}: {'; '.join(parts)}."


def frontier(points: pd.DataFrame, edge: pd.DataFrame) -> str:
    """One sentence: which systems are on the frontier and which are beaten in both respects."""
    systems = [name for name in points["system"] if name not in CONTROLS]
    on = list(edge["system"])
    off = [name for name in systems if name not in on]
    text = f"On the frontier: {_listed(on)}."
    return text + (f" Beaten by another system in both respects: {_listed(off)}." if off else "")


def trade(sweep: pd.DataFrame, speeds: pd.DataFrame, steps: int, fewer: int, guidance: float) -> str:
    """One sentence: what fewer steps cost in quality and win in time, at one strength of guidance."""
    lines = sweep[sweep["cfg_strength"] == guidance].set_index("steps")
    time = speeds.set_index("steps")["rtf"]
    if steps not in lines.index or fewer not in lines.index:
        return f"{steps} and {fewer} steps were not both measured at guidance {guidance:g}."
    change = lines.loc[fewer] - lines.loc[steps, ["wer", "secs"]]
    return (
        f"From {steps} to {fewer} steps at guidance {guidance:g}: word error rate {change['wer']:+.3f}, SECS "
        f"{change['secs']:+.3f}, real-time factor {time[steps]:.2f} to {time[fewer]:.2f} "
        f"({time[steps] / time[fewer]:.1f} times as fast), on {lines.loc[fewer, 'n']:.0f} utterances."
    )


def dials(grid: pd.DataFrame) -> str:
    """One sentence: which points of a sweep no other beats, and how wide the intervals are beside the spread."""
    edge = plots.frontier(grid)
    names = [f"{p.steps} steps at guidance {p.cfg_strength:g}" for p in edge.itertuples()]
    spread = grid["wer"].max() - grid["wer"].min()
    width = (grid["wer_high"] - grid["wer_low"]).median()
    verdict = "too wide to rank neighbours" if width > spread / 4 else "narrow enough to rank the extremes"
    return (
        f"Of the {len(grid)} points of the sweep, on the frontier of their means: {'; '.join(names)}. Word error rates "
        f"spread over {spread:.3f}; the median width of an interval is {width:.3f}, {verdict}."
    )


def retention(measured: pd.DataFrame, system: str) -> str:
    """One sentence: how much of the way from an impostor to the speaker a system goes."""
    share = value(measured, "secs_retention", "overall", system)
    return (
        f"`{system}` keeps a share of {share} of the similarity that separates the speaker from an impostor."
    )


def judges(measured: pd.DataFrame) -> str:
    """One sentence: what the judges say of true recordings."""
    truth = value(measured, "wer_corpus", "overall", "ground-truth")
    own = value(measured, "secs_ge2e_speaker", "overall", "ground-truth")
    other = value(measured, "secs_ge2e_speaker", "overall", "impostor")
    return (
        f"The judges, on true recordings: corpus word error rate {truth}; SECS (GE2E, against other speech) of the "
        f"speaker {own}, of an impostor {other}."
    )


def example(rows: pd.DataFrame, system: str) -> str:
    """One sentence on one utterance of a system. rows: those of this utterance."""
    row = rows[rows["system"] == system].iloc[0]
    if row["error"]:
        return f"`{system}` failed on this utterance: {row['error']}."
    true = rows[rows["system"] == "ground-truth"]["generated_seconds"]
    longer = f", {row['generated_seconds'] / true.iloc[0]:.2f} times the true length" if len(true) else ""
    return (
        f"`{system}` says it in {row['generated_seconds']:.2f} s{longer}, word error rate {row['wer']:.3f}, SECS "
        f"{row['secs_ecapa_clip']:.3f} (ECAPA, against the clip)."
    )


def demo(table: pd.DataFrame) -> str:
    """One sentence on the four-text table: the ranges, beside the paper's. table: see `tables.demo_table`."""
    parts = []
    for metric, printed in (("secs_ecapa_clip", "secs (paper)"), ("wer_capped", "wer (paper)")):
        ours, theirs = table[metric].dropna(), pd.to_numeric(table[printed], errors="coerce").dropna()
        beside = f", the paper {theirs.min():.3f} to {theirs.max():.3f}" if len(theirs) else ""
        known = f"{ours.min():.3f} to {ours.max():.3f}" if len(ours) else "not measured"
        parts.append(f"{NAMES[metric]} {known}{beside}")
    anecdote = "One clip is an anecdote: no interval can be put on it."
    return f"Over {len(table)} texts in one voice: {'; '.join(parts)}. {anecdote}"


def enough(table: pd.DataFrame, strangers: np.ndarray) -> str:
    """Two sentences: whether the clones of one second say their texts, and in whose voice. table: as for `demo`.

    strangers: the clip's similarity to other voices, `examples.strangers`. A text is said where no more than half of
    its words are wrong, in the clip's voice where the clone is more like it than every one of the strangers.
    """
    n, right = len(table), int((table["wer_capped"] == 0).sum())
    said = int((table["wer_capped"] <= THRESHOLD).sum())
    own = int((table["secs_ecapa_clip"] > strangers.max()).sum())  # none of a failed text, whose SECS is NaN
    short = {0: "no", n: "yes"}
    words, voice = (short.get(count, f"{count} of {n}") for count in (said, own))
    return (
        f"Is one second enough? For the words: **{words}**; for the voice: **{voice}**. Of {n} texts the recogniser "
        f"hears {said} with at most half of the words wrong, {right} without any error; {own} of {n} clones are more "
        f"like the clip than all of {len(strangers)} other voices are ({strangers.min():.3f} to {strangers.max():.3f})."
    )


def growing(table: pd.DataFrame) -> str:
    """One sentence: whether the error rate falls as the text grows; texts of as many words count by their mean."""
    errors = table.groupby(table["text"].str.split().str.len())["wer_capped"].mean()
    steps = errors.diff().dropna()
    if steps.empty:
        return "Does the error fall as the text grows? All texts are of one length, so these cannot tell."
    if (steps < 0).all():
        verdict = "**Yes**, at every step"
    elif errors.iloc[-1] < errors.iloc[0]:
        verdict = "**From the shortest to the longest it does**, but not at every step"
    else:
        verdict = "**No**"
    told = ", ".join(f"{error:.3f} at {words} {many(words, 'word')}" for words, error in errors.items())
    return f"Does the error fall as the text grows? {verdict}: {told}. Notebook 08 asks it of many texts and voices."


def best_vocoder(table: pd.DataFrame) -> str:
    """One sentence: which copy is nearer to the original, and which sounds better to the proxy."""
    near, quality = table.columns
    copies = table.drop(index="original")
    return (
        f"Nearer to the original in mel: **{copies[near].idxmin()}** ({copies[near].min():.3f} against "
        f"{copies[near].max():.3f} nat). Higher DNSMOS: **{copies[quality].idxmax()}** ({copies[quality].max():.2f} "
        f"against {copies[quality].min():.2f}; the original {table.loc['original', quality]:.2f})."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
