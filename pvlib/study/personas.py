"""How well `persona` tells the poles of traits apart on labelled chats, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from torch import Tensor

from pvlib import paths, persona
from pvlib.config import TRAITS
from pvlib.persona import PersonaExtractor, PersonaProfile
from pvlib.study.look import styled
from pvlib.study.statistics import against_target, auc

CHATS = paths.DATA / "personas" / "chats.yaml"  # frozen: judges
DEV_CHATS = paths.DATA / "personas" / "dev.yaml"  # choices were made on it
TARGET_MEAN, TARGET_WORST = 0.85, 0.75  # set before anything was measured
EVIDENCE = {"trait": "together", "sentences": "sentences alone", "lexicon": "lexicon alone"}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000")


def labelled(path: Path = CHATS) -> pd.DataFrame:
    """Labelled chats, a row each: trait, pole (high, low), chat (its messages)."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = [
        {"trait": trait, "pole": pole, "chat": chat}
        for trait, poles in content.items()
        for pole, chats in poles.items()
        for chat in chats
    ]
    return pd.DataFrame(rows)


def scored(chats: pd.DataFrame, extractor: PersonaExtractor) -> pd.DataFrame:
    """`labelled` with what the extractor reads off each chat: per trait NAME, NAME sentences and NAME lexicon."""
    read = extractor.batch(list(chats["chat"]))
    columns = {}
    for trait in TRAITS:
        columns[f"{trait} trait"] = [found.traits[trait] for found in read]
        columns[f"{trait} sentences"] = [found.sentences[trait] for found in read]
        columns[f"{trait} lexicon"] = [found.lexicon[trait] for found in read]
    return pd.concat([chats.reset_index(drop=True), pd.DataFrame(columns)], axis=1)


def auc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Area under the ROC curve, high against low pole, per trait and over all, with 95 % intervals.

    Columns trait, evidence (`EVIDENCE`), auc, low, high, chats. The last trait is "mean".
    """
    rows = []
    for evidence in EVIDENCE:
        pairs = {}
        for trait in TRAITS:
            own = scores[scores["trait"] == trait]
            values = own[f"{trait} {evidence}"]
            pairs[trait] = (values[own["pole"] == "high"], values[own["pole"] == "low"])
        for name, chosen in [*((t, [pairs[t]]) for t in TRAITS), ("mean", list(pairs.values()))]:
            found = auc(*chosen)
            rows.append((name, evidence, found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["trait", "evidence", "auc", "low", "high", "chats"])


def auc_text(table: pd.DataFrame) -> pd.DataFrame:
    """`auc_table` for reading: a line per trait, a column per evidence, each value with its interval."""
    text = table.apply(lambda row: f"{row.auc:.3f} [{row.low:.3f}, {row.high:.3f}]", axis=1)
    wide = table.assign(text=text, evidence=table["evidence"].map(EVIDENCE))
    return wide.pivot(index="trait", columns="evidence", values="text").loc[
        [*TRAITS, "mean"], list(EVIDENCE.values())
    ]


def conclusion(table: pd.DataFrame) -> str:
    """Sentences in Markdown: mean and worst trait against the targets, and what each kind of evidence adds."""
    whole = table[table["evidence"] == "trait"].set_index("trait")
    mean, worst = whole.loc["mean"], weakest(table)
    parts = table[table["trait"] == "mean"].set_index("evidence")["auc"]
    return "\n".join(
        (
            f"* Mean AUC {mean.auc:.3f} [{mean.low:.3f}, {mean.high:.3f}]; the target of {TARGET_MEAN} is "
            f"{_met(mean, TARGET_MEAN)}.",
            f"* Worst trait: {worst}, {whole.loc[worst, 'auc']:.3f} [{whole.loc[worst, 'low']:.3f}, "
            f"{whole.loc[worst, 'high']:.3f}]; the target of {TARGET_WORST} is "
            f"{_met(whole.loc[worst], TARGET_WORST)}.",
            f"* Sentences alone reach {parts['sentences']:.3f}, the lexicon alone {parts['lexicon']:.3f}.",
        )
    )


def _met(line: pd.Series, target: float) -> str:
    return against_target(line["auc"], line["low"], line["high"], target)


def spill(scores: pd.DataFrame) -> str:
    """One sentence: how far apart the poles of a trait's chats are on another trait, at most, beside on their own."""
    means = confusion(scores)
    gaps = {
        (chats, read): means.loc[(chats, "high"), read] - means.loc[(chats, "low"), read]
        for chats in TRAITS
        for read in TRAITS
    }
    own = [gaps[trait, trait] for trait in TRAITS]
    chats, read = max((pair for pair in gaps if pair[0] != pair[1]), key=lambda pair: abs(gaps[pair]))
    return (
        f"* Traits spill over: the poles of the chats about {chats} are {abs(gaps[chats, read]):.2f} apart on {read}; "
        f"on their own traits chats are {min(own):.2f} to {max(own):.2f} apart."
    )


