"""Pictures of result rows, with intervals wherever there is sampling. Pictures of sound are in `pictures`.

Every function takes tidy frames (rows of DESIGN section 7, or summaries of them) and returns a `Figure`,
which `look.keep` saves and shows.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from pvlib.metrics.cfr import THRESHOLD
from pvlib.study.learning import DEV, LOSS_LABELS, loss_of, shares_by_place
from pvlib.study.look import look, ordered, styled
from pvlib.study.measure import in_stratum
from pvlib.systems import CONTROLS

STRATA = {
    "overall": "all texts",
    "long": "long\n(> 8 words)",
    "short": "short\n(≤ 8 words)",
    "ultra-short": "ultra-short\n(≤ 4 words)",
    "5-8 words": "5-8 words",
}

LABELS = {
    "wer": "word error rate (uncapped)",
    "wer_capped": "word error rate (capped at 1)",
    "secs_ecapa_clip": "SECS, ECAPA, against the clip",
    "secs_ecapa_speaker": "SECS, ECAPA,\nagainst the speaker's other speech",
    "secs_ge2e_clip": "SECS, GE2E, against the clip",
    "secs_ge2e_speaker": "SECS, GE2E,\nagainst the speaker's other speech",
    "dnsmos": "DNSMOS, overall (1 to 5, a proxy)",
    "generated_seconds": "generated speech (s)",
    "synthesis_seconds": "synthesis time (s)",
    "rtf": "real-time factor (s of work per s of speech)",
    "length_ratio": "planned length / true length",
    "cfr": "catastrophic failures\n(share with WER > 0.5)",
}


def label(metric: str) -> str:
    """Axis label of a metric, unit included."""
    return LABELS.get(metric, metric)


@styled
def by_stratum(measured: pd.DataFrame, metric: str, reported: pd.DataFrame | None = None) -> Figure:
    """Mean and 95 % interval of one metric per text length and system, in the order of the strata given.

    measured: as `measure.measure` returns it. reported: the paper's numbers, columns metric, stratum, system,
    value; open markers in the system's colour.
    """
    shown = measured[(measured["metric"] == metric) & (measured["n"] > 0)]
    strata, systems = list(dict.fromkeys(shown["stratum"])), ordered(shown["system"])
    figure = Figure(figsize=(7.6, 3.6))
    ax = figure.subplots()
    step = 0.66 / max(1, len(systems) - 1)
    beside = pd.DataFrame() if reported is None else reported[reported["metric"] == metric]
    for rank, system in enumerate(systems):
        places = {stratum: i + rank * step - 0.33 for i, stratum in enumerate(strata)}
        own, style = shown[shown["system"] == system], look(system)
        where = own["stratum"].map(places)
        bars = {"yerr": _bars(own, "value", "low", "high"), "ms": 6, "capsize": 2.5, "label": system}
        ax.errorbar(where, own["value"], fmt=style.marker, color=style.colour, **bars)
        for theirs in beside.itertuples():
            if theirs.system == system and theirs.stratum in places:
                _open(ax, places[theirs.stratum], theirs.value, system)
    counts = shown.groupby("stratum")["n"].max()
    ax.set_xticks(range(len(strata)), [f"{STRATA.get(s, s)}\nn = {counts[s]:.0f}" for s in strata])
    ax.set_ylabel(label(metric))
    ax.grid(axis="x", visible=False)
    note = "95 % intervals" + ("; open markers: the paper" if len(beside) else "")
    ax.set_title(note, loc="right", fontsize=8.5, color="#555555")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _open(ax: Axes, x: float, y: float, system: str) -> None:
    """The paper's value: the system's marker, open."""
    ax.plot(x, y, look(system).marker, mfc="white", mec=look(system).colour, ms=6)


def _bars(table: pd.DataFrame, middle: str, low: str, high: str) -> list[pd.Series]:
    """Lengths of an interval's two arms."""
    return [(table[middle] - table[low]).clip(lower=0), (table[high] - table[middle]).clip(lower=0)]


@styled
def failures(measured: pd.DataFrame, reported: pd.DataFrame | None = None) -> Figure:
    """Catastrophic failure rate per text length and system; frames as in `by_stratum`, shares in 0..1."""
    figure = by_stratum(measured, "cfr", reported)
    figure.axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.axes[0].set_ylim(-0.04, 1.04)
    return figure


