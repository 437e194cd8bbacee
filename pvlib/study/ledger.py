"""The ledger: `data/claims.yaml`, every checkable claim of both source documents, and the verdict computed for each.

A verdict is never typed. `scoreboard` computes all of them from rows, from the implementation and from the paper's own
numbers; a claim whose evidence is not there is `untested`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pvlib import paths, systems
from pvlib.config import ConfigError, get_profile
from pvlib.study import first_words, printed, tables
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study.checks import EXPECTED, KINDS
from pvlib.study.claims import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    ULTRA_SHORT,
    UNTESTED,
    VERDICTS,
    WHO,
    WRONG,
    Claim,
    Evidence,
    Finding,
    entry,
)
from pvlib.study.facts import COUNTS, PROPERTIES, FactError
from pvlib.study.manifest import Manifest, ManifestError
from pvlib.study.measure import CHUNKS, MEANS, STRATA
from pvlib.study.reported import ReportedError
from pvlib.study.rows import PROXIES, RowsError
from pvlib.study.statistics import ALPHA, holm

SOURCES = {"personavoice": "PersonaVoice v10.4.8", "sv2tts": "Inside SV2TTS"}
COLUMNS = ("id", "source", "where", "quote", "value", "kind", "verdict", "measured", "evidence")
COLUMNS += ("p", "p_holm", "notebook", "check")
CLAIM_FIELDS = tuple(f.name for f in fields(Claim))
REQUIRED = ("id", "source", "where", "quote", "kind", "check")
COMPARED = (*MEANS, "cfr", *first_words.METRICS[1:])  # metrics of a single utterance
ALWAYS = ("seed", "words", "wer", "wer_capped")  # columns with a number in every row
WHOLE = (
    *ALWAYS,
    "secs_ecapa_clip",
    "secs_ge2e_clip",
    "dnsmos",
    "generated_seconds",
)  # and in those that did not fail
CHOICES: dict[str, Iterable[str]] = {
    "stratum": (*STRATA, *CHUNKS),
    "first": STRATA,
    "second": STRATA,
    "expect": EXPECTED,
    "gain": EXPECTED,
    "relation": printed.RELATIONS,
    "texts": (ULTRA_SHORT,),
}
OWN_STANDARD = (
    "criterion-of-power",
    "laag-evens-lengths",
)  # claims whose arithmetic asks more than agreement
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class LedgerError(ValueError):
    """A ledger that cannot be read or evidence that does not belong together; the message names the claim or row."""


# The file


def load(path: Path | None = None) -> list[Claim]:
    """The claims of a ledger file, by default `data/claims.yaml`, validated; see `check_claim`.

    The file has `claims`, a list, and `systems`, short names of systems for use in checks. Raises LedgerError naming
    the file and the claim.
    """
    path = path or paths.DATA / "claims.yaml"
    content = _content(path)
    short = content.get("systems") or {}
    claims: dict[str, Claim] = {}
    for position, raw in enumerate(content["claims"], 1):
        try:
            claim = _claim(raw, short)
            if claim.id in claims:
                raise ValueError("appears twice")
            check_claim(claim)
        except (ValueError, ConfigError, ReportedError) as error:
            name = raw.get("id", f"number {position}") if isinstance(raw, dict) else f"number {position}"
            raise LedgerError(f"{path}: claim {name}: {error}") from error
        claims[claim.id] = claim
    for claim in claims.values():
        for reference in _references(claim):
            if reference.startswith("claim:") and reference.removeprefix("claim:") not in claims:
                raise LedgerError(
                    f"{path}: claim {claim.id}: there is no claim {reference.removeprefix('claim:')!r}"
                )
    return list(claims.values())


def short_names() -> dict[str, str]:
    """Short names of systems in the committed ledger, and the systems they stand for. Raises LedgerError."""
    return dict(_content(paths.DATA / "claims.yaml").get("systems") or {})


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LedgerError(f"{path} is missing; restore it with `git checkout -- {path}`") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LedgerError(
            f"{path} cannot be read: {error}; restore it with `git checkout -- {path}`"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise LedgerError(f"{path} holds no list `claims`")
    return content


def check_claim(claim: Claim) -> None:
    """Raises ValueError (or ReportedError) when a claim is not one that can be checked.

    Checked are the fields of its kind, the names in them (metrics, strata, relations, counts, properties, entries of
    the reported tables), and that its value is the number that `data/reported` holds for the same place.
    """
    if not _ID.fullmatch(claim.id):
        raise ValueError("an id is written in small letters, digits and hyphens")
    if claim.source not in SOURCES:
        raise ValueError(f"no source {claim.source!r}: {', '.join(SOURCES)}")
    if claim.kind not in KINDS:
        raise ValueError(f"no kind {claim.kind!r}: choose one of {', '.join(KINDS)}")
    kind, check = KINDS[claim.kind], claim.check
    if missing := [name for name in kind.needs if name not in check]:
        raise ValueError(f"its check lacks {', '.join(missing)}")
    if unknown := set(check) - set(kind.needs) - set(kind.may):
        raise ValueError(f"its check has {', '.join(sorted(unknown))}, which {claim.kind} does not know")
    for name, allowed in CHOICES.items():
        if name in check and check[name] not in allowed:
            raise ValueError(f"no {name} {check[name]!r}: choose one of {', '.join(allowed)}")
    metrics = (*COMPARED, *PROXIES, "rtf") if claim.kind == "level" else COMPARED
    if "metric" in check and check["metric"] not in metrics:
        raise ValueError(f"no metric {check['metric']!r}: choose one of {', '.join(metrics)}")
    if claim.kind == "property" and check["name"] not in PROPERTIES:
        raise ValueError(f"nothing shows {check['name']!r}: choose one of {', '.join(PROPERTIES)}")
    if claim.kind in ("level", "document", "configuration") and not claim.value:
        raise ValueError("it needs the printed value")
    for reference in _references(claim):
        where, _, name = reference.partition(":")
        if where == "reported":
            entry(name)
        elif where == "counted" and name not in COUNTS:
            raise ValueError(f"nothing counts {name!r}: choose one of {', '.join(COUNTS)}")
        elif where not in ("claim", "counted"):
            printed.parse(reference)
    if claim.kind == "document":
        entry(check["against"])
    if claim.reported:
        _same(claim.value, entry(claim.reported), claim.reported)


def _same(value: str, there: str, reference: str) -> None:
    """The value as the reported table has it: the same text, or the same number where one is a percentage."""
    try:
        same = abs(printed.parse(value).value - printed.parse(there).value) < 1e-9
    except ValueError:
        same = value == there
    if not same:
        raise ValueError(f"its value is {value!r}, but data/reported has {there!r} at {reference}")


def _claim(raw: Any, short: Mapping[str, str]) -> Claim:
    if not isinstance(raw, dict):
        raise ValueError("a claim is a mapping of fields")
    if missing := [name for name in REQUIRED if not raw.get(name)]:
        raise ValueError(f"no {', '.join(missing)}")
    if unknown := set(raw) - set(CLAIM_FIELDS):
        raise ValueError(f"no field is called {', '.join(sorted(map(str, unknown)))}")
    for name, value in raw.items():
        if not isinstance(value, dict if name == "check" else str):
            raise ValueError(
                f"{name} is {value!r}; write {'a mapping' if name == 'check' else 'it in quotation marks'}"
            )
    check = dict(raw["check"])
    for name in set(WHO) & set(check):
        if check[name] not in short and not systems.is_known(check[name]):
            raise ValueError(
                f"no system {check[name]!r}: name one of `systems` in this file, or one that runs here"
            )
        check[name] = short.get(check[name], check[name])
    numbers = check.get("numbers", {})
    if not isinstance(numbers, dict) or not all(isinstance(text, str) for text in numbers.values()):
        raise ValueError("numbers is a mapping of names to printed texts; write each in quotation marks")
    return Claim(**{**raw, "check": check})


def _references(claim: Claim) -> list[str]:
    """What its expression is made of and held against."""
    if "expression" not in claim.check:
        return []
    return [*claim.check["numbers"].values(), str(claim.check.get("against", claim.value))]


# Evidence


def evidence(
    profile: str = "mini",
    rows: pd.DataFrame | None = None,
    speeds: Mapping[str, Mapping[str, float]] | None = None,
    *,
    manifest: Manifest | None = None,
    short_rows: pd.DataFrame | None = None,
    variant_rows: pd.DataFrame | None = None,
) -> Evidence:
    """Rows and speeds of a profile: those given, else the committed ones, else none.

    rows: as `evaluate` returns them; short_rows: of the profile's manifest of ultra-short texts; variant_rows: of
    the ablations. Without `rows` these two are the committed ones as well. Raises LedgerError when rows are of
    another manifest or some are missing, RowsError when committed files are damaged.
    """
    settings = get_profile(profile)
    if rows is None:
        rows = _committed(profile)
        if rows is not None and speeds is None:
            speeds = tables.committed_speeds(profile)
        if short_rows is None and settings.ultra_short:
            short_rows = _committed(row_files.part_of(profile, settings.ultra_short))
        if variant_rows is None:
            variant_rows = _committed(f"{profile}/{row_files.VARIANTS}")
    if rows is not None:
        check_rows(rows, manifest or manifests.read(settings.manifest))
    if short_rows is not None:
        check_rows(short_rows, manifests.read(settings.ultra_short))
    if variant_rows is not None:
        check_rows(variant_rows, manifest or manifests.read(settings.manifest))
    return Evidence(profile, rows, speeds or {}, short_rows, variant_rows)


def _committed(profile: str) -> pd.DataFrame | None:
    """Recorded rows, None where nothing was recorded. Raises LedgerError where a system lost some."""
    if not row_files.is_recorded(profile):
        return None
    recorded = row_files.provenance(profile)
    rows = row_files.committed(profile)
    for name, own in rows.groupby("system"):
        if own["utterance"].nunique() != recorded["samples"]:
            raise LedgerError(
                f"{row_files.committed_path(profile, name)} holds {own['utterance'].nunique()} utterances of the "
                f"{recorded['samples']} recorded; restore it with `git checkout -- {paths.RESULTS / profile}`"
            )
    return rows


def check_rows(rows: pd.DataFrame, manifest: Manifest) -> None:
    """Raises LedgerError when rows lack a column, are not of this manifest, repeat, or differ between systems.

    An impostor says another sentence than the manifest's, so its text is not compared.
    """
    if missing := [name for name in row_files.COLUMNS if name not in rows]:
        raise LedgerError(f"these are no rows: no column {', '.join(missing)}")
    for column in WHOLE:
        needed = rows if column in ALWAYS else rows[rows["error"].fillna("") == ""]
        values = pd.to_numeric(needed[column], errors="coerce")
        if not np.isfinite(values).all():
            row = needed[~np.isfinite(values)].iloc[0]
            raise LedgerError(
                f"{row['system']}: {row['utterance']} has no {column}; the row is cut short or damaged: restore its "
                "file with git, or evaluate it again"
            )
    known = manifest.table.set_index("utterance")
    if len(foreign := rows[~rows["utterance"].isin(known.index)]):
        raise LedgerError(
            f"{foreign.iloc[0]['system']}: {foreign.iloc[0]['utterance']} is not in the manifest {manifest.name} "
            f"({len(foreign)} such rows); give the rows of this manifest"
        )
    own = known.loc[rows["utterance"]].reset_index()
    for column in ("speaker", "bucket", "text"):
        differs = rows[column].to_numpy() != own[column].to_numpy()
        if column == "text":
            differs &= rows["system"].to_numpy() != "impostor"
        if differs.any():
            row = rows[differs].iloc[0]
            raise LedgerError(
                f"{row['system']}: {row['utterance']} has another {column} than in the manifest {manifest.name} "
                f"({row[column]!r}); evaluate it again"
            )
    if len(again := rows[rows.duplicated(["system", "utterance", "seed"])]):
        raise LedgerError(
            f"{again.iloc[0]['system']}: {again.iloc[0]['utterance']} appears twice with the same seed"
        )
    everyone = set(rows["utterance"])
    for name, own in rows.groupby("system"):
        if lost := sorted(everyone - set(own["utterance"])):
            raise LedgerError(
                f"{name} has no row of {lost[0]} ({len(lost)} such), other systems have; `pvlib evaluate` finishes it"
            )


# Verdicts


def scoreboard(
    evidence: Evidence, claims: Sequence[Claim] | None = None, *, only: Iterable[str] | None = None
) -> pd.DataFrame:
    """Every claim with its verdict, a line each: columns as `COLUMNS`.

    claims: default those of the committed ledger; only: ids of those to judge, default all.
    A finding that rests on a test counts only if its p survives Holm's correction over its family (`families`);
    otherwise it is inconclusive. `check` says in words how the claim is tested and what would refute it.
    Raises LedgerError naming the claim whose evidence does not fit together.
    """
    claims = load() if claims is None else claims
    by_id = {claim.id: claim for claim in claims}
    chosen = claims if only is None else [by_id[name] for name in only]
    findings = []
    for claim in chosen:
        try:
            findings.append(KINDS[claim.kind].run(claim, evidence.of(claim.check), by_id))
        except (ValueError, FactError, ManifestError, RowsError) as error:
            raise LedgerError(f"claim {claim.id}: {error}") from error
    for_it = families(chosen, [finding.p for finding in findings])
    against = families(chosen, [finding.p_against for finding in findings])
    lines = [
        _line(claim, finding, *_tested(finding, *corrected))
        for claim, finding, *corrected in zip(chosen, findings, for_it, against, strict=True)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def families(claims: Sequence[Claim], p: Sequence[float]) -> np.ndarray:
    """The p of each claim after Holm's correction over its family; NaN where there was no test.

    p: of one question to each claim. A family is what one notebook shows: its differences, and apart from them its
    equivalences and claims of no gain, of which it is asked once whether they hold and once whether they fail. So a
    claim has one p, whichever notebook prints it. The same test behind two claims counts once.
    """
    tests: dict[tuple[str, bool], dict[str, float]] = {}
    where = []
    for claim, value in zip(claims, p, strict=True):
        family = (claim.notebook, claim.kind in ("negligible", "no-gain"))
        test = json.dumps([claim.kind, {name: str(v) for name, v in claim.check.items() if name != "effect"}])
        tests.setdefault(family, {})[test] = value
        where.append((family, test))
    corrected = {
        family: dict(zip(own, holm(list(own.values())), strict=True)) for family, own in tests.items()
    }
    return np.array([corrected[family][test] for family, test in where])


def _tested(finding: Finding, for_it: float, against: float) -> tuple[float, float]:
    """The p that a verdict rests on, and the same after the correction."""
    turned = finding.verdict == CONTRADICTED and not np.isnan(finding.p_against)
    return (finding.p_against, against) if turned else (finding.p, for_it)


def _line(claim: Claim, finding: Finding, p: float, corrected: float) -> tuple[Any, ...]:
    verdict, words = finding.verdict, finding.evidence
    if verdict in (SUPPORTED, CONTRADICTED) and corrected >= ALPHA:
        verdict, words = INCONCLUSIVE, f"{words}; not after Holm's correction (p = {corrected:.3g})"
    words = f"{words}. {claim.note}" if claim.note else words
    how = KINDS[claim.kind].words.format_map(claim.check)
    values = (SOURCES[claim.source], claim.where, claim.quote, claim.value, claim.kind, verdict)
    return (claim.id, *values, finding.measured, words, p, corrected, claim.notebook, how)


def tally(board: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each source have which verdict; lines are verdicts in the order of `VERDICTS`."""
    counts = pd.crosstab(board["verdict"], board["source"])
    counts = counts.reindex(index=list(VERDICTS), columns=list(SOURCES.values()), fill_value=0)
    return counts.assign(all=counts.sum(axis=1)).rename_axis(columns=None)


def summary(board: pd.DataFrame) -> list[str]:
    """Sentences about a scoreboard: how many claims could be judged, and what came of them."""
    counts = board["verdict"].value_counts()
    judged = len(board) - counts.get(UNTESTED, 0)
    told = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name != UNTESTED and name in counts)
    sentences = [f"{judged} of {len(board)} claims have a verdict: {told}."]
    arithmetic = board[board["kind"] == "arithmetic"]
    if len(arithmetic):
        wrong = arithmetic["verdict"] == WRONG
        ours = (wrong & arithmetic["id"].isin(OWN_STANDARD)).sum()
        sentences.append(
            f"Of {len(arithmetic)} places where the paper's own numbers can be held against each other, "
            f"{wrong.sum() - ours} do not agree within their rounding"
            + (f", and {ours} more fall short of a standard that is ours." if ours else ".")
        )
    tested = board["p"].notna().sum()
    sentences.append(
        f"{tested} claims were put to a test, and Holm's correction runs over those of each notebook, differences and "
        "equivalences apart."
        if tested
        else "No verdict rests on a paired test yet: the variants that would be compared are still to be measured."
    )
    return sentences
