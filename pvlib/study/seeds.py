"""Other noise for the same clip and text: how much of an error rate is luck, and whether a lost sentence stays lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist

import pandas as pd

from pvlib import systems
from pvlib.config import Profile, get_profile
from pvlib.metrics.cfr import catastrophic
from pvlib.metrics.judges import Panel
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study import statistics
from pvlib.study.comparisons import many
from pvlib.study.evaluate import evaluate, finished
from pvlib.study.manifest import Manifest
from pvlib.study.measure import in_stratum, measure
from pvlib.study.pairs import LEAST

SYSTEM = "personavoice"
COUNT = 5  # seeds of each utterance
MAIN_COUNT = 3  # of each utterance and main system, where time was taken for it
SHARE = 10  # one utterance in so many of a complete study
QUICK = 2  # utterances of another: each is said `COUNT` times
MOST_LOST = 12  # lost utterances that are said again
BY_SEED = ("wer", "cfr", "secs_ge2e_speaker")
TARGET = 0.05  # of the spread on long texts, set before anything was measured


def size(profile: Profile | str, samples: int) -> int:
    """How many utterances are said with every seed, of a study with `samples`."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    return profile.part(samples, SHARE, QUICK)


def lost(rows: pd.DataFrame, system: str = SYSTEM, most: int = MOST_LOST) -> list[str]:
    """The utterances of a study that a system lost (WER above one half), in the order of the rows; at most so many."""
    own = rows[rows["system"] == system]
    return list(own.loc[catastrophic(own["wer"]), "utterance"])[:most]