@styled
def distributions(rows: pd.DataFrame, metrics: list[str], measured: pd.DataFrame) -> Figure:
    """Every utterance as a dot, one panel per metric, one line per system; mean and interval under the dots.

    measured: as `measure.measure` returns it; its overall means are drawn.
    """
    overall = measured[(measured["stratum"] == "overall") & (measured["n"] > 0)]
    systems = ordered(rows["system"])
    colours = {system: look(system).colour for system in systems}
    figure = Figure(figsize=(3.9 * len(metrics), 0.55 * len(systems) + 1.3), layout="constrained")
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for ax, metric in zip(axes, metrics, strict=True):
        for height, system in enumerate(systems):
            values = rows.loc[rows["system"] == system, metric].dropna()
            heights = height + np.random.default_rng(0).uniform(-0.2, 0.2, len(values))
            ax.scatter(values, heights, s=9, color=colours[system], alpha=0.45, lw=0)
        for _, mean in overall[overall["metric"] == metric].iterrows():
            height = systems.index(mean["system"]) + 0.34
            ax.plot([mean["low"], mean["high"]], [height, height], color=colours[mean["system"]], lw=1.8)
            style = {"color": colours[mean["system"]], "ms": 6, "mec": "white", "mew": 0.7}
            ax.plot(mean["value"], height, look(mean["system"]).marker, **style)
        ax.set_xlabel(label(metric))
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(systems)), systems)
    axes[0].invert_yaxis()
    return figure


