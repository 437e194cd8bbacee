"""The audit: the paper's printed numbers beside what its own per-sample files give.

Means, failure rates and real-time factors by length of text, and the ablation's paired tests, computed again. A printed
number is supported where the recomputed one lies within its rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pvlib.metrics.cfr import cfr
from pvlib.study import ledger, printed, released, reported
from pvlib.study.claims import SUPPORTED, Claim, entry
from pvlib.study.measure import STRATA, in_stratum
from pvlib.study.released import FULL, SYSTEMS, VARIANTS, WITHOUT, Released, ReleasedError
from pvlib.study.statistics import cohens_d, holm, paired_t
from pvlib.study.tables import KEY_LINES

UNSUPPORTED, NO_DATA = "not supported", "no data"
COLUMNS = ("system", "metric", "stratum", "how", "n", "failed", "value", "p_holm")
COLUMNS += ("printed", "verdict", "quoted", "quote_verdict", "claims")
NUMBERS = ("n", "failed", "value", "p_holm")
FIELDS = {"secs_ecapa_clip": "secs", "wer_capped": "wer"}  # our names of what the files hold
FROM_FILES = "released results"  # the source of what data/reported quotes from these files

# How a figure is computed
MEAN, HEARD, SHARE = "mean", "mean without failed", "share"
TOTALS, PER_SAMPLE = "total time / total speech", "mean of ratios"
DIFFERENCE, P, EFFECT = "mean difference", "p of paired t", "d_z"


@dataclass(frozen=True)
class Audit:
    """What came of it.

    figures: a line per recomputed figure, columns as `COLUMNS`. printed: the paper's number; quoted: what data/reported
    quotes of the released files; each with its verdict. claims: ids of the ledger's claims that rest on either.
    p_holm: Holm's correction over all tests of the ablation. A line without a value is a number of the Key Results of
    which the files hold no samples.
    """

    figures: pd.DataFrame
    released: Released


def audit(folder: Path) -> Audit:
    """Recompute what a checkout of the paper's repository supports. Raises ReleasedError, as `released.read` does, and
    where the ablation's samples cannot be paired."""
    found = released.read(folder)
    book = Book(ledger.load())
    lines = [line for source in SYSTEMS for line in _key_results(found.samples, source.system, book)]
    lines += _ablation(found.samples, folder / released.ABLATION, book)
    return Audit(pd.DataFrame([*lines, *book.unread()], columns=list(COLUMNS)), found)


# What is printed


