"""How claims are put to the test: one small function per kind of claim, each from evidence to a finding.

Rules that all share: a difference is shown only when its interval from resampled speakers excludes zero and its paired
test survives Holm's correction over its family (`ledger.families`); two systems are shown to be alike only when that
interval, too, lies inside the margin; what was not measured, or on fewer than `pairs.LEAST` utterances, is `untested`,
with what would test it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pvlib import systems
from pvlib.config import get_profile
from pvlib.study import facts, first_words, modality, pairs, printed, rtf, statistics
from pvlib.study.claims import (
    ADOPTED,
    CONTRADICTED,
    DEPARTED,
    INCONCLUSIVE,
    RIGHT,
    SUPPORTED,
    UNTESTED,
    WRONG,
    Claim,
    Evidence,
    Finding,
    entry,
    number,
)
from pvlib.study.comparisons import TooFewError, contrast, many
from pvlib.study.measure import in_stratum, lookup, measure, of_several_words
from pvlib.study.statistics import ALPHA, Interval

EXPECTED = {"more": 1, "less": -1}
FULL = 200  # utterances that a printed level of the paper rests on


@dataclass(frozen=True)
class Kind:
    """A way to check claims: the fields it needs and may have, the function, and the same in words."""

    run: Callable[[Claim, Evidence, Mapping[str, Claim]], Finding]
    needs: tuple[str, ...]
    may: tuple[str, ...]
    words: str  # a format string over the fields of the check


# Numbers


def _relation(claim: Claim, claims: Mapping[str, Claim]) -> tuple[bool | None, str, str]:
    check = claim.check
    found = printed.evaluate(
        check["expression"], {name: number(text, claims) for name, text in check["numbers"].items()}
    )
    relation, against = check.get("relation", "equals"), check.get("against", claim.value)
    answer = printed.holds(found, relation, number(against, claims))
    filled = ", ".join(f"{name} = {text}" for name, text in check["numbers"].items())
    return answer, str(found), f"{check['expression']} = {found}, to be: {relation} {against} ({filled})"


def arithmetic(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """The paper's numbers against each other."""
    answer, measured, words = _relation(claim, claims)
    return Finding({True: RIGHT, False: WRONG, None: INCONCLUSIVE}[answer], measured, words)


