"""What a claim, its evidence and a finding are, and how a claim refers to numbers that stand elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from pvlib.config import get_profile
from pvlib.study import facts, printed, reported

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
RIGHT, WRONG = "arithmetic-ok", "arithmetic-wrong"
ADOPTED, DEPARTED = "adopted", "departed"
UNTESTED = "untested"
VERDICTS = {
    SUPPORTED: "what was computed here, or the paper's own files, agree with the claim",
    CONTRADICTED: "they show the opposite, or another number",
    INCONCLUSIVE: "the evidence is there and decides nothing",
    RIGHT: "the paper's own numbers agree with each other within their rounding",
    WRONG: "they do not, or fall short of a standard that the line names",
    ADOPTED: "a setting or a mechanism of the paper that is the same here; what it is good for is another claim",
    DEPARTED: "a setting of the paper that is another here",
    UNTESTED: "the evidence is not there; the line says what would make it",
}
ULTRA_SHORT = "ultra-short"  # `texts` of a check that is about the second manifest
WHO = ("system", "one", "other")  # fields of a check that may hold the name of a system


@dataclass(frozen=True)
class Claim:
    """One claim: where it stands, word for word, and how it is checked.

    value: the printed number. reported: the entry of `data/reported` that repeats it, "table/metric/system".
    check: the fields that its kind asks for. notebook: the number of the notebook that shows the evidence. note: what a
    reader of the verdict should know, shown with the evidence.
    """

    id: str
    source: str
    where: str
    quote: str
    kind: str
    check: Mapping[str, Any]
    value: str = ""
    reported: str = ""
    notebook: str = ""
    note: str = ""


@dataclass(frozen=True)
class Evidence:
    """What verdicts are computed from: rows of `evaluate` and real-time factors, of one profile; both may be absent.

    speeds: system -> {"median", "low", "high", "utterances"}. short_rows: of the profile's manifest of ultra-short
    texts. variant_rows: of the pipeline and its variants on a share of the study. manifest: what `rows` are of, "" for
    the profile's own.
    """

    profile: str
    rows: pd.DataFrame | None = None
    speeds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    short_rows: pd.DataFrame | None = None
    variant_rows: pd.DataFrame | None = None
    manifest: str = ""

    def of(self, check: Mapping[str, Any]) -> Evidence:
        """The evidence with the rows that a check is about.

        Those of its `texts`, where it has none of the main manifest; those of the variants, where only they have all
        systems that the check names.
        """
        if check.get("texts", "") == ULTRA_SHORT:
            return replace(self, rows=self.short_rows, manifest=get_profile(self.profile).ultra_short)
        named = {check[who] for who in WHO if who in check}
        if named and not named <= _systems(self.rows) and named <= _systems(self.variant_rows):
            return replace(self, rows=self.variant_rows)
        return self


def _systems(rows: pd.DataFrame | None) -> set[str]:
    return set() if rows is None else set(rows["system"])


@dataclass(frozen=True)
class Finding:
    """A verdict with what was computed.

    p: of the test that the verdict rests on, where there was one; p_against: of the opposite question's, where a claim
    is supported by one test and contradicted by another.
    """

    verdict: str
    measured: str = ""
    evidence: str = ""
    p: float = float("nan")
    p_against: float = float("nan")


def number(reference: str, claims: Mapping[str, Claim]) -> printed.Number:
    """A number by reference: "claim:ID", "reported:TABLE/METRIC/SYSTEM", "counted:NAME", else the text as printed.

    Raises ValueError when there is no such thing.
    """
    where, _, name = str(reference).partition(":")
    if where == "claim":
        if name not in claims:
            raise ValueError(f"there is no claim {name!r}")
        return printed.parse(claims[name].value)
    if where == "reported":
        return printed.parse(entry(name))
    if where == "counted":
        return printed.exact(facts.counted(name))
    return printed.parse(str(reference))


def entry(reference: str) -> str:
    """The printed text at "table/metric/system" in `data/reported`. Raises ValueError when there is none."""
    table, metric, system = (reference.split("/", 2) + ["", ""])[:3]
    found = reported.printed(reported.read(table), metric, system)
    if found is None:
        raise ValueError(f"data/reported/{table}.csv has no {metric} of {system}")
    return f"~{found['value']}" if found["estimated"] else str(found["value"])