class Book:
    """The paper's printed numbers, what data/reported quotes of the released files, and the ledger's claims."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.claims = claims
        self.table = reported.read("key_results")
        self.names = {
            (line.metric, line.stratum): line.paper
            for line in KEY_LINES
            if line.paper and line.metric in (*FIELDS, "cfr")
        }
        self.names["rtf", "overall"] = "rtf"
        self.read: set[str] = set()

    def references(self, metric: str, stratum: str, system: str) -> dict[str, str]:
        """Where ("table/metric/system") the number stands that is `printed`, and the one that is `quoted`."""
        name = self.names.get((metric, stratum), "")
        found = {}
        for candidate in (name, f"{name}_recomputed"):
            row = reported.printed(self.table, candidate, system)
            if row is not None:
                kind = "quoted" if FROM_FILES in row["source"] else "printed"
                found[kind] = f"key_results/{candidate}/{system}"
        return found

    def text(self, reference: str) -> str:
        """A number in the words of the paper, which the ledger has; else as in data/reported."""
        self.read.add(reference)
        words = [claim.value for claim in self.claims if claim.reported == reference and claim.value]
        return words[0] if words else entry(reference)

    def claims_on(self, references: Iterable[str], metric: str = "") -> str:
        """Ids of the claims that rest on an entry; of those that name a metric, the ones of this metric."""
        wanted = set(references)
        return ", ".join(
            claim.id
            for claim in self.claims
            if wanted & _rests_on(claim) and (not metric or claim.check.get("metric", metric) == metric)
        )

    def unread(self) -> list[dict[str, Any]]:
        """A line for each number of the Key Results that nothing in the released files could be held against."""
        ours = {name: where for where, name in self.names.items()}
        lines = []
        for row in self.table[~self.table["source"].str.contains(FROM_FILES)].itertuples():
            reference = f"key_results/{row.metric}/{row.system}"
            if reference not in self.read:
                metric, stratum = ours.get(row.metric, (row.metric, ""))
                line = _line(row.system, metric, stratum, "", 0, 0, math.nan)
                told = {"printed": self.text(reference), "verdict": NO_DATA}
                lines.append(line | told | {"claims": self.claims_on([reference])})
        return lines


def _rests_on(claim: Claim) -> set[str]:
    texts = [claim.reported, str(claim.check.get("against", "")), *claim.check.get("numbers", {}).values()]
    return {text.removeprefix("reported:") for text in texts if text}


def compare(text: str, value: float) -> str:
    """Whether a recomputed value lies within the rounding of a printed number: "supported" or "not supported".

    text: as printed; a limit such as "<0.05" is one of the value's size. Raises ValueError when it is no number.
    """
    limit = text.startswith("<")
    found = printed.exact(abs(value) if limit else value)
    holds = printed.holds(found, "less than" if limit else "equals", printed.parse(text))
    return SUPPORTED if holds else UNSUPPORTED


# What is recomputed


def _line(
    system: str, metric: str, stratum: str, how: str, n: int, failed: int, value: float
) -> dict[str, Any]:
    known = {"system": system, "metric": metric, "stratum": stratum, "how": how}
    empty = {name: math.nan if name in NUMBERS else "" for name in COLUMNS}
    return empty | known | {"n": n, "failed": failed, "value": float(value)}


def _levels(part: pd.DataFrame) -> list[tuple[str, str, int, float]]:
    """Metric, how, n and value for some samples of one system.

    Where the file gives a similarity of a failed sample, the mean is taken with it, as the paper did, and without.
    """
    if part.empty:
        return []
    failed = part["error"] != ""
    ways = [("secs_ecapa_clip", MEAN, part["secs"].dropna()), ("wer_capped", MEAN, part["wer"])]
    if part.loc[failed, "secs"].notna().any():
        ways.insert(1, ("secs_ecapa_clip", HEARD, part.loc[~failed, "secs"]))
    means = [(metric, how, len(values), values.mean()) for metric, how, values in ways if len(values)]
    return [*means, ("cfr", SHARE, len(part), cfr(part["wer"]))]


def _speeds(part: pd.DataFrame) -> list[tuple[str, str, int, float]]:
    """The same for the real-time factor; failed samples have none."""
    spoken = part[part["error"] == ""]
    if spoken.empty:
        return []
    time, seconds = spoken["time"], spoken["seconds"]
    return [
        ("rtf", TOTALS, len(spoken), time.sum() / seconds.sum()),
        ("rtf", PER_SAMPLE, len(spoken), (time / seconds).mean()),
    ]


def _key_results(samples: pd.DataFrame, system: str, book: Book) -> list[dict[str, Any]]:
    """One system on each length of text, and its speed, beside what is printed and quoted."""
    own = samples[samples["system"] == system]
    lines = []
    for stratum in STRATA:
        part = own if stratum == "overall" else in_stratum(own, stratum)
        found = _levels(part) + (_speeds(part) if stratum == "overall" else [])
        for metric, how, n, value in found:
            line = _line(system, metric, stratum, how, n, (part["error"] != "").sum(), value)
            references = book.references(metric, stratum, system)
            for kind, verdict in (("printed", "verdict"), ("quoted", "quote_verdict")):
                if kind in references:
                    line[kind] = book.text(references[kind])
                    line[verdict] = compare(line[kind], value)
            lines.append(line | {"claims": book.claims_on(references.values(), metric)})
    return lines


def _ablation(samples: pd.DataFrame, path: Path, book: Book) -> list[dict[str, Any]]:
    """The full system and each without a module: means, then paired tests with Holm's correction over all of them.

    The paper prints two p-values a module without naming the metrics; they are taken as SECS and WER, in this order,
    as results/ablation_200_statistics.json of its repository has them.
    """
    lines, tests = [], []
    for source in VARIANTS:
        own = samples[samples["system"] == source.system]
        failed = (own["error"] != "").sum()
        lines += [
            _line(source.system, m, "overall", how, n, failed, value) for m, how, n, value in _levels(own)
        ]
    for name, module in WITHOUT.items():
        pairs = _pairs(samples, name, path)
        p_entry, d_entry = (f"retired_modules/{column}/{module}" for column in ("p_value", "cohens_d"))
        for (metric, field), p_text in zip(FIELDS.items(), book.text(p_entry).split(" / "), strict=True):
            both = pairs[[f"{field}_full", f"{field}_without", "failed"]].dropna()
            a, b = both[f"{field}_full"].to_numpy(), both[f"{field}_without"].to_numpy()
            try:
                p, d = paired_t(a, b).p, cohens_d(a, b).value
            except ValueError as error:
                raise ReleasedError(
                    f"{path}: {field} of {FULL} and {name} cannot be tested: {error}"
                ) from error
            for how, value, text, reference in (
                (DIFFERENCE, (a - b).mean(), "", ""),
                (P, p, p_text, p_entry),
                (EFFECT, d, book.text(d_entry), d_entry),
            ):
                line = _line(
                    f"{FULL} - {name}", metric, "overall", how, len(both), both["failed"].sum(), value
                )
                if text:
                    told = {"printed": text, "verdict": compare(text, value)}
                    line |= told | {"claims": book.claims_on([reference], metric)}
                lines.append(line)
            tests.append(lines[-2])
    for line, corrected in zip(tests, holm([line["value"] for line in tests]), strict=True):
        line["p_holm"] = float(corrected)
    return lines


def _pairs(samples: pd.DataFrame, name: str, path: Path) -> pd.DataFrame:
    """The samples of the full system and of one without a module, side by side, by their `idx`.

    A failed sample may lack it: it cannot be paired and is left out, which n tells.
    """
    sides = [samples[(samples["system"] == side) & samples["idx"].notna()] for side in (FULL, name)]
    both = sides[0].merge(sides[1], on="idx", suffixes=("_full", "_without"))
    if len(others := both[(both["words_full"] - both["words_without"]).abs() > 0]):
        row = others.iloc[0]
        raise ReleasedError(
            f"{path}: idx {row['idx']:.0f} has {row['words_full']:.0f} words in {row['record_full']} and "
            f"{row['words_without']:.0f} in {row['record_without']}; check the file out again"
        )
    return both.assign(failed=(both["error_full"] != "") | (both["error_without"] != ""))


# In words


def failures(audit: Audit) -> list[str]:
    """The failed samples, a line each: system, where it stands in the files, how long its text is, and the error."""
    samples = audit.released.samples
    return [
        f"{row.system}, {row.record} ({'length unknown' if math.isnan(row.words) else f'{row.words:.0f} words'}): "
        f"{row.error}"
        for row in samples[samples["error"] != ""].itertuples()
    ]


def summary(audit: Audit) -> list[str]:
    """What the audit found, in sentences. A printed number that one way of computing supports is supported."""
    figures = audit.figures
    told = figures[(figures["printed"] != "") & (figures["verdict"] != NO_DATA)]
    keys = ["system", "metric", "stratum", "printed"]
    right = (told["verdict"] == SUPPORTED).groupby([told[key] for key in keys], sort=False).any()
    sentences = [
        f"{right.sum()} of {len(right)} printed numbers are what the released files give, within their rounding."
    ]
    if not right.all():
        names = [
            f"{metric} of {system}, {stratum}: {text}"
            for system, metric, stratum, text in right[~right].index
        ]
        sentences.append(f"Not supported: {'; '.join(names)}.")
    quoted = figures[figures["quoted"] != ""]
    same = (quoted["quote_verdict"] == SUPPORTED).groupby([quoted[key] for key in keys[:3]], sort=False).any()
    sentences.append(
        f"{same.sum()} of {len(same)} figures that data/reported quotes of these files agree with them."
    )
    if not same.all():
        names = [f"{metric} of {system}, {stratum}" for system, metric, stratum in same[~same].index]
        sentences.append(f"Quoted otherwise: {'; '.join(names)}; this checkout may be of another version.")
    absent = figures[figures["verdict"] == NO_DATA].groupby("system", sort=False)["metric"].unique()
    sentences += [f"No samples of {system} for {', '.join(metrics)}." for system, metrics in absent.items()]
    if audit.released.version:
        sentences.append(
            f"{released.EVALUATION} says that it measured version {audit.released.version}; the paper prints its "
            f"numbers for {released.OURS}."
        )
    sentences.append(f"The ablation takes modules from {FULL}.")
    failed = failures(audit)
    return [*sentences, f"Failed samples: {len(failed)}.", *failed]


def text(audit: Audit) -> str:
    """The figures as plain text, a block per system, and the summary."""
    figures = audit.figures[audit.figures["verdict"] != NO_DATA]
    blocks = []
    for system, own in figures.groupby("system", sort=False):
        shown = own.drop(columns="system").loc[:, lambda table: ~table.isin(["", math.nan]).all()]
        columns = {
            name: lambda value: "" if math.isnan(value) else f"{value:.4f}" for name in ("value", "p_holm")
        }
        blocks.append(f"{system}\n{shown.to_string(index=False, formatters=columns, na_rep='')}")
    return "\n\n".join([*blocks, "\n".join(summary(audit))])
