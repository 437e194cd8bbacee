"""The pipeline with one thing changed, against the pipeline: modules left out, retired modules, oracles.

A variant is one configuration. Its short name stands in `data/claims.yaml`, so that table and claim mean the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pvlib import systems
from pvlib.config import Profile, get_profile
from pvlib.metrics import wer
from pvlib.metrics.judges import Panel
from pvlib.study import ledger, reported, statistics
from pvlib.study import manifest as manifests
from pvlib.study.claims import Evidence
from pvlib.study.evaluate import evaluate
from pvlib.study.evaluate import finished as finished_rows
from pvlib.study.manifest import Manifest
from pvlib.study.measure import in_stratum
from pvlib.study.pairs import LEAST, aligned, apart, differing, paired_line

SYSTEM = "personavoice"
NOTEBOOK = "07"
MODULES = (
    "without LAAG",
    "without chunking",
    "without boundary hardening",
    "without VAD",
    "without RMS",
    "without front end",
)
ENTROPY = ("with CEAG", "with IEAG")  # switched off by the paper's own table of parameters
RETIRED = {  # the paper's name of a module -> variants here
    "IBOP": ("IBOP",),
    "AM-ODE": ("AM-ODE",),
    "TD-CFG": ("TD-CFG",),
    "SBM": ("SBM",),
    "GRPO": ("GRPO",),
    "Duration Predictor": ("duration predictor",),
    "Reference Enhancer": ("reference enhancer",),
    "Best-of-N": ("best of 3", "best of 3 with boost"),
}
SETTINGS = ("guidance 2",)  # that the paper's table of parameters changed
ORACLES = ("true transcript", "true duration")  # nobody who only has a clip and a text can have these
SPREAD = (
    "text spread over the clip",
)  # no module of the paper: what its backbone cannot do and ours can, left out
WITH_ADAPTERS = "with adapters"
ADAPTERS = ("without OES", "env_weight 1", "without FiLM", "without FiLM gate")  # against `WITH_ADAPTERS`
METRICS = ("secs_ecapa_clip", "wer_capped")
MORE_IS_BETTER = ("secs", "dnsmos")  # how the names of such metrics begin; of the others less is
CRITERION = 0.1  # |d| that the paper asks of a module

SHARE = 8  # one utterance in so many of a complete study is ablated: there are many variants
SHORTER = 0.9  # times as long: by more than a tenth
LETTER = r"[^\W\d_]"  # spaces and marks are none
QUICK = 1  # utterances of another: too few for a test, enough to see and hear each variant at work


def size(profile: Profile, samples: int) -> int:
    """How many utterances each variant takes of a study with `samples`: a share of a complete one, else `QUICK`."""
    return profile.part(samples, SHARE, QUICK)


def count(profile: Profile, samples: int, *, seed: int | None = None) -> int:
    """All `samples` where every variant's rows are there (`pvlib evaluate --all`), which takes hours; else `size`."""
    every = finished_rows(profile, system_names(profile), samples, seed=seed)
    return size(profile, samples) if every is None else samples


def variants() -> dict[str, str]:
    """The systems of all variants, and their short names, in the order of the tables. Raises LedgerError."""
    names = ledger.short_names()
    retired_ones = [short for shorts in RETIRED.values() for short in shorts]
    wanted = [*MODULES, *ENTROPY, *retired_ones, *SETTINGS, *ORACLES, *SPREAD]
    if missing := [short for short in wanted if short not in names]:
        raise ledger.LedgerError(f"data/claims.yaml has no system {missing[0]!r}; restore it with git")
    return {names[short]: short for short in wanted}


def system_of() -> dict[str, str]:
    """The system of each variant by its short name: `variants` the other way round. Raises LedgerError."""
    return {short: system for system, short in variants().items()}


def adapter_variants(profile: Profile | str) -> dict[str, str]:
    """As `variants`, of the pipeline with adapters, itself first; none where this profile's are not trained."""
    names = ledger.short_names()
    found = {names[short]: short for short in (WITH_ADAPTERS, *ADAPTERS)}
    return {name: found[name] for name in systems.present(profile, found)}


def system_names(profile: Profile | str) -> list[str]:
    """The pipeline and every variant that the profile has weights for, as `evaluate` takes them. Raises LedgerError.

    Where no letter is laid out, as with the official backbone, spreading the text changes nothing and is left out; and
    so is being told the clip's transcript where the test set has no times of words.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    laid_out = profile.backbone.text_conditioning == "durations"
    timed = bool(manifests.word_times(profile.manifest))
    names = [name for name in (SYSTEM, *variants()) if laid_out or name != systems.SPREAD]
    names = [name for name in names if timed or "oracle_transcript" not in systems.parse(name)[1]]
    return [*systems.present(profile, names), *adapter_variants(profile)]


def rows(
    profile: Profile | str,
    samples: int,
    *,
    utterances: int = 0,
    seed: int | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Rows of the pipeline and of every variant, computed and cached as `evaluate` does.

    samples: utterances of the study; its first `utterances` are taken, or `count` where that is 0. Raises
    what `evaluate` raises.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    first = utterances or count(profile, samples, seed=seed)
    options = {"seed": seed, "manifest": manifest, "judges": judges, "progress": progress}
    return evaluate(profile, system_names(profile), first, **options)


def finished(profile: Profile | str, samples: int, *, seed: int | None = None) -> pd.DataFrame | None:
    """What `rows` would return, where all of it has been computed already; else None."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    every = finished_rows(profile, names := system_names(profile), samples, seed=seed)
    return finished_rows(profile, names, size(profile, samples), seed=seed) if every is None else every


