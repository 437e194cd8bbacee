"""Ultra-short texts: is their collapse a limit of flow matching, or of a length taken from one second of speech?

Everything is about the profile's second manifest, texts of one to four words (`Profile.ultra_short`). Their true
recordings are not kept, only the lengths of those, so the controls cannot run here; every judge can, since words are
held against the text and voices against the clip and the speaker's other speech.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd

from pvlib import hub, laag, systems
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE, AudioError
from pvlib.config import ConfigError, Profile, get_profile
from pvlib.metrics.cfr import catastrophic
from pvlib.metrics.judges import Panel
from pvlib.study import ledger, manifest, statistics
from pvlib.study.comparisons import TooFewError, contrast, many
from pvlib.study.evaluate import evaluate
from pvlib.study.evaluate import finished as finished_rows
from pvlib.study.manifest import Manifest
from pvlib.study.measure import in_stratum, measure
from pvlib.study.pairs import LEAST, aligned
from pvlib.systems.f5 import as_read, closed
from pvlib.text import TextError, normalise
from pvlib.voice import Job, PersonaVoice

NOTEBOOK = "13"
BASELINE, PIPELINE = "f5-official", "personavoice"
ORACLE, REMEDY = "true duration", "letter durations"  # short names in `data/claims.yaml`
# the same by the second backbone, where it is trained
PADDED, PADDED_ORACLE = "padded text", "padded text, true duration"
AUTOREGRESSIVE = "sv2tts"  # needs no length beforehand
NAMES = (BASELINE, PIPELINE, ORACLE, REMEDY, PADDED, PADDED_ORACLE, AUTOREGRESSIVE)
PAIRS = (  # what is changed, against what: one thing at a time, then the remedy against the official flow
    (ORACLE, PIPELINE),
    (REMEDY, PIPELINE),
    (REMEDY, ORACLE),
    (PIPELINE, BASELINE),
    (REMEDY, BASELINE),
)
PADDED_PAIRS = (  # what the true length is worth where the model has to find the alignment, and what that costs
    (PADDED_ORACLE, PADDED),
    (PADDED_ORACLE, ORACLE),
)
# another method altogether, against the official flow and the best of ours
AUTOREGRESSIVE_PAIRS = ((AUTOREGRESSIVE, BASELINE), (AUTOREGRESSIVE, REMEDY))
METRICS = ("cfr", "wer_capped")
STRATUM = "ultra-short"
HALF = 0.5  # of the baseline's failures the remedy may leave

# Rules for the length of an utterance, as parameters of the pipeline; the official flow's is computed beside them
RULES: dict[str, dict[str, object]] = {
    PIPELINE: {},
    REMEDY: {"letter_durations": True},
    "letters at the clip's own rate": {"letter_durations": True, "letter_prior_seconds": 0.0},
    "letters at the average rate": {"letter_durations": True, "letter_prior_seconds": 100.0},
}

DEFAULT = 4  # utterances of a study that is not complete: one of each number of words


def size(profile: Profile, samples: int, utterances: int) -> int:
    """How many of `utterances` a study with `samples` takes: all of a complete study, else at most `DEFAULT`."""
    return utterances if samples >= profile.samples else min(samples, DEFAULT, utterances)


def system_names(profile: Profile) -> list[str]:
    """The systems that are compared, as `evaluate` takes them; without those a profile has no weights of.

    Raises LedgerError.
    """
    return systems.present(profile, _systems())


def _systems() -> list[str]:
    """The systems of `NAMES`, in their order."""
    short = ledger.short_names()
    if missing := [name for name in NAMES if name not in (*short, BASELINE, PIPELINE, AUTOREGRESSIVE)]:
        raise ledger.LedgerError(f"data/claims.yaml has no system {missing[0]!r}; restore it with git")
    return [short.get(name, name) for name in NAMES]


def read(profile: Profile) -> Manifest:
    """The profile's manifest of ultra-short texts. Raises ConfigError where it has none, ManifestError."""
    if not profile.ultra_short:
        raise ConfigError(f"profile {profile.name} has no manifest of ultra-short texts; take profile mini")
    return manifest.read(profile.ultra_short)