def confusion(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of each trait's score (columns) over the chats of each pole (rows): off the diagonal is spill."""
    means = scores.groupby(["trait", "pole"], sort=False)[[f"{t} trait" for t in TRAITS]].mean()
    return means.rename(columns=lambda name: name.removesuffix(" trait"))


# Pictures


@styled
def radar(personas: Mapping[str, Mapping[str, float]]) -> Figure:
    """Big Five traits of one or several personas on five axes from -1 (centre) to 1; the dashed ring is 0.

    personas: name -> trait -> -1..1.
    """
    figure = Figure(figsize=(6.6, 4.4), layout="constrained")
    ax = figure.add_subplot(projection="polar")
    angles = np.linspace(0, 2 * np.pi, len(TRAITS), endpoint=False)
    closed = np.append(angles, angles[0])
    circle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(circle, np.zeros_like(circle), color="#7f7f7f", lw=0.8, ls="--")
    for i, (name, traits) in enumerate(personas.items()):
        values = [traits[trait] for trait in TRAITS]
        colour, style = COLOURS[i % len(COLOURS)], ("-", "--", "-.", ":")[i % 4]
        ax.plot(closed, [*values, values[0]], color=colour, ls=style, marker="osD^v"[i % 5], ms=4, label=name)
        ax.fill(closed, [*values, values[0]], color=colour, alpha=0.12)
    ax.set_theta_offset(np.pi / 2)
    ax.set_theta_direction(-1)
    ax.set_xticks(angles, TRAITS)
    ax.tick_params(axis="x", pad=5, labelsize=8.5)
    for label, angle in zip(ax.get_xticklabels(), angles, strict=True):  # outwards, clear of the ring
        side = round(np.sin(angle), 3)
        label.set_horizontalalignment("left" if side > 0 else "right" if side < 0 else "center")
    ax.set_ylim(-1, 1)
    ax.set_yticks([-0.5, 0, 0.5], ["-0.5", "0", "0.5"], fontsize=7)
    ax.set_title("Big Five traits, -1 (centre) to 1", fontsize=9, pad=14)
    if len(personas) > 1:
        figure.legend(loc="outside lower center", ncols=min(3, len(personas)), fontsize=8)
    return figure


@styled
def auc_figure(table: pd.DataFrame) -> Figure:
    """AUC per trait and kind of evidence with 95 % intervals; dotted: chance and the two targets."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    ax = figure.subplots()
    names = [*TRAITS, "mean"]
    for i, (evidence, label) in enumerate(EVIDENCE.items()):
        rows = table[table["evidence"] == evidence].set_index("trait").loc[names]
        x = np.arange(len(names)) + 0.2 * (i - 1)
        spread = [rows["auc"] - rows["low"], rows["high"] - rows["auc"]]
        ax.errorbar(x, rows["auc"], yerr=spread, fmt="osD"[i], color=COLOURS[i], ms=5, lw=1.2, label=label)
    for height in (0.5, TARGET_WORST, TARGET_MEAN):
        ax.axhline(height, color="#7f7f7f", lw=0.8, ls=":")
    ax.set_xticks(range(len(names)), names)
    ax.set(ylabel="AUC, high against low pole", ylim=(0.3, 1.02))
    ax.legend(loc="lower left", fontsize=8, ncols=3)
    return figure


def traits_table(personas: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Traits of personas, a line each."""
    return pd.DataFrame({name: dict(traits) for name, traits in personas.items()}).T[list(TRAITS)]


def steps(profile: PersonaProfile) -> pd.DataFrame:
    """How the traits of one person came about, a line each."""
    columns = {"sentences": profile.sentences, "lexicon": profile.lexicon, "trait": profile.traits}
    return pd.DataFrame(columns).loc[list(TRAITS)]


def sizes(embeddings: Mapping[str, Tensor]) -> pd.DataFrame:
    """Length and norm of each embedding, a line each."""
    rows = {name: {"numbers": len(e), "norm": float(e.norm())} for name, e in embeddings.items()}
    return pd.DataFrame(rows).T.astype({"numbers": int})


def wishes(feedback: Sequence[str]) -> pd.DataFrame:
    """What each piece of feedback changes, a line each. Raises PersonaError as `persona.read_feedback`."""
    changes = pd.DataFrame([persona.read_feedback(one) for one in feedback], index=list(feedback))
    return changes.reindex(columns=list(TRAITS)).fillna(0.0)


def after(traits: Mapping[str, float], feedback: str) -> pd.DataFrame:
    """Traits before and after feedback, a line each. Raises PersonaError as `persona.calibrate`."""
    return traits_table({"before": traits, "after": persona.calibrate(traits, feedback)})


def weakest(table: pd.DataFrame) -> str:
    """The trait with the lowest AUC of all evidence together. table: see `auc_table`."""
    whole = table[(table["evidence"] == "trait") & (table["trait"] != "mean")]
    return str(whole.loc[whole["auc"].idxmin(), "trait"])


def examples(scores: pd.DataFrame, trait: str, count: int = 2) -> pd.DataFrame:
    """The chats of a trait that are read most wrongly: high-pole chats of lowest score, low-pole ones of highest."""
    own = scores[scores["trait"] == trait].assign(text=lambda f: f["chat"].map(" / ".join))
    column = f"{trait} trait"
    wrong = [
        own[own["pole"] == "high"].nsmallest(count, column),
        own[own["pole"] == "low"].nlargest(count, column),
    ]
    return pd.concat(wrong)[["pole", "text", column]].rename(columns={column: "score"})
