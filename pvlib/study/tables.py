"""Tables as a reader sees them: the paper's key results beside what was measured here, and the README's block."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pvlib import paths
from pvlib.study import reported
from pvlib.study import rows as row_files
from pvlib.study.measure import lookup, measure
from pvlib.study.rows import PROXIES
from pvlib.systems import CONTROLS, EXTERNAL, MAIN, NAMES

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
ABSENT = "-"
BACKBONE_LONG_WER = 0.5  # what the first weights should reach


class TableError(RuntimeError):
    """A table that cannot be made; the message says what is missing."""


@dataclass(frozen=True)
class Line:
    """One line of the key-results table: what is measured, where, and the paper's name for it."""

    title: str
    metric: str
    stratum: str = "overall"
    paper: str = ""
    form: str = ".3f"


KEY_LINES = (
    Line("SECS, ECAPA, against the clip", "secs_ecapa_clip", "overall", "secs_ecapa_overall"),
    Line("SECS, ECAPA, against the clip, long text", "secs_ecapa_clip", "long", "secs_ecapa_long"),
    Line("SECS, ECAPA, against the speaker's other speech", "secs_ecapa_speaker"),
    Line("SECS, GE2E, against the clip", "secs_ge2e_clip"),
    Line("SECS, GE2E, against the speaker's other speech", "secs_ge2e_speaker"),
    Line("SECS retention, GE2E (0 impostor, 1 ground truth)", "secs_retention"),
    Line("WER, capped at 1", "wer_capped", "overall", "wer_overall"),
    Line("WER, capped at 1, long text", "wer_capped", "long", "wer_long"),
    Line("WER, capped at 1, short text (<= 8 words)", "wer_capped", "short", "wer_short"),
    Line("WER, capped at 1, 5-8 words", "wer_capped", "5-8 words"),
    Line("WER, capped at 1, ultra-short text (<= 4 words)", "wer_capped", "ultra-short", "wer_ultra_short"),
    Line("WER, uncapped", "wer"),
    Line("WER, uncapped, long text", "wer", "long"),
    Line("WER, corpus", "wer_corpus"),
    Line("CFR (WER > 0.5)", "cfr", "overall", "cfr_overall", ".1%"),
    Line("CFR, long text", "cfr", "long", "", ".1%"),
    Line("CFR, short text (<= 8 words)", "cfr", "short", "cfr_short", ".1%"),
    Line("CFR, ultra-short text (<= 4 words)", "cfr", "ultra-short", "cfr_ultra_short", ".1%"),
    Line("DNSMOS (proxy; the paper: UTMOS, another scale)", "dnsmos", "overall", "utmos", ".2f"),
)
PROXY_LINES = (  # in the place of the last one, where the rows have them
    Line("DNSMOS (proxy)", "dnsmos", form=".2f"),
    Line("UTMOS (proxy)", "utmos", "overall", "utmos", ".2f"),
    Line("SIM-o, WavLM, against the clip", "sim_o"),
)