def count(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """A printed number against one that is counted here."""
    answer, measured, words = _relation(claim, claims)
    return Finding({True: SUPPORTED, False: CONTRADICTED, None: INCONCLUSIVE}[answer], measured, words)


def document(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """A claim against another place of the paper or a figure recomputed from its released files."""
    there = entry(claim.check["against"])
    try:
        relation = claim.check.get("relation", "equals")
        answer = printed.holds(printed.parse(claim.value), relation, printed.parse(there))
    except ValueError:
        answer = claim.value == there
    verdict = {True: SUPPORTED, False: CONTRADICTED, None: INCONCLUSIVE}[answer]
    return Finding(verdict, there, f"claimed: {claim.value}; {claim.check['against']}: {there}")


def configuration(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """A setting of the paper against the default of the profile `paper`."""
    own: Any = get_profile("paper")
    for name in claim.check["parameter"].split("."):
        if not hasattr(own, name):
            raise ValueError(f"the configuration has no {claim.check['parameter']}")
        own = getattr(own, name)
    if isinstance(own, int | float) and not isinstance(own, bool):
        same = float(claim.value) == own
    else:
        same = str(own).replace(" ", "") == claim.value.replace(" ", "")
    words = f"config: {claim.check['parameter']} = {own}; the paper: {claim.value}"
    return Finding(ADOPTED if same else DEPARTED, str(own), words)


def property_(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """How a mechanism works: built as the claim says, or not as it says. What it is good for is another claim."""
    good, words = facts.seen(claim.check["name"])
    return Finding(ADOPTED if good else CONTRADICTED, "yes" if good else "no", words)


# Rows


def level(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """A printed level against a measured one, of the same profile only."""
    check, wanted = claim.check, claim.check.get("profile", "paper")
    if evidence.profile != wanted:
        command = f"pvlib reproduce --profile {wanted}"
        if check["system"] in systems.EXTERNAL:
            command = f"pvlib evaluate --profile {wanted} --system {check['system']}"
        return Finding(UNTESTED, evidence=f"a level of the profile {wanted}: `{command}`")
    theirs = printed.parse(claim.value)
    if check["metric"] == "rtf":
        speed, lacking = _speed_of(evidence, check["system"])
        if lacking:
            return lacking
        low, value, high, n = speed["low"], speed["median"], speed["high"], FULL
    else:
        rows, lacking = _rows_of(evidence, [check["system"]])
        if lacking:
            return lacking
        line = lookup(
            measure(rows, [check["metric"]], [check["stratum"]]),
            check["metric"],
            check["stratum"],
            check["system"],
        )
        heard = 0 if line is None else int(line["n"])
        if heard < pairs.LEAST:
            return _too_few(evidence, [check["system"]], heard, check["stratum"], check["metric"])
        low, value, high, n = line["low"], line["value"], line["high"], len(rows["utterance"].unique())
    words = f"{value:.4f} [{low:.4f}, {high:.4f}]"
    if not (low <= theirs.high and theirs.low <= high):
        return Finding(CONTRADICTED, words, f"the interval excludes the printed {claim.value}")
    if n < check.get("n", FULL):
        return Finding(INCONCLUSIVE, words, f"only {n} utterances; the printed level rests on more")
    return Finding(SUPPORTED, words, f"the interval includes the printed {claim.value}")


def difference(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """One system against another on the same utterances."""
    check = claim.check
    found, lacking = _pair(claim, evidence)
    if lacking:
        return lacking
    words = f"{found['difference']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
    effect = "all differ by the same, so d_z is not defined" if np.isnan(found["d"]) else _effect(found)
    detail = (
        f"{check['one']} - {check['other']}, {check['metric']}, {check['stratum']}: "
        f"{found['test']} p = {found['p']:.3g}, {effect}, n = {found['n']}, {found['speakers']} speakers"
    )
    if 0 < found["differ"] < found["n"]:  # the others are the same sound
        mean = found["difference"] * found["n"] / found["differ"]
        detail += f", of which {found['differ']} differ, by {mean:+.4f}"
    shown = not found["low"] <= 0 <= found["high"] and found["p"] < ALPHA
    if not shown:
        least = statistics.detectable(found["n"])
        return Finding(
            INCONCLUSIVE, words, f"{detail}; effects below d_z = {least:.3f} would be missed", found["p"]
        )
    sign = EXPECTED[check["expect"]]
    if found["difference"] * sign < 0:
        return Finding(CONTRADICTED, words, detail, found["p"])
    if np.isnan(found["d"]) and "effect" in check:
        return Finding(INCONCLUSIVE, words, detail, found["p"])
    if abs(found["d"]) <= float(check.get("effect", 0)):
        return Finding(
            CONTRADICTED, words, f"{detail}; the effect is not above {check['effect']}", found["p"]
        )
    return Finding(SUPPORTED, words, detail, found["p"])


def negligible(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """One system against another, claimed to be the same up to an effect |d_z| of `margin`.

    Two questions are asked, each with a p of its own: whether they are alike, which supports the claim, and whether
    they are further apart than the margin, which contradicts it. A margin that so few pairs could not show even where
    the two are exactly alike has no p of the first kind: it is no test.
    """
    check = claim.check
    found, lacking = _varied(claim, evidence)
    if lacking:
        return lacking
    margin, words = float(check["margin"]), _effect(found)
    same = statistics.equivalence_p(found["d"], found["n"], margin)
    mirrored = [statistics.effect_tail(found["d"] * sign, found["n"], margin) for sign in (1, -1)]
    apart = min(1.0, 2 * min(mirrored))
    detail = f"{check['one']} - {check['other']}, {check['metric']}, {check['stratum']}, n = {found['n']}"
    if apart < ALPHA:
        detail += f": larger than {margin:g}, p = {apart:.3g}"
        return Finding(CONTRADICTED, words, detail, p_against=apart)
    if statistics.equivalence_p(0.0, found["n"], margin) >= ALPHA:
        detail += f": too few to show any effect to be within {margin:g}"
        return Finding(INCONCLUSIVE, words, detail, p_against=apart)
    furthest = max(abs(found[end]) for end in ("low", "high"))  # over resampled speakers
    apart_by_speaker = furthest > margin * found["spread"]
    verdict = SUPPORTED if same < ALPHA and not apart_by_speaker else INCONCLUSIVE
    detail += f": within {margin:g}, p = {same:.3g}"
    if apart_by_speaker:
        detail += f", over speakers up to {furthest / found['spread']:.2f}"
    return Finding(verdict, words, detail, same, p_against=apart)


def no_gain(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """One system against another, claimed to bring no gain as large as an effect d_z of `margin`.

    `gain` says which way is better. As of `negligible` two questions are asked, but of this side alone: a loss, however
    large and however surely shown, is no gain and speaks for the claim.
    """
    check = claim.check
    found, lacking = _varied(claim, evidence)
    if lacking:
        return lacking
    margin, sign = float(check["margin"]), EXPECTED[check["gain"]]
    gain = statistics.effect_tail(sign * found["d"], found["n"], margin)
    detail = f"{check['one']} - {check['other']}, {check['metric']}, {check['stratum']}, n = {found['n']}"
    detail += f"; {check['gain']} would be a gain"
    if gain < ALPHA:
        detail += f": larger than {margin:g}, p = {gain:.3g}"
        return Finding(CONTRADICTED, _effect(found), detail, p_against=gain)
    most = sign * found["high" if sign > 0 else "low"]  # over resampled speakers
    gain_by_speaker = most > margin * found["spread"]
    verdict = SUPPORTED if 1 - gain < ALPHA and not gain_by_speaker else INCONCLUSIVE
    detail += f": none of {margin:g}, p = {1 - gain:.3g}"
    if gain_by_speaker:
        detail += f", over speakers up to {most / found['spread']:.2f}"
    return Finding(verdict, _effect(found), detail, 1 - gain, p_against=gain)


def identical(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """Two systems said to do the very same: every utterance with the same words heard and the same similarity."""
    names = [claim.check["one"], claim.check["other"]]
    rows, lacking = _rows_of(evidence, names)
    if lacking:
        return lacking
    keys = ["utterance", "seed"]
    one, other = (rows[rows["system"] == name].set_index(keys).sort_index() for name in names)
    if not one.index.equals(other.index):
        raise ValueError(
            f"{names[0]} and {names[1]} have not the same utterances and seeds; evaluate both again"
        )
    if (n := rows["utterance"].nunique()) < pairs.LEAST:
        return _too_few(evidence, names, n)
    apart = int(pairs.apart(one, other).sum())
    words = f"{apart} of {len(one)} rows differ"
    return Finding(
        CONTRADICTED if apart else SUPPORTED, words, f"{names[0]} and {names[1]}: words and similarity"
    )


def strata(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """One system on two kinds of text; different utterances, so nothing is paired but speakers."""
    check = claim.check
    rows, lacking = _rows_of(evidence, [check["system"]])
    if lacking:
        return lacking
    try:
        found = contrast(rows, check["metric"], check["first"], check["second"])
    except TooFewError as error:
        return _too_few(evidence, [check["system"]], error.n, error.stratum, check["metric"])
    words = f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    detail = f"{check['system']}, {check['metric']}, {check['first']} - {check['second']}, {found.clusters} speakers"
    return Finding(_sided(found, check["expect"]), words, detail)


def bimodal(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """Whether the utterances of a stratum fall into two heaps, right or lost; texts of one word are left out.

    That takes more than one mode (`modality.bimodality`), a heap at either end and fewer between (`modality.ends`).
    Raises ValueError on a metric that is no word error rate.
    """
    check = claim.check
    if check["metric"] not in ("wer", "wer_capped"):
        raise ValueError(f"heaps are counted of word error rates, not of {check['metric']}")
    rows, lacking = _rows_of(evidence, [check["system"]])
    if lacking:
        return lacking
    values = of_several_words(rows, check["stratum"])[check["metric"]].dropna()
    if len(values) < pairs.LEAST:
        what = f"{check['stratum']} texts of several words"
        return _too_few(evidence, [check["system"]], len(values), what, check["metric"])
    if values.nunique() < 2:
        return Finding(
            UNTESTED, evidence=f"all {len(values)} values of {check['metric']} are {values.iloc[0]:g}"
        )
    found, at = modality.bimodality(values), modality.ends(values)
    modes = ", ".join(f"{mode:.2f}" for mode in found.modes)
    detail = (
        f"{check['system']}, {check['metric']}, {check['stratum']}, n = {found.n}; modes near {modes}; {at.perfect} "
        f"perfect, {at.broken} above {modality.BROKEN}, {at.between} between"
    )
    return Finding(SUPPORTED if found.two and at.two else INCONCLUSIVE, str(found), detail, found.p)


def speed(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """Real-time factors of two systems on one machine; they differ where their ranges do not overlap."""
    check = claim.check
    sides = []
    for side in ("one", "other"):
        found, lacking = _speed_of(evidence, check[side])
        if lacking:
            return lacking
        sides.append(found)
    a, b = sides
    gap = Interval(a["median"] - b["median"], a["low"] - b["high"], a["high"] - b["low"], 0, 0)
    words = " against ".join(f"{s['median']:.3f} ({s['low']:.3f}-{s['high']:.3f})" for s in sides)
    return Finding(
        _sided(gap, check["expect"]), words, f"real-time factor of {check['one']} and {check['other']}"
    )


def external(claim: Claim, evidence: Evidence, claims: Mapping[str, Claim]) -> Finding:
    """A claim that nothing here can decide yet."""
    return Finding(UNTESTED, evidence=claim.check["needs"])


def _sided(found: Interval, expect: str) -> str:
    if found.low <= 0 <= found.high:
        return INCONCLUSIVE
    return SUPPORTED if found.value * EXPECTED[expect] > 0 else CONTRADICTED


def _rows_of(evidence: Evidence, names: list[str]) -> tuple[pd.DataFrame, Finding | None]:
    there = set() if evidence.rows is None else set(evidence.rows["system"])
    if missing := [name for name in names if name not in there]:
        words = [f"no rows of {name}: {_command(evidence, name)}" for name in missing]
        return pd.DataFrame(), Finding(UNTESTED, evidence="; ".join(words))
    rows = evidence.rows
    return rows[rows["system"].isin(names)].reset_index(drop=True), None


def _command(evidence: Evidence, system: str) -> str:
    options = f"--profile {evidence.profile} --system '{system}' --samples {FULL}"
    options += f" --manifest {evidence.manifest}" if evidence.manifest else ""
    return f"`pvlib evaluate {options}`"


def _pair(claim: Claim, evidence: Evidence) -> tuple[dict[str, Any], Finding | None]:
    check = claim.check
    rows, lacking = _rows_of(evidence, [check["one"], check["other"]])
    if lacking:
        return {}, lacking
    rows = in_stratum(rows, check["stratum"])
    if check["metric"] in first_words.METRICS:
        rows = first_words.split(rows)
    names = [check["one"], check["other"]]
    both = [rows[rows["system"] == name] for name in names]
    if any(side.empty for side in both):
        return {}, _too_few(evidence, names, 0, check["stratum"], check["metric"])
    compared = pairs.aligned(*both, check["metric"]).dropna(subset=["one", "other"])
    if len(compared) < pairs.LEAST:
        return {}, _too_few(evidence, names, len(compared), check["stratum"], check["metric"])
    differing = pairs.differing(*both, compared)
    if 0 < differing < pairs.LEAST:  # the others are the same sound, and only dilute what these show
        words = f"{check['one']} - {check['other']}, {check['metric']}, {check['stratum']}"
        return {}, Finding(
            INCONCLUSIVE,
            f"{differing} of {len(compared)} pairs differ",
            f"{words}: too few differ at all for a test",
        )
    return {**pairs.paired_line(*both, check["metric"]), "differ": differing}, None


def _varied(claim: Claim, evidence: Evidence) -> tuple[dict[str, Any], Finding | None]:
    """As `_pair`, where the differences vary: else no effect has a size."""
    found, lacking = _pair(claim, evidence)
    if not lacking and np.isnan(found["d"]):
        words = f"all {found['n']} pairs differ by {found['difference']:+.4f}"
        return {}, Finding(INCONCLUSIVE, words, "no variation, so d_z is not defined")
    return found, lacking


def _effect(found: Mapping[str, Any]) -> str:
    return f"d_z = {found['d']:+.3f} [{found['d_low']:+.3f}, {found['d_high']:+.3f}]"


def _too_few(evidence: Evidence, names: list[str], n: int, what: str = "", metric: str = "") -> Finding:
    """What is said where fewer than `pairs.LEAST` utterances could be compared, and what makes more of them."""
    told = (
        f"{n}{' ' * bool(what)}{what} {many(n, 'utterance')}{f' with a value of {metric}' if metric else ''}"
    )
    rows = evidence.rows[evidence.rows["system"].isin(names)]
    if rows["utterance"].nunique() < FULL:
        more = "; ".join(_command(evidence, name) for name in dict.fromkeys(names))
    else:
        more = "a manifest with more such texts is needed"
    return Finding(UNTESTED, evidence=f"{told}, fewer than the {pairs.LEAST} that a verdict needs: {more}")


def _speed_of(evidence: Evidence, system: str) -> tuple[Mapping[str, float], Finding | None]:
    """The real-time factor of a system, where enough texts were timed."""
    found = evidence.speeds.get(system)
    n = int(found.get("utterances", 0)) if found is not None and rtf.timed(found) else 0
    if found is not None and n >= pairs.LEAST:
        return found, None
    words = f"{n} {many(n, 'text')} of {system} timed here, fewer than the {pairs.LEAST} that a verdict needs"
    command = f"`pvlib reproduce --profile {evidence.profile} --samples {FULL}`"
    return {}, Finding(UNTESTED, evidence=f"{words}: {command}")


KINDS: dict[str, Kind] = {
    "arithmetic": Kind(
        arithmetic,
        ("expression", "numbers"),
        ("relation", "against"),
        "{expression} from the paper's own numbers",
    ),
    "count": Kind(count, ("expression", "numbers"), ("relation", "against"), "{expression}, counted here"),
    "document": Kind(
        document, ("against",), ("relation",), "against {against} in the paper's tables and files"
    ),
    "configuration": Kind(configuration, ("parameter",), (), "the default of {parameter}"),
    "property": Kind(property_, ("name",), (), "whether {name}"),
    "level": Kind(
        level,
        ("system", "metric", "stratum"),
        ("profile", "n"),
        "{metric} of {system} on {stratum} texts; refuted by an interval without the printed number",
    ),
    "difference": Kind(
        difference,
        ("one", "other", "metric", "stratum", "expect"),
        ("effect", "texts"),
        "{metric} of {one} against {other} on {stratum} texts, paired, to be {expect}; refuted by the opposite, shown",
    ),
    "negligible": Kind(
        negligible,
        ("one", "other", "metric", "stratum", "margin"),
        ("texts",),
        "{metric} of {one} against {other} on {stratum} texts, the same up to d_z = {margin}; refuted by more",
    ),
    "no-gain": Kind(
        no_gain,
        ("one", "other", "metric", "stratum", "margin", "gain"),
        ("texts",),
        "{metric} of {one} against {other} on {stratum} texts, not {gain} by d_z = {margin}; refuted by that gain, "
        "shown, and by no loss",
    ),
    "identical": Kind(
        identical, ("one", "other"), (), "the same words and similarity from {one} and {other}"
    ),
    "strata": Kind(
        strata,
        ("system", "metric", "first", "second", "expect"),
        (),
        "{metric} of {system} on {first} against {second} texts, to be {expect}; refuted by the opposite, shown",
    ),
    "bimodal": Kind(
        bimodal,
        ("system", "metric", "stratum"),
        ("texts",),
        "two heaps of {metric} of {system}, {stratum} texts: more than one mode, and fewer between than at either end",
    ),
    "speed": Kind(
        speed, ("one", "other", "expect"), (), "real-time factor of {one} to be {expect} than of {other}"
    ),
    "external": Kind(external, ("needs",), (), "not here: {needs}"),
}