def said_again(
    profile: Profile | str,
    utterances: Sequence[str] | int,
    *,
    system: str = SYSTEM,
    count: int = COUNT,
    seed: int | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Rows of a system on some utterances with `count` seeds: the manifest's own, and those that follow it.

    utterances: their names, or how many of the study's order with this `seed`. Computed and cached as `evaluate`
    does, so the first seed's rows are the study's. One column more than its rows: `try`, 0 the manifest's seed.
    Raises what `evaluate` raises.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest = manifest or manifests.read(profile.manifest)
    if isinstance(utterances, int):
        utterances = manifest.sample(utterances, profile.seed if seed is None else seed)["utterance"]
    kept = frozenset(utterances)
    own = {field.name: getattr(manifest, field.name) for field in fields(Manifest)}
    chosen, tables = _Chosen(**own, names=kept), []
    for number in range(count if kept else 0):
        other = chosen.reseeded(number)
        made = evaluate(profile, [system], len(kept), manifest=other, judges=judges, progress=progress)
        tables.append(made.assign(**{"try": number}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["utterance", "try"])


def parts(manifest: Manifest) -> dict[str, Manifest]:
    """The seeds after a manifest's own, `MAIN_COUNT` with it: the place of each one's rows in a record -> manifest."""
    return {row_files.seed_part(number): manifest.reseeded(number) for number in range(1, MAIN_COUNT)}


def noisy(profile: Profile | str) -> list[str]:
    """The main systems that begin at noise, so that another seed is another utterance."""
    return [name for name in systems.present(profile, systems.MAIN) if name not in systems.CONTROLS]


def every(
    profile: Profile | str,
    samples: int,
    *,
    seed: int | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
) -> pd.DataFrame | None:
    """Rows of `noisy` with `MAIN_COUNT` seeds, where all have been computed (`pvlib evaluate --seeds`); else None.

    One column more than rows have: `try`, 0 the manifest's own seed. Raises what `finished` raises.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest = manifest or manifests.read(profile.manifest)
    tables = []
    for number, other in enumerate((manifest, *parts(manifest).values())):
        made = finished(profile, noisy(profile), samples, seed=seed, manifest=other, judges=judges)
        if made is None:
            return None
        tables.append(made.assign(**{"try": number}))
    return pd.concat(tables, ignore_index=True)


def by_seed(rows: pd.DataFrame | None, strata: Sequence[str] = ("overall", "long")) -> pd.DataFrame:
    """What a study would have reported with each of the seeds alone, a line per system, metric and stratum.

    rows: of `every`; of None the table is empty. Columns: a mean for each seed; sd, their standard deviation (n - 1);
    noise, what that is expected to be from how far each utterance varies over its seeds (`of_the_noise`), which rests
    on all utterances and not on a few means; and se, the standard error over speakers of the first: a quarter of its
    95 % interval, nearly; of `cfr`, whose interval is Wilson's, over utterances. It contains the noise of the seed too.
    """
    columns = ["system", "metric", "stratum"]
    if rows is None:
        return pd.DataFrame(columns=columns)
    tries = rows.groupby("try")
    measured = [measure(own, BY_SEED, strata).set_index(columns) for _, own in tries]
    values = pd.concat({f"seed +{k}": one["value"] for k, one in enumerate(measured)}, axis=1)
    error = (measured[0]["high"] - measured[0]["low"]) / (2 * NormalDist().inv_cdf(0.975))
    noise = [of_the_noise(rows[rows["system"] == s], metric, stratum) for s, metric, stratum in values.index]
    return values.assign(sd=values.std(axis=1, ddof=1), noise=noise, se=error).reset_index()


def of_the_noise(rows: pd.DataFrame, metric: str, stratum: str) -> float:
    """The standard deviation that other noise gives a mean over utterances: sqrt(sum of their variances) / n.

    rows: of one system, with a column `try`. The noise of one utterance is independent of another's, so the variances
    over the seeds (n - 1) add up. Utterances without a value from each seed are left out; NaN where none is left.
    """
    own = in_stratum(rows, stratum)
    values = catastrophic(own["wer"]).astype(float) if metric == "cfr" else own[metric]
    wide = own.assign(_value=values).pivot_table("_value", "utterance", "try", dropna=False).dropna()
    return math.sqrt(wide.var(axis=1, ddof=1).sum()) / len(wide) if len(wide) else math.nan


def by_seed_text(table: pd.DataFrame, system: str = SYSTEM) -> str:
    """Sentences on `by_seed`: how much of what an interval over speakers allows for is the luck of the noise."""
    own = table[(table["system"] == system) & (table["metric"] == "wer") & (table["stratum"] == "overall")]
    if own.empty:
        return (
            "Whole studies from other noise were not made for this sample; "
            f"`pvlib evaluate --seeds {MAIN_COUNT} --samples N --jobs 2` makes them (an hour for 200)."
        )
    line = own.iloc[0]
    told = ", ".join(f"{line[name]:.3f}" for name in table.columns if name.startswith("seed +"))
    share = min(1.0, (line["noise"] / line["se"]) ** 2) if line["se"] else float("nan")
    return (
        f"The whole study from {MAIN_COUNT} draws of noise: `{system}` has a mean word error rate of {told}. So few "
        f"means say little of their own spread ({line['sd']:.4f}); from how far each utterance varies over its seeds a "
        f"standard deviation of {line['noise']:.4f} is expected. The standard error over speakers, {line['se']:.4f}, "
        f"contains the noise: of its variance the noise is about {share:.0%}."
    )


@dataclass(frozen=True, eq=False)
class _Chosen(Manifest):
    """Some utterances of a manifest; the others stay known, as impostors."""

    names: frozenset[str] = frozenset()

    def sample(self, size: int | None = None, seed: int = 42) -> pd.DataFrame:
        """All of them, in the manifest's order."""
        return self.table[self.table["utterance"].isin(self.names)].reset_index(drop=True)


def spread(rows: pd.DataFrame, strata: Sequence[str] = ("long", "5-8 words", "ultra-short")) -> pd.DataFrame:
    """How far the capped WER of one utterance varies over its seeds, a line per stratum.

    Columns: stratum, n (utterances), wer (mean over utterances and seeds), sd (standard deviation over the seeds, with
    n - 1, mean over utterances) with a 95 % interval from resampled speakers (low, high; of six utterances or more),
    worst (the largest), and lowest, highest: the means of single seeds.
    """
    lines = []
    for stratum in strata:
        own = in_stratum(rows, stratum)
        if own.empty:
            continue
        each = own.groupby("utterance").agg(sd=("wer_capped", "std"), speaker=("speaker", "first"))
        found = statistics.cluster_bootstrap_mean(each["sd"], each["speaker"])
        low, high = (found.low, found.high) if len(each) >= LEAST else (math.nan, math.nan)
        single = own.groupby("try")["wer_capped"].mean()
        lines.append(
            (stratum, len(each), own["wer_capped"].mean(), found.value, low, high)
            + (each["sd"].max(), single.min(), single.max())
        )
    columns = ["stratum", "n", "wer", "sd", "low", "high", "worst", "lowest", "highest"]
    return pd.DataFrame(lines, columns=columns)


def spread_text(table: pd.DataFrame, count: int = COUNT) -> str:
    """One sentence: the spread on long texts against its target."""
    own = table[table["stratum"] == "long"]
    if own.empty:
        return "No long text was said with several seeds; take more utterances."
    line = own.iloc[0]
    met = statistics.against_target(line["sd"], line["low"], line["high"], TARGET, "at most")
    return (
        f"The same clip and text with {count} seeds: the word error rate of a long text has a standard deviation of "
        f"{line['sd']:.3f} (95 % interval {line['low']:.3f} to {line['high']:.3f}, n = {line['n']}; target: at most "
        f"{TARGET:g}, {met}). The mean of {line['n']} texts lies between {line['lowest']:.3f} and "
        f"{line['highest']:.3f}, whichever seed is taken."
    )


def fates(rows: pd.DataFrame) -> pd.DataFrame:
    """Of utterances that were lost with their own seed, how often each is lost with another; a line each.

    Columns: utterance, words, text, lost (of `others` seeds), others, error (of the first try, "" for none).
    """
    columns = ["utterance", "words", "text", "lost", "others", "error"]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    first = rows[rows["try"] == 0].set_index("utterance")
    rest = rows[rows["try"] > 0].assign(lost=lambda r: catastrophic(r["wer"])).groupby("utterance")["lost"]
    found = first[["words", "text", "error"]].join(rest.agg(lost="sum", others="size"))
    return found.reset_index()[columns]


def fates_text(table: pd.DataFrame) -> str:
    """Were the lost ones unlucky, or is it them. Clips that the front end refuses are refused again, and no try."""
    if table.empty:
        return f"`{SYSTEM}` lost no utterance of this sample, so there is nothing to say again."
    spoken = table[table["error"] == ""]
    refused = len(table) - len(spoken)
    apart = f" {refused} more had a clip that the front end refuses, whatever the seed." if refused else ""
    if spoken.empty:
        return f"`{SYSTEM}` lost no utterance that it could begin to say.{apart}"
    tries, again = int(spoken["others"].sum()), int(spoken["lost"].sum())
    totals = [spoken[name].to_numpy(dtype=float) for name in ("lost", "others")]
    found = statistics.cluster_bootstrap(lambda lost, all_: lost / all_, totals, spoken["utterance"])
    always = int((spoken["lost"] == spoken["others"]).sum())
    never = int((spoken["lost"] == 0).sum())
    return (
        f"The {len(spoken)} {many(len(spoken), 'utterance')} that `{SYSTEM}` said and lost, said again from other "
        f"noise, {'is' if len(spoken) == 1 else 'are'} lost in {again} of {tries} tries ({found.value:.0%}, 95 % "
        f"interval from resampled utterances {found.low:.0%} to {found.high:.0%}): {always} every time, {never} never "
        f"again.{apart}"
    )