def key_results(
    rows: pd.DataFrame,
    speeds: Mapping[str, Mapping[str, Any]] | None = None,
    demo: pd.DataFrame | None = None,
    *,
    measured: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The paper's key-results table: lines are metrics, columns systems, the paper's printed value beside ours.

    rows: as `evaluate` returns them. speeds: system -> {"median", "low", "high"} of the real-time factor, as in
    `rtf.json`. demo: rows of `manifest.demo()`. measured: the result of `measure(rows)` where it is at hand.
    A cell is "value [95 % interval]"; for RTF "median (lowest-highest)". Every cell is text; "-" is not measured.
    """
    measured = measure(rows) if measured is None else measured
    paper = reported.read("key_results")
    columns = _columns(list(dict.fromkeys(rows["system"])))
    lines = {}
    for line in (*KEY_LINES[:-1], *PROXY_LINES) if set(PROXIES) <= set(rows) else KEY_LINES:
        lines[line.title] = [
            _paper_cell(paper, line.paper, name, line.form)
            if theirs
            else _cell(lookup(measured, line.metric, line.stratum, name), line.form)
            for name, theirs in columns
        ]
    lines["RTF, one utterance at a time"] = [
        _paper_cell(paper, "rtf", name, "") if theirs else _speed((speeds or {}).get(name))
        for name, theirs in columns
    ]
    for title, metric, column in (
        ("Demo clip (the paper: 1111.mp3) SECS, long text", "demo_secs_long", "secs_ecapa_clip"),
        ("Demo clip (the paper: 1111.mp3) WER, long text", "demo_wer_long", "wer_capped"),
    ):
        lines[title] = [
            _paper_cell(paper, metric, name, "") if theirs else _demo_cell(demo, name, column)
            for name, theirs in columns
        ]
    failures = rows.assign(failed=rows["error"] != "").groupby("system")["failed"].agg(["sum", "size"])
    lines["Failed syntheses"] = [
        ABSENT if theirs else f"{failures.loc[name, 'sum']} of {failures.loc[name, 'size']}"
        for name, theirs in columns
    ]
    titles = [f"{name} (paper)" if theirs else name for name, theirs in columns]
    return pd.DataFrame(list(lines.values()), index=pd.Index(lines, name="metric"), columns=titles)


def without_vocoders(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without those of other vocoders of the same system (`systems.NAMES` beyond `systems.MAIN`)."""
    return rows[~rows["system"].isin(set(NAMES) - set(MAIN))].reset_index(drop=True)


def demo_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The demo clip's texts, ours beside the paper's `1111.mp3` (other sentences, another voice).

    rows: of `manifest.demo()`. Columns: system, name, text, secs, wer, and the paper's values as printed.
    """
    paper = reported.read("demo")
    table = []
    for row in rows.itertuples():
        name = row.utterance.partition("-")[2]
        theirs = [
            reported.printed(paper, f"demo_{metric}_{name}", reported.PAPER_SYSTEMS.get(row.system, ""))
            for metric in ("secs", "wer")
        ]
        printed = ["" if entry is None else entry["value"] for entry in theirs]
        table.append((row.system, name, row.text, row.secs_ecapa_clip, row.wer_capped, *printed))
    columns = ["system", "name", "text", "secs_ecapa_clip", "wer_capped", "secs (paper)", "wer (paper)"]
    return pd.DataFrame(table, columns=columns)


def markdown(table: pd.DataFrame) -> str:
    """A table of texts as GitHub markdown, its index first. A bar inside a cell is escaped."""
    table = table.reset_index()
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def html(table: pd.DataFrame) -> str:
    """A table of texts as HTML, escaped."""
    return table.to_html(border=0, na_rep=ABSENT)


def results_markdown(profile: str) -> str:
    """The README's results, from committed files only (`data/results/<profile>`): systems, not their variants.

    Raises RowsError, TableError.
    """
    folder = paths.RESULTS / profile
    provenance = row_files.provenance(profile)
    rows = without_vocoders(
        row_files.committed(profile, [name for name in provenance["systems"] if "@" not in name])
    )
    demo_path = folder / "demo.csv"
    demo = row_files.read_csv(demo_path) if demo_path.exists() else None
    measured = measure(rows)
    table = key_results(rows, committed_speeds(profile), demo, measured=measured)
    main = [column for column in table.columns if column not in CONTROLS]
    machine = provenance["machine"]
    text = [
        f"{provenance['samples']} utterances of `{provenance['manifest']['name']}`, recorded {provenance['date']} on "
        f"{machine['cpu']} ({machine['cores']} cores{', ' + machine['gpu'] if machine.get('gpu') else ''}). "
        "In brackets 95 % intervals: a bootstrap over speakers, for CFR Wilson's. Columns marked (paper) are what the "
        "paper prints for other speech, other judges and other weights (~ is its own estimate): they show whether "
        "the pattern is the same, not whether a number is.",
        markdown(_filled(table[main])),
        "The same metrics on the control systems that frame the table; an impostor's error rate is taken against the "
        "sentence that it really says.",
        markdown(_filled(table[[column for column in CONTROLS if column in table]])),
    ]
    if (models := _json(folder / "models.json")) is not None:
        text += ["The judges and models themselves, on speakers and sentences that no training saw:"]
        text += [markdown(models_table(models, measured))]
    return "\n\n".join(text)


def models_table(models: Mapping[str, Any], measured: pd.DataFrame | None = None) -> pd.DataFrame:
    """Targets of the judges and models beside what was measured.

    models: `models.json`. measured: the result of `measure(rows)`, which adds the backbone's line.
    """
    lines = [
        (figure["what"], figure["target"], figure["shown"], "yes" if figure["reached"] else "no")
        for figure in models["figures"]
    ]
    own, published = (
        None if measured is None else lookup(measured, "wer", "long", name)
        for name in ("personavoice", "f5-as-published")
    )
    if own is not None and published is not None:
        reached = own["value"] <= BACKBONE_LONG_WER and own["value"] < published["value"]
        lines.append(
            (
                "backbone: WER (uncapped) of personavoice on long texts",
                f"at most {BACKBONE_LONG_WER:.0%}, below f5-as-published",
                f"{own['value']:.2%} against {published['value']:.2%}",
                "yes" if reached else "no",
            )
        )
    return pd.DataFrame(lines, columns=["figure", "target", "measured", "reached"]).set_index("figure")


def readme_block(profile: str, readme: Path | None = None) -> Path:
    """Write the results between the markers of the README, which is otherwise left alone.

    Raises TableError when a marker is missing or appears twice, RowsError when nothing was recorded.
    """
    path = readme or paths.ROOT / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error}") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise TableError(f"{path} needs the lines {BEGIN} and {END}, once each and in this order")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return row_files.write_text(path, f"{before}{BEGIN}\n\n{results_markdown(profile)}\n\n{END}{after}")


def committed_speeds(profile: str) -> dict[str, dict[str, float]]:
    """Real-time factors of the recorded run: system -> median, low, high, utterances; empty where none were recorded.

    Raises RowsError when the file is damaged.
    """
    path = paths.RESULTS / profile / "rtf.csv"
    if not path.exists():
        return {}
    try:
        table = pd.read_csv(path).set_index("system")[["median", "low", "high", "utterances"]].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise row_files.RowsError(
            f"{path} cannot be read as speeds ({error}); restore it with `git checkout -- {path}`"
        ) from error
    return {system: row.to_dict() for system, row in table.iterrows()}


def _columns(systems: Sequence[str]) -> list[tuple[str, bool]]:
    """(name, whether it is the paper's): ours with the paper's beside it, the paper's alone, then the controls.

    Alone stand the paper's columns of systems from outside that were not run here.
    """
    first = [name for name in reported.PAPER_SYSTEMS if name in systems]
    columns: list[tuple[str, bool]] = []
    for name in first:
        columns += [(name, False), (reported.PAPER_SYSTEMS[name], True)]
    columns += [(name, False) for name in systems if name not in first and name not in CONTROLS]
    columns += [(reported.PAPER_SYSTEMS[name], True) for name in EXTERNAL if name not in systems]
    return columns + [(name, False) for name in CONTROLS if name in systems]


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Without the lines in which nothing was measured or printed."""
    return table[(table != ABSENT).any(axis=1)]


def _cell(line: pd.Series | None, form: str) -> str:
    if line is None:
        return ABSENT
    value, low, high = (f"{line[end]:z{form}}" for end in ("value", "low", "high"))  # z: no minus zero
    return f"{value} [{low}, {high}]"


def _paper_cell(paper: pd.DataFrame, metric: str, system: str, form: str) -> str:
    entry = reported.printed(paper, metric, system) if metric else None
    if entry is None:
        return ABSENT
    if not form.endswith("%"):
        text = entry["value"]
    else:  # an estimate is printed in whole per cent
        text = f"{entry['low']:.{0 if entry['estimated'] else 1}%}"
    return f"~{text}" if entry["estimated"] else text


def _speed(speed: Mapping[str, Any] | None) -> str:
    if speed is None or speed.get("median") is None or pd.isna(speed["median"]):
        return ABSENT
    return f"{speed['median']:.2f} ({speed['low']:.2f}-{speed['high']:.2f})"


def _demo_cell(demo: pd.DataFrame | None, system: str, column: str) -> str:
    if demo is None:
        return ABSENT
    found = demo[(demo["system"] == system) & (demo["utterance"] == "demo-long") & demo[column].notna()]
    return ABSENT if found.empty else f"{found.iloc[0][column]:.3f}"


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TableError(
            f"{path} cannot be read: {error}; restore it with `git checkout -- {path}`"
        ) from error