@styled
def wer_histogram(rows: pd.DataFrame, stratum: str, last: float = 1.5) -> Figure:
    """WER inside one stratum, one panel per system: two heaps mean that an utterance works or breaks.

    A bin holds its right end and not its left, so that what is no failure stands left of the threshold. Values above
    `last` have a bin of their own behind it.
    """
    own = in_stratum(rows, stratum)
    systems = ordered(own["system"])
    figure = Figure(figsize=(7.2, 1.15 * max(1, len(systems)) + 0.7), layout="constrained")
    axes = figure.subplots(max(1, len(systems)), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    width = 0.1
    edges = np.linspace(0.0, last + width, round(last / width) + 2)
    closed = np.concatenate([[-1e-9], edges[1:] + 1e-9])
    for ax, system in zip(axes, systems, strict=False):
        values = own.loc[own["system"] == system, "wer"].clip(upper=last + width)
        heights, _ = np.histogram(values, closed)
        ax.bar(edges[:-1], heights, width, align="edge", color=look(system).colour, edgecolor="white")
        ax.axvline(last, color="#bbbbbb", lw=0.8, ls=":")
        ax.axvline(THRESHOLD, color="#444444", lw=1, ls="--")
        ax.set_title(f"{system} (n = {len(values)})", loc="left", fontsize=9)
        ax.yaxis.get_major_locator().set_params(integer=True)
    figure.supylabel("utterances", fontsize=9.5)
    ticks = np.arange(0, last + 1e-9, 0.25)
    axes[-1].set_xticks([*ticks, last + width], [*(f"{tick:g}" for tick in ticks), "more"])
    axes[-1].set_xlabel(f"{label('wer')}; dashed: {THRESHOLD}, failures lie right of it")
    return figure


@styled
def plane(
    points: pd.DataFrame,
    sweep: pd.DataFrame | None = None,
    reported: pd.DataFrame | None = None,
    secs: str = "SECS",
) -> Figure:
    """Figure 4: similarity against word error. Better is up and to the left.

    points: columns system, secs, wer, each with _low and _high (95 % intervals). reported: columns system,
    secs, wer (the paper). sweep: columns steps, cfg_strength, secs, wer, as in points; drawn in a second panel, its
    intervals pale.
    """
    panels = 1 if sweep is None else 2
    figure = Figure(figsize=(5.4 * panels, 4.9), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    ax = axes[0]
    for system in ordered(points["system"]):
        own, style = points[points["system"] == system], look(system)
        bars = {
            "xerr": _bars(own, "wer", "wer_low", "wer_high"),
            "yerr": _bars(own, "secs", "secs_low", "secs_high"),
            "capsize": 2.5,
            "lw": 1.1,
        }
        ax.errorbar(own["wer"], own["secs"], fmt=style.marker, color=style.colour, ms=7, label=system, **bars)
    if reported is not None and len(reported):
        for _, theirs in reported.iterrows():
            _open(ax, theirs["wer"], theirs["secs"], theirs["system"])
            right = theirs["wer"] > 0.5  # written towards the middle, where there is room
            near = {"xytext": (-5 if right else 5, -9), "ha": "right" if right else "left"}
            near |= {"textcoords": "offset points", "size": 7.5, "color": "#555555"}
            ax.annotate(theirs["system"], (theirs["wer"], theirs["secs"]), **near)
        ax.plot([], [], "o", mfc="white", mec="#666666", ms=7, label="the paper")
    ax.set(xlabel=label("wer_capped"), ylabel=secs, title="systems (95 % intervals)")
    _stairs(ax, frontier(points[~points["system"].isin(CONTROLS)]))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=8, ncols=3)
    if sweep is not None:
        error = {"xerr": _bars(sweep, "wer", "wer_low", "wer_high")}
        error |= {"yerr": _bars(sweep, "secs", "secs_low", "secs_high")}
        axes[1].errorbar(sweep["wer"], sweep["secs"], fmt="none", ecolor="#d0d0d0", lw=0.8, zorder=0, **error)
        _sweep(axes[1], sweep, "wer", "secs")
        lines = list(sweep.sort_values("steps").groupby("cfg_strength"))
        shades = sns.color_palette("cividis", len(lines))
        places = [(0, -12), (9, -3), (0, 6), (-9, -3)]  # each line on a side of its own, in its colour
        for k, (_, line) in enumerate(lines):
            for _, point in line.iterrows():
                near = {"xytext": places[k % len(places)], "ha": "center", "color": shades[k]}
                near |= {"textcoords": "offset points", "size": 8}
                axes[1].annotate(f"{point['steps']:.0f}", (point["wer"], point["secs"]), **near)
        title = "personavoice: steps (numbers), guidance (lines); pale: 95 % intervals"
        axes[1].set(xlabel=label("wer_capped"), ylabel=secs, title=title)
        axes[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=8, ncols=3)
    return figure


def _stairs(ax: Axes, edge: pd.DataFrame) -> None:
    """The edge of what `edge` (of `frontier`) beats, from the lower rim of the axes to the right one."""
    if edge.empty:
        return
    limits = ax.get_xlim(), ax.get_ylim()
    wer, secs = edge["wer"].tolist(), edge["secs"].tolist()
    style = {"color": "#888888", "lw": 1, "ls": ":", "label": "frontier", "zorder": 0}
    ax.step([wer[0], *wer, limits[0][1]], [limits[1][0], *secs, secs[-1]], where="post", **style)
    ax.set(xlim=limits[0], ylim=limits[1])


def _sweep(ax: Axes, sweep: pd.DataFrame, x: str, y: str, *, bars: bool = False) -> None:
    """One line per guidance strength through its numbers of steps; `bars` draws the intervals of y."""
    strengths = sorted(sweep["cfg_strength"].unique())
    shades = sns.color_palette("cividis", len(strengths))
    for rank, strength in enumerate(strengths):
        line = sweep[sweep["cfg_strength"] == strength].sort_values("steps")
        style = {"fmt": "-" + "osD^vP"[rank % 6], "color": shades[rank], "ms": 5, "lw": 1, "capsize": 2}
        error = _bars(line, y, f"{y}_low", f"{y}_high") if bars else None
        ax.errorbar(line[x], line[y], yerr=error, label=f"guidance {strength:g}", **style)


def frontier(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other beats in both lower `wer` and higher `secs`, by rising wer; equals once."""
    best, kept = -np.inf, []
    for index, row in points.sort_values(["wer", "secs"], ascending=[True, False]).iterrows():
        if row["secs"] > best:
            best = row["secs"]
            kept.append(index)
    return points.loc[kept]


@styled
def speed(sweep: pd.DataFrame, metrics: tuple[str, ...] = ("wer", "secs"), secs: str = "SECS") -> Figure:
    """Quality against speed, one panel per metric; the real-time factor on a logarithmic axis.

    sweep: columns steps, cfg_strength, rtf, and each metric with its _low and _high.
    """
    figure = Figure(figsize=(4.6 * len(metrics), 3.5), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    for ax, metric in zip(axes, metrics, strict=True):
        _sweep(ax, sweep, "rtf", metric, bars=True)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set(xlabel=label("rtf"), ylabel={"wer": label("wer_capped"), "secs": secs}.get(metric, metric))
        ax.axvline(1.0, color="#999999", lw=0.8, ls="--")
    axes[0].legend(fontsize=8)
    axes[0].set_title("dashed: as fast as speech; 95 % intervals", loc="left", fontsize=8.5, color="#555555")
    return figure


@styled
def cost(points: pd.DataFrame, secs: str = "SECS") -> Figure:
    """Quality of the systems against what they cost: the real-time factor (logarithmic) left, parameters right.

    points: of `costs.points`. Bars are 95 % intervals of quality, and the lowest and highest real-time factor.
    """
    panels = [("rtf", label("rtf")), ("millions", "parameters of its networks (millions)")]
    panels = panels if points["millions"].notna().any() else panels[:1]
    figure = Figure(figsize=(4.6 * len(panels), 5.6), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False, sharex="col", sharey="row")
    for row, (metric, words) in zip(axes, (("wer", label("wer_capped")), ("secs", secs)), strict=True):
        row[0].set_ylabel(words)
        for ax, (price, _) in zip(row, panels, strict=True):
            for system in ordered(points["system"]):
                own, style = points[points["system"] == system], look(system)
                bars = {
                    "yerr": _bars(own, metric, f"{metric}_low", f"{metric}_high"),
                    "capsize": 2.5,
                    "lw": 1.1,
                }
                if price == "rtf":
                    bars["xerr"] = _bars(own, "rtf", "rtf_low", "rtf_high")
                ax.errorbar(
                    own[price], own[metric], fmt=style.marker, color=style.colour, ms=7, label=system, **bars
                )
            if price == "rtf":
                ax.set_xscale("log", base=2)
                ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for ax, (_, words) in zip(axes[1], panels, strict=True):
        ax.set_xlabel(words)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


@styled
def full_size(table: pd.DataFrame) -> Figure:
    """Real-time factors of the full-size model (logarithmic) against steps: machines below, batches beside each other.

    table: of `full_size.overview`. Filled: the companion; open: the official function. A panel without a line, or the
    whole figure, says so.
    """
    if table.empty:
        figure = Figure(figsize=(5, 1.2))
        words = "not measured yet: `pvlib speed --record NAME`"
        figure.text(0.5, 0.5, words, ha="center", va="center", color="#5f5f5f")
        return figure
    machines, batches = table["machine"].unique(), sorted(table["batch"].unique())
    figure = Figure(figsize=(1.4 + 2.9 * len(batches), 0.9 + 2.5 * len(machines)), layout="constrained")
    axes = figure.subplots(len(machines), len(batches), squeeze=False, sharex=True, sharey="row")
    steps = sorted(table["nfe"].unique(), reverse=True)
    for (row, processor), (column, batch) in itertools.product(enumerate(machines), enumerate(batches)):
        ax = axes[row, column]
        own = table[(table["machine"] == processor) & (table["batch"] == batch)]
        if own.empty:
            ax.text(0.5, 0.5, "not measured", ha="center", color="#5f5f5f", transform=ax.transAxes)
        for dtype, lines in own.groupby("dtype"):
            colour, marker = PRECISIONS[dtype]
            lines = lines.sort_values("nfe", ascending=False)
            places = [steps.index(n) for n in lines["nfe"]]
            style = {"color": colour, "marker": marker, "ms": 6}
            ax.plot(places, lines["rtf, official"], ls="--", mfc="white", label=f"official, {dtype}", **style)
            ax.plot(places, lines["rtf, companion"], label=f"companion, {dtype}", **style)
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xticks(range(len(steps)), [str(n) for n in steps])
        ax.set_xlim(-0.4, len(steps) - 0.6)
        if not row:
            ax.set_title(f"batch {batch}")
        if row + 1 == len(machines):
            ax.set_xlabel("steps (NFE)")
        if not column:
            ax.set_ylabel(processor)
    figure.supylabel(label("rtf"), fontsize="medium")
    shown = {
        name: line for ax in axes.flat for line, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    every = (f"{side}, {dtype}" for side in ("official", "companion") for dtype in PRECISIONS)
    names = [name for name in every if name in shown]
    handles = [shown[name] for name in names]
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8)
    return figure


@styled
def demo(table: pd.DataFrame) -> Figure:
    """The four-text table as bars, ours beside the paper's where it prints a number; see `tables.demo_table`."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    places, ours = np.arange(len(table)), look("personavoice").colour
    pairs = (("secs_ecapa_clip", "secs (paper)"), ("wer_capped", "wer (paper)"))
    for ax, (metric, printed) in zip(axes, pairs, strict=True):
        theirs = pd.to_numeric(table[printed], errors="coerce")
        ax.bar(places - 0.2, table[metric], 0.38, color=ours, label="measured here, the demo clip")
        ax.bar(places + 0.2, theirs, 0.38, color="white", ec=ours, label="the paper, 1111.mp3")
        ax.set_xticks(places, table["name"].str.replace("_", " "), rotation=15, ha="right")
        ax.set_ylabel(label(metric))
        ax.grid(axis="x", visible=False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return figure


PRECISIONS = {"fp32": ("#0072b2", "o"), "bf16": ("#d55e00", "s"), "fp16": ("#009e73", "^")}
CURVES = (("#0072b2", "-"), ("#e69f00", "--"), ("#009e73", "-."), ("#cc79a7", ":"), ("#56b4e9", "-"))


@styled
def learning(
    logs: dict[str, pd.DataFrame],
    found: dict[str, pd.DataFrame],
    restarts: dict[str, list[float]],
) -> Figure:
    """Losses against minutes of training, one panel per model, and below what evaluations on the dev split found.

    All are by model (`learning.LOSS_LABELS`). logs: columns minutes and the losses (`learning.LOSSES`); found: columns
    minutes and what was found, or none. restarts: minutes at which a training was taken up anew
    (`learning.restarts`), marked by dotted lines.
    """
    figure = Figure(figsize=(3.0 * len(logs), 5.8), layout="constrained")
    axes = figure.subplots(2, len(logs), squeeze=False, sharex="col")
    for column, (model, log) in enumerate(logs.items()):
        upper, lower = axes[:, column]
        upper.set_title(model.replace("_", " "))
        loss = loss_of(log)
        upper.plot(log["minutes"], log[loss], color="#0072b2", linewidth=0.9)
        upper.set_ylabel(LOSS_LABELS[model])
        upper.set_yscale("log")
        upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        upper.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        upper.yaxis.set_minor_formatter(NullFormatter())
        lower.set_xlabel("minutes of training")
        for ax, minute in itertools.product((upper, lower), restarts[model]):
            ax.axvline(minute, color="#b0b0b0", linewidth=0.7, linestyle=":", zorder=0)
        shown = found[model]
        if shown.empty:
            words = "not evaluated\nwhile it trained"
            lower.text(0.5, 0.5, words, ha="center", va="center", color="#5f5f5f", transform=lower.transAxes)
            lower.set_yticks([])
            continue
        names = [name for name in shown if name not in ("step", "seconds", "minutes")]
        words = [DEV.get(name, name.replace("_", " ")) for name in names]
        quantities = dict.fromkeys(word.split(",")[0] for word in words)
        named = ", ".join(quantities) if len(quantities) < 3 else "units: below"  # what fits beside a panel
        lower.set_ylabel(f"on the dev split:\n{named}")
        for name, word, (colour, style) in zip(names, words, CURVES, strict=False):
            lower.plot(shown["minutes"], shown[name], style, color=colour, marker=".", label=word)
        lower.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.24))
    return figure


@styled
def by_place(lost: pd.DataFrame, parts: int = 5) -> Figure:
    """Share of words lost along the text, one line per system: in fifths, and the very first and last word apart.

    lost: see `learning.lost_words`. Bars are 95 % intervals over speakers.
    """
    figure = Figure(figsize=(6.4, 3.2))
    ax = figure.subplots()
    shares = shares_by_place(lost, parts)
    names = ordered(lost["system"].unique())
    for rank, system in enumerate(names):
        style, own = look(system), shares[shares["system"] == system]
        shift = 0.08 * (rank - (len(names) - 1) / 2)  # so that bars stand beside each other
        bars = {"color": style.colour, "capsize": 2, "elinewidth": 0.9, "marker": style.marker}
        inner = own["place"].between(0, parts - 1)
        for found, more in ((own[inner], {"label": system}), (own[~inner], {"ls": "", "mfc": "white"})):
            more |= {"yerr": _bars(found, "share", "low", "high")}
            ax.errorbar(found["place"] + shift, found["share"], **bars, **more)
    ax.set_xticks(
        range(-1, parts + 1),
        ["first\nword", "first\nfifth", *[""] * (parts - 2), "last\nfifth", "last\nword"],
    )
    ax.set_xlabel("place in the text")
    ax.set_ylabel("share of words lost")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8)
    return figure