def table(
    rows: pd.DataFrame,
    shorts: Sequence[str],
    metrics: Sequence[str] = METRICS,
    stratum: str = "overall",
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Variants against the pipeline, a line per variant and metric, with paired tests.

    names: short name -> system, the pipeline's under `SYSTEM`; default: those of `variants`. A variant without rows
    (a network that the profile has no weights of) has no line.
    Columns: variant, metric, n, left_out, differ (pairs in which anything differs: the others are the same sound, and
    only dilute), pipeline, with_variant (means), difference (variant - pipeline) with a 95 %
    interval from resampled speakers (low, high), d (d_z, with d_low and d_high), test, p, p_wilcoxon, p_holm (Holm
    over this table). With fewer than six pairs there are means and no test.
    Raises KeyError on a short name without a variant, ValueError on rows that do not fit together.
    """
    by_short = dict(names or system_of())
    rows = in_stratum(rows, stratum)
    own, measured = rows[rows["system"] == by_short.get(SYSTEM, SYSTEM)], set(rows["system"])
    lines = [
        {"variant": short, **_line(rows[rows["system"] == by_short[short]], own, metric)}
        for short in shorts
        if by_short[short] in measured
        for metric in metrics
    ]
    columns = ["variant", "metric", "n", "left_out", "differ"]
    columns += ["pipeline", "with_variant", "difference", "low", "high"]
    columns += ["d", "d_low", "d_high", "test", "p", "p_wilcoxon"]
    found = pd.DataFrame(lines, columns=columns)
    return found.assign(p_holm=statistics.holm(found["p"]))


def adapters(rows: pd.DataFrame) -> pd.DataFrame:
    """`table` of the adapters' variants against the pipeline with adapters; empty where none is in these rows."""
    measured, names = set(rows["system"]), ledger.short_names()
    known = [short for short in ADAPTERS if names[short] in measured]
    return table(rows, known, names={**names, SYSTEM: names[WITH_ADAPTERS]})


def _line(variant: pd.DataFrame, own: pd.DataFrame, metric: str) -> dict[str, object]:
    both = aligned(variant, own, metric)
    pairs = both.dropna(subset=["one", "other"])
    if len(pairs) < LEAST:
        means = {"pipeline": pairs["other"].mean(), "with_variant": pairs["one"].mean()}
        difference = means["with_variant"] - means["pipeline"]
        left_out = len(both) - len(pairs)
        line = {"metric": metric, "n": len(pairs), "left_out": left_out, "difference": difference, **means}
        return {**line, "differ": differing(variant, own, pairs)}
    line = {**paired_line(variant, own, metric), "differ": differing(variant, own, pairs)}
    return {**line, "pipeline": line["mean_other"], "with_variant": line["mean_one"]}


def retired(found: pd.DataFrame) -> pd.DataFrame:
    """The paper's table of retired modules with what was measured beside it, a line per module, variant and metric.

    found: `table` of their variants. Columns: module, p (paper), d (paper), reason (paper), status (paper), then
    variant, metric, n, difference, d, d_low, d_high, p, p_holm; "-" where the paper says nothing.
    """
    paper = reported.read("retired_modules")
    lines = []
    for module, shorts in RETIRED.items():
        theirs = {
            f"{metric} (paper)": _printed(paper, name, module)
            for metric, name in (
                ("p", "p_value"),
                ("d", "cohens_d"),
                ("reason", "reason"),
                ("status", "status"),
            )
        }
        if (more := _printed(paper, "reason_2", module)) != "-":
            theirs["reason (paper)"] += f"; {more}"
        own = found[found["variant"].isin(shorts)]
        measured = ["variant", "metric", "n", "difference", "d", "d_low", "d_high", "p", "p_holm"]
        if own.empty:
            own = pd.DataFrame([{"variant": "not measured"}])
        lines.append(
            own.reindex(columns=measured).assign(module=module, **theirs)[["module", *theirs, *measured]]
        )
    return pd.concat(lines, ignore_index=True).astype({"n": "Int64"})


def _printed(paper: pd.DataFrame, metric: str, module: str) -> str:
    entry = reported.printed(paper, metric, module)
    return "-" if entry is None else str(entry["value"])


def claims(
    profile: str, rows: pd.DataFrame, manifest: Manifest | None = None, *, notebook: str = NOTEBOOK
) -> pd.DataFrame:
    """The claims that name a notebook, each with its verdict from these rows; columns as `ledger.COLUMNS`.

    rows: of `rows`. Holm's correction runs over these claims. Raises LedgerError.
    """
    loaded = ledger.load()
    chosen = [claim.id for claim in loaded if claim.notebook == notebook]
    found: Evidence = ledger.evidence(profile, rows, {}, manifest=manifest)
    return ledger.scoreboard(found, loaded, only=chosen)


def summary(found: pd.DataFrame, name: str) -> str:
    """Which variants of a table differ from the pipeline after Holm's correction, gains and losses apart.

    A gain is the variant's: more similarity (`MORE_IS_BETTER`) or fewer errors. name: of the table.
    """
    tested = found.dropna(subset=["p"])
    if tested.empty:
        return f"{name}: fewer than {LEAST} pairs, so nothing is tested; take more utterances."
    n = int(tested["n"].min())
    least, strict = (statistics.detectable(n, alpha=statistics.ALPHA / tests) for tests in (1, len(tested)))
    shown = tested[tested["p_holm"] < statistics.ALPHA]
    sign = shown["metric"].str.startswith(MORE_IS_BETTER).map({True: 1, False: -1})
    gain = shown["difference"] * sign
    groups = {"better": shown[gain > 0], "worse": shown[gain < 0], "of the same mean": shown[gain == 0]}
    words = "".join(
        f" **The variant is {how}** in {len(own)}: {'; '.join(_told(line) for line in own.itertuples())}."
        for how, own in groups.items()
        if len(own)
    )
    return (
        f"{name}: of {len(tested)} paired tests {len(shown)} hold after Holm's correction.{words} With {n} pairs an "
        f"effect below |d| = {least:.2f} is missed more often than one time in five (by the strictest of the corrected "
        f"tests, one below {strict:.2f}), and the paper's criterion is {CRITERION}."
    )


def _told(line: Any) -> str:
    effect = "d is not defined" if np.isnan(line.d) else f"d = {line.d:+.2f}"
    told = f"{line.variant}, `{line.metric}` {line.difference:+.3f} ({effect}, Holm's p = {line.p_holm:.3g}"
    if line.differ < line.n:
        told += f"; {line.differ} of {line.n} pairs differ, by {line.difference * line.n / line.differ:+.3f}"
    return told + ")"


def identical(rows: pd.DataFrame, short: str, other: str = SYSTEM) -> str:
    """One sentence: in how many rows a variant differs from the pipeline, or from another variant, at all.

    That is in the words heard or in a similarity; rows that failed on both sides are alike.
    """
    named = {**system_of(), SYSTEM: SYSTEM}
    one, two = (
        rows[rows["system"] == named[name]].set_index(["utterance", "seed"]) for name in (short, other)
    )
    others = int(apart(one, two.loc[one.index]).sum())
    whose = "the pipeline's" if other == SYSTEM else f"those of {other}"
    return f"{short}: {others} of {len(one)} rows differ from {whose}."


def paced(rows: pd.DataFrame) -> str:
    """What being told the clip's true words does to the length of what is made, and with it to its words; sentences.

    The rule of durations takes the clip's letters for all that its second holds. True words hold more letters than can
    be heard where the clip's edges cut them. Compared are utterances that both systems spoke: where the words heard are
    those said, as `wer.normalise` counts words, and where they are not; there Spearman's rank correlation of the change
    in length with that in WER.
    """
    names = system_of()
    told, own = (
        rows[(rows["system"] == system) & (rows["error"] == "")].set_index("utterance")
        for system in (names["true transcript"], SYSTEM)
    )
    both = told.index.intersection(own.index)
    told, own = told.loc[both], own.loc[both]
    heard, said = own["reference_text"], told["reference_text"]
    other = heard.map(wer.normalise) != said.map(wer.normalise)
    if other.sum() < LEAST:
        return f"Fewer than {LEAST} clips are heard otherwise than they were said, so nothing is compared."
    harm = told["wer_capped"] - own["wer_capped"]
    longer = told["generated_seconds"] / own["generated_seconds"]
    rank = stats.spearmanr(longer[other], harm[other])
    shorter = other & (longer < SHORTER)
    sentences = [
        f"In {(~other).sum()} of {len(both)} clips the words heard are the true ones, and WER changes by "
        f"{harm[~other].sum() / max(1, (~other).sum()):+.3f}.",
        f"In the other {other.sum()} the true words have {said[other].str.count(LETTER).mean():.1f} letters "
        f"where {heard[other].str.count(LETTER).mean():.1f} are heard, the speech made is "
        f"{longer[other].median():.2f} times as long (median), and WER changes by {harm[other].mean():+.3f}.",
    ]
    if 0 < shorter.sum() < other.sum():
        sentences.append(
            f"It changes by {harm[shorter].mean():+.3f} in the {shorter.sum()} that come out shorter by more than a "
            f"tenth, by {harm[other & ~shorter].mean():+.3f} in the rest."
        )
    return " ".join(
        [
            *sentences,
            f"Change in length against change in WER: Spearman's rho {rank.statistic:+.2f}, p = {rank.pvalue:.2g}.",
        ]
    )