def rows(
    profile: Profile | str,
    samples: int,
    *,
    utterances: int = 0,
    seed: int | None = None,
    judges: Panel | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Rows of the compared systems, computed and cached as `evaluate` does.

    samples: utterances of the study; `size(samples)` of the manifest are taken, or `utterances` where that is not 0.
    Raises what `evaluate` raises.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    texts = read(profile)
    count = utterances or size(profile, samples, len(texts.table))
    options = {"seed": seed, "manifest": texts, "judges": judges, "progress": progress}
    return evaluate(profile, system_names(profile), count, **options)


def finished(profile: Profile | str, samples: int, *, seed: int | None = None) -> pd.DataFrame | None:
    """What `rows` would return, where all of it has been computed already; else, or without such a manifest, None."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if not profile.ultra_short:
        return None
    texts = read(profile)
    count = size(profile, samples, len(texts.table))
    return finished_rows(profile, system_names(profile), count, seed=seed, manifest=texts)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows under the short names of their systems."""
    return rows.assign(system=rows["system"].replace(dict(zip(_systems(), NAMES, strict=True))))


# What was heard


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per system: catastrophic failures, error rate and similarity with 95 % intervals (for failures Wilson's).

    Columns: n, cfr, wer_capped, secs_ge2e_speaker as text, failed syntheses (no sound at all). rows: of `rows`.
    """
    measured = measure(named(rows), ["cfr", "wer_capped", "secs_ge2e_speaker"], [STRATUM])
    lines = {}
    for name in NAMES:
        own = measured[measured["system"] == name].set_index("metric")
        if own.empty:
            continue
        cells = {
            "n": int(own.loc["cfr", "n"]),
            "cfr": "{value:.1%} [{low:.1%}, {high:.1%}]".format_map(own.loc["cfr"]),
        }
        for metric in ("wer_capped", "secs_ge2e_speaker"):
            line = own.loc[metric]
            cells[metric] = "{value:.3f} [{low:.3f}, {high:.3f}]".format_map(line) if line["n"] else "-"
        lines[name] = {**cells, "failed syntheses": int(own.loc["cfr", "failures"])}
    return pd.DataFrame.from_dict(lines, orient="index")


def by_words(rows: pd.DataFrame, metric: str = "cfr") -> pd.DataFrame:
    """A metric by number of words, in the columns of `measure.measure`, as `plots.failures` draws it."""
    parts = [
        measure(own, [metric], [STRATUM]).assign(stratum=_words(count))
        for count, own in named(rows).groupby("words")
    ]
    return pd.concat(parts, ignore_index=True)


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """`PAIRS` on the same utterances, a line per pair and metric; the other pairs too where there are such rows.

    Columns: one, other, metric, n, mean_one, mean_other, difference (one - other) with a 95 % interval from resampled
    speakers (low, high), test, p, p_holm. Failures are tested by McNemar (mid-p), error rates by Wilcoxon, and Holm's
    correction runs over the table; with fewer than six pairs there is no test.
    Raises ValueError where a system lacks an utterance.
    """
    own = named(rows)
    present = set(own["system"])
    others = (*PADDED_PAIRS, *AUTOREGRESSIVE_PAIRS)
    pairs = [*PAIRS, *(pair for pair in others if present.issuperset(pair))]
    lines = [
        _line(own[own["system"] == one], own[own["system"] == other], metric)
        for one, other in pairs
        for metric in METRICS
    ]
    found = pd.DataFrame(lines)
    return found.assign(p_holm=statistics.holm(found["p"]))


def _line(one: pd.DataFrame, other: pd.DataFrame, metric: str) -> dict[str, object]:
    both = aligned(one, other, metric)
    a, b = both["one"].to_numpy(), both["other"].to_numpy()
    interval = statistics.paired_bootstrap(a, b, both["speaker"])
    line = {"one": one["system"].iloc[0], "other": other["system"].iloc[0], "metric": metric, "n": len(both)}
    line |= {"mean_one": a.mean(), "mean_other": b.mean(), "difference": interval.value}
    line |= {"low": interval.low, "high": interval.high, "test": "-", "p": np.nan}
    if len(both) < LEAST:
        return line
    if metric == "cfr" and np.isin(np.concatenate([a, b]), (0, 1)).all():
        return line | {"test": "McNemar", "p": statistics.mcnemar(a, b).mid_p}
    return line | {"test": "Wilcoxon", "p": statistics.wilcoxon(a, b).p}


def claims(profile: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The claims that name this notebook, each with its verdict from these rows; columns as `ledger.COLUMNS`.

    Holm's correction runs over these claims. Raises LedgerError on rows of another manifest.
    """
    loaded = ledger.load()
    chosen = [claim.id for claim in loaded if claim.notebook == NOTEBOOK]
    texts = read(get_profile(profile))
    ledger.check_rows(rows, texts)
    found = ledger.Evidence(profile, None, {}, rows)
    return ledger.scoreboard(found, loaded, only=chosen)


# How long it was meant to last


def planned(profile: Profile | str, voice: PersonaVoice | None = None) -> pd.DataFrame:
    """How long each rule would make every text of the manifest, beside the true length; nothing is synthesised.

    Columns: utterance, speaker, words, rule (`f5-official` and `RULES`), seconds, true_seconds, error (the natural
    logarithm of their ratio). An utterance whose clip cannot be used or whose length is refused is left out of a rule.
    """
    if voice is None:
        return _planned(profile if isinstance(profile, str) else profile.name)
    profile = get_profile(profile) if isinstance(profile, str) else profile
    usual = replace(voice.profile, inference=replace(voice.inference, letter_durations=False))
    planners = {
        rule: PersonaVoice(
            replace(usual, inference=replace(usual.inference, **parameters)),
            voice.backbone,
            voice.vocoder,
            voice.recognizer,
            voice.speaker_encoder,
        )
        for rule, parameters in RULES.items()
    }
    texts = read(profile)
    lines = []
    for _, same_clip in texts.table.groupby("clip", sort=False):
        requests = texts.requests(same_clip)
        clip = requests[0].clip
        heard = voice.recognizer.transcribe([clip])[0]
        for request in requests:
            lines.append((request, BASELINE, official_seconds(voice, clip, heard, request.text)))
        try:
            reference = voice.reference(clip, name=f"the clip of {requests[0].utterance}")
        except (AudioError, TextError):
            continue
        known = len(reference.wave) // HOP_LENGTH
        for request in requests:
            for rule, planner in planners.items():
                try:
                    chunks = planner.plan(Job(reference, request.text))
                except TextError:  # so long that the pipeline refuses it
                    continue
                frames = sum(chunk.frames - known for chunk in chunks)
                lines.append((request, rule, frames * HOP_LENGTH / SAMPLE_RATE))
    table = pd.DataFrame(
        [
            (r.utterance, r.speaker, r.words, rule, seconds, r.true_samples / SAMPLE_RATE)
            for r, rule, seconds in lines
        ],
        columns=["utterance", "speaker", "words", "rule", "seconds", "true_seconds"],
    ).dropna(subset=["seconds"])
    return table.assign(error=np.log(table["seconds"] / table["true_seconds"])).reset_index(drop=True)


@lru_cache(maxsize=1)
def _planned(profile: str) -> pd.DataFrame:
    return planned(profile, PersonaVoice.load(profile))


def official_seconds(voice: PersonaVoice, clip: np.ndarray, heard: str, text: str) -> float:
    """The length that the official flow gives a text: its formula on the whole clip; NaN where nothing was heard.

    clip: (s,) at 24 kHz; heard: its recognised words.
    """
    if not heard:
        return float("nan")
    vocabulary = voice.backbone.cfm.vocab_char_map
    known = len(clip) // HOP_LENGTH
    reference = as_read(closed(normalise(heard, vocabulary, "the transcript")))
    frames = laag.duration(known, reference, normalise(text, vocabulary), voice.inference) - known
    return frames * HOP_LENGTH / SAMPLE_RATE


def errors(planned: pd.DataFrame) -> pd.DataFrame:
    """How far each rule is from the true length, a line per rule, a column per number of words and one for all.

    The root mean square of `error`: 0.1 is about a tenth too long or too short.
    """
    square = planned.assign(square=planned["error"] ** 2)
    table = np.sqrt(square.pivot_table("square", "rule", "words", "mean"))
    table = table.rename(columns=_words).rename_axis(columns=None)
    table["all"] = np.sqrt(square.groupby("rule")["square"].mean())
    order = dict.fromkeys(planned["rule"])
    return table.loc[list(order)]


def length_ratios(
    planned: pd.DataFrame, rules: tuple[str, ...] = (BASELINE, PIPELINE, REMEDY)
) -> pd.DataFrame:
    """Planned over true length by number of words, means with intervals over speakers; columns as `measure.measure`."""
    lines = []
    for (count, rule), own in planned[planned["rule"].isin(rules)].groupby(["words", "rule"]):
        found = statistics.cluster_bootstrap_mean(np.exp(own["error"]), own["speaker"])
        values = (found.value, found.low, found.high, found.n, 0)
        lines.append(("length_ratio", _words(count), rule, *values))
    return pd.DataFrame(
        lines, columns=["metric", "stratum", "system", "value", "low", "high", "n", "failures"]
    )


# What to conclude


def sample(rows: pd.DataFrame) -> str:
    """One sentence: what the rows rest on."""
    per_word = rows.drop_duplicates("utterance")["words"].value_counts().sort_index()
    told = ", ".join(f"{count} of {_words(words)}" for words, count in per_word.items())
    people = rows["speaker"].nunique()
    return f"{per_word.sum()} {many(per_word.sum(), 'text')} ({told}), {people} {many(people, 'speaker')}."


def lengths(planned: pd.DataFrame) -> str:
    """One sentence: how far the official formula and the remedy are from the true lengths, and where it is worst."""
    found = errors(planned)
    worst = found.drop(columns="all").loc[BASELINE].idxmax()
    told = ", ".join(
        f"`{rule}` {found.loc[rule, 'all']:.2f} ({found.loc[rule, worst]:.2f})"
        for rule in (BASELINE, PIPELINE, REMEDY)
    )
    return (
        "Error of the planned length (root mean square of its logarithm; in brackets on texts of "
        f"{worst}, the worst for the official formula): {told}."
    )


def cause(compared: pd.DataFrame) -> str:
    """The answer, from what the true length alone changes: the failures that it mends and those that it leaves."""
    line = _pick(compared, ORACLE, PIPELINE)
    before, after = line["mean_other"], line["mean_one"]
    change = f"{before:.1%} to {after:.1%} failures ({_difference(line)})"
    left = statistics.wilson(round(after * line["n"]), int(line["n"]))
    rest = f"{after:.1%} [{left[0]:.1%}, {left[1]:.1%}] fail at the true length too"
    if not _shown(line):
        verdict = "**no part of the collapse is shown to be owed to the length**"
    elif line["difference"] > 0:
        verdict = "**the true length makes it worse: the length is not the cause**"
    elif left[1] < before / 2:
        verdict = "**most of the collapse is owed to the length, not to flow matching**"
    else:
        verdict = "**a part of the collapse is owed to the length, the rest is not**"
    return (
        f"Told the true length and nothing else, the pipeline goes from {change}: {verdict}; {rest}. This is about "
        "text that is laid out by durations; a model of padded text has to find the alignment as well."
    )


def spared(rows: pd.DataFrame) -> str:
    """One sentence: how many of the texts that fail at their true length are said right at the length of the letters.

    rows: as `evaluate` returns them.
    """
    broken = {
        system: set(own.loc[catastrophic(own["wer"]), "utterance"])
        for system, own in named(rows).groupby("system")
    }
    if ORACLE not in broken or REMEDY not in broken:
        return f"`{ORACLE}` or `{REMEDY}` was not measured."
    lost = broken[ORACLE]
    mended = len(lost - broken[REMEDY])
    return (
        f"Of the {len(lost)} {many(len(lost), 'text')} that fail at the true length, {mended} do not at the length "
        "that the letters give. So the true length is no bound for what a formula can reach, and one seed cannot "
        "tell how much of this is chance."
    )


def remedy(compared: pd.DataFrame) -> str:
    """One sentence: whether the remedy leaves at most half of the official flow's failures, and that shown."""
    line = _pick(compared, REMEDY, BASELINE)
    own, theirs = line["mean_one"], line["mean_other"]
    reached = own <= HALF * theirs and _shown(line)
    return (
        f"`{REMEDY}` fails on {own:.1%}, `{BASELINE}` on {theirs:.1%} ({_difference(line)}); at most half as many, and "
        f"the difference shown: **{'reached' if reached else 'not reached'}**."
    )


def conditioning(compared: pd.DataFrame) -> str:
    """Whether a wrong length hurts a model more that has to find the alignment: both backbones at the true length."""
    if not (compared["one"] == PADDED_ORACLE).any():
        return (
            "Whether a wrong length hurts a model of padded text more is not asked: it has no weights "
            f"(`pvlib train {hub.BACKBONE_PADDED}` makes them)."
        )
    own, ours = _pick(compared, PADDED_ORACLE, PADDED), _pick(compared, ORACLE, PIPELINE)
    left = _pick(compared, PADDED_ORACLE, ORACLE)
    if not _shown(own):
        verdict = "its failures are not shown to be owed to the length"
    elif own["high"] < ours["low"]:
        verdict = "a wrong length hurts it more than ours"
    elif own["low"] > ours["high"]:
        verdict = "a wrong length hurts it less than ours"
    else:
        verdict = "a wrong length is not shown to hurt it more or less than ours"
    if _shown(left) and left["difference"] > 0:
        rest = "fails more"
        word = (
            "**the condition for the paper's word *architectural* is met**, and it would be about the text "
            "conditioning, not about flow matching"
        )
    else:
        rest = "is not shown to fail more"
        word = "the condition for the paper's word *architectural* is **not met**"
    return (
        f"With padded text, in a backbone of the same size, the true length changes failures from "
        f"{own['mean_other']:.1%} to {own['mean_one']:.1%} ({_difference(own)}); with ours {_difference(ours)}: "
        f"**{verdict}**. At the true length it {rest} than ours ({_difference(left)}): {word}."
    )


def training(profile: Profile | str) -> str:
    """How long both backbones were trained and what the recogniser hears of dev sentences, from their cards.

    Whether the second's failures may be owed to its training depends on it.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    names = (hub.BACKBONE_PADDED, "backbone")
    if not all(hub.weights_path(name, profile).is_file() for name in names):
        return "How the two backbones were trained is not compared: one has no weights."
    padded, ours = (hub.read_card(name, profile) for name in names)
    wer = [card["quality"]["wer_dev"] for card in (padded, ours)]
    less, worse = padded["seconds"] < ours["seconds"], wer[0] > wer[1]
    if less and worse:
        verdict = "**less time and less clear speech**, so a part of its failures may be owed to its training"
    elif worse:
        verdict = "no less time, but **less clear speech**, so a part of its failures may be owed to that"
    else:
        verdict = "**speech no less clear**, so more failures on short texts are not owed to its training"
    return (
        f"The backbone of padded text was trained for {padded['seconds'] / 60:.0f} minutes, ours for "
        f"{ours['seconds'] / 60:.0f} (several machines, see the cards); on dev sentences their word error rates are "
        f"{wer[0]:.3f} and {wer[1]:.3f}: {verdict}."
    )


def autoregressive(compared: pd.DataFrame) -> str:
    """Whether short texts collapse where nobody has to say beforehand how long they last."""
    if not (compared["one"] == AUTOREGRESSIVE).any():
        return (
            f"Speech without a length given beforehand is not heard here: `{AUTOREGRESSIVE}` has no weights."
        )
    official, ours = (_pick(compared, *pair) for pair in AUTOREGRESSIVE_PAIRS)
    told = []
    for name, line in ((BASELINE, official), (REMEDY, ours)):
        verdict = "fewer" if line["high"] < 0 else "more"
        shown = f"{verdict} than" if _shown(line) else "not shown to be fewer or more than"
        told.append(f"{shown} `{name}` ({line['mean_other']:.1%}; {_difference(line)})")
    return (
        f"`{AUTOREGRESSIVE}` writes step by step and stops by itself, so no length is guessed from the clip. It fails "
        f"on {official['mean_one']:.1%} of these texts: {told[0]}; {told[1]}. It is another network, trained in "
        "another way on the same speech: this tells what is possible, not what the length alone is worth."
    )


def oracle_gap(compared: pd.DataFrame) -> str:
    """One sentence: what is left between the remedy and the true length."""
    line = _pick(compared, REMEDY, ORACLE)
    verdict = "apart" if _shown(line) else "not shown to differ"
    return f"`{REMEDY}` and `{ORACLE}` are {verdict} in failures ({_difference(line)})."


def beside_long(rows: pd.DataFrame, main: pd.DataFrame, system: str = PIPELINE) -> str:
    """One sentence: whether a system fails more on ultra-short texts than on the long ones of the main test set.

    Where it does not there is no collapse to explain, only a model that speaks unclearly. main: rows of that set. The
    test is that of the ledger's claims on lengths of text (`comparisons.contrast`).
    """
    long = in_stratum(main[main["system"] == system], "long")
    short = rows[rows["system"] == system]
    sides = []
    for own in (short, long):
        failed = int(catastrophic(own["wer"]).sum())
        sides.append((failed / len(own), *statistics.wilson(failed, len(own))) if len(own) else None)
    if None in sides:
        return f"`{system}` has no long text in this sample to compare with."
    told = [f"{value:.1%} [{low:.1%}, {high:.1%}]" for value, low, high in sides]
    try:
        found = contrast(pd.concat([short, long]), "cfr", STRATUM, "long")
    except TooFewError as error:
        return f"`{system}` fails on {told[0]} of these texts and on {told[1]} of the long ones: too few ({error})."
    if found.low > 0:
        verdict = "short texts fail more often than long ones"
    elif found.high < 0:
        verdict = "short texts fail less often than long ones, so nothing collapses there"
    else:
        verdict = "the interval contains zero, so a collapse of short texts alone is not shown"
    apart = f"difference {found.value:+.1%}, 95 % interval {found.low:+.1%} to {found.high:+.1%}"
    return f"`{system}` fails on {told[0]} of these texts and on {told[1]} of the long ones ({apart}): {verdict}."


def _pick(compared: pd.DataFrame, one: str, other: str, metric: str = "cfr") -> Mapping[str, float]:
    found = compared[(compared["one"] == one) & (compared["other"] == other) & (compared["metric"] == metric)]
    return found.iloc[0].to_dict()


def _difference(line: Mapping[str, float]) -> str:
    interval = f"95 % interval {line['low']:+.1%} to {line['high']:+.1%}"
    return f"difference {line['difference']:+.1%}, {interval}, Holm's p = {line['p_holm']:.2g}"


def _shown(line: Mapping[str, float]) -> bool:
    """Whether the interval excludes zero and the test, corrected for its table, agrees."""
    return not line["low"] <= 0 <= line["high"] and line["p_holm"] < statistics.ALPHA


def _words(count: int) -> str:
    return f"{count} {many(count, 'word')}"