@styled
def effects(table: pd.DataFrame, criterion: float) -> Figure:
    """Effects d of variants with their 95 % intervals, a row per variant, a panel per metric.

    table: see `ablations.table`; a line without a test stays empty. criterion: |d| marked by dashed lines.
    """
    metrics, variants = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["variant"]))[::-1]
    figure = Figure(figsize=(8.2, 0.3 * len(variants) + 1.3), layout="constrained")
    for ax, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics), sharey=True)), metrics, strict=True):
        own = table[table["metric"] == metric].dropna(subset=["d"])
        where = own["variant"].map(variants.index)
        bars = {"xerr": _bars(own, "d", "d_low", "d_high"), "capsize": 2.5, "ms": 5}
        ax.errorbar(
            own["d"], where, fmt=look("personavoice").marker, color=look("personavoice").colour, **bars
        )
        ax.axvline(0, color="#000000", lw=0.8)
        for end in (-criterion, criterion):
            ax.axvline(end, color="#7a7a7a", lw=0.8, ls="--")
        ax.set_yticks(range(len(variants)), variants)
        ax.set_xlabel(f"d, variant - pipeline\n{label(metric)}")
    return figure


@styled
def strength(table: pd.DataFrame) -> Figure:
    """Entropy, words and sound against the strength of entropy guidance, CEAG beside random directions.

    table: see `guidance.compare`; the dotted line is no guidance. Bars: 95 % intervals of the difference from it, and
    no line between strengths, where nothing was tried.
    """
    figure = Figure(figsize=(10.0, 3.4), layout="constrained")
    series = (
        ("ceag", "o", "#0072b2", -0.15, "CEAG"),
        ("random", "s", "#7a7a7a", 0.0, "random, steps as long"),
        ("matched", "^", "#d55e00", 0.15, "random, moves the mel as far"),
    )
    panels = (
        ("lowered", "entropy over text lowered by (nat)", 0.0),
        ("wer", "word error rate (capped at 1)", table["wer"].iloc[0]),
        ("change", "change of the mel (nat)", 0.0),
    )
    for ax, (name, text, plain) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for kind, marker, colour, aside, told in series:
            column = f"{name}_{kind}"
            if column not in table:
                continue
            bars = {"yerr": _bars(table, column, f"{column}_low", f"{column}_high"), "capsize": 2.5}
            style = {"fmt": marker, "color": colour, "ms": 5, "label": told}
            ax.errorbar(np.arange(len(table)) + aside, table[column], **style, **bars)
        ax.axhline(plain, color="#000000", lw=0.8, ls=":", label="no guidance")
        ax.set_xticks(range(len(table)), [f"{scale:g}" for scale in table["scale"]])
        ax.set(xlim=(-0.5, len(table) - 0.5), ylabel=text)
        ax.grid(axis="x", visible=False)
    figure.supxlabel("strength of guidance, in multiples of the formula's λ(L)", fontsize=9.5)
    note = f"95 % intervals over speakers, n = {table['n'].max():.0f}"
    figure.axes[-1].set_title(note, loc="right", fontsize=8.5, color="#555555")
    legend = figure.axes[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside upper center", ncols=4, fontsize=8)
    return figure


VERDICT_COLOURS = {
    "supported": "#009e73",
    "arithmetic-ok": "#8fd0b9",
    "adopted": "#cfe9df",
    "inconclusive": "#e69f00",
    "departed": "#f3d9a4",
    "contradicted": "#d55e00",
    "arithmetic-wrong": "#efb08b",
    "untested": "#e3e3e3",
}


@styled
def verdicts(board: pd.DataFrame) -> Figure:
    """How many claims of each kind have which verdict, as stacked bars. board: see `ledger.scoreboard`."""
    counts = pd.crosstab(board["kind"], board["verdict"])
    counts = counts.reindex(columns=[name for name in VERDICT_COLOURS if name in counts])
    counts = counts.loc[counts.sum(axis=1).sort_values().index]
    figure = Figure(figsize=(7.6, 0.32 * len(counts) + 1.3))
    ax = figure.subplots()
    left = np.zeros(len(counts))
    for name in counts:
        ax.barh(
            counts.index, counts[name], left=left, color=VERDICT_COLOURS[name], label=name, edgecolor="white"
        )
        left += counts[name].to_numpy()
    ax.set_xlabel("claims")
    ax.grid(axis="y", visible=False)
    ax.legend(ncols=4, fontsize=7.5, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    return figure
