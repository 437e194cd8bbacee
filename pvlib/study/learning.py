"""How the embedded models were trained, from the logs beside their weights, and which words a system loses."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import jiwer
import numpy as np
import pandas as pd

from pvlib import hub
from pvlib.config import Profile
from pvlib.metrics.wer import normalise
from pvlib.study.statistics import cluster_bootstrap_mean

MODELS = ("recognizer", "speaker_encoder", "vocoder", "backbone")
LATER = ("adapters", "duration-predictor", *hub.SV2TTS_NAMES, hub.BACKBONE_PADDED)
LOSSES = ("mel", "coarse", "loss")  # the first that a log has tells most
LOSS_LABELS = {  # that loss in words, with its unit
    "recognizer": "CTC loss (nat per letter)",
    "speaker_encoder": "cross-entropy (nat)",
    "vocoder": "log-mel loss (nat)",
    "backbone": "flow loss (nat²)",
    "adapters": "flow loss (nat²)",
    "duration-predictor": "squared error of ln length (nat²)",
    "sv2tts-encoder": "GE2E loss (nat)",
    "sv2tts-synthesizer": "spectrogram loss (no unit)",
    "sv2tts-vocoder": "coarse-part loss (nat)",
    hub.BACKBONE_PADDED: "flow loss (nat²)",
}
PARTS = ("coarse", "fine")  # of a sample that WaveRNN draws: the upper and the lower 8 of its 16 bits
VALUES = 256  # of each part
LITTLE = 0.01  # of what there was to learn
# what evaluations on the dev split measure: the quantity with its unit, and behind a comma of what
DEV = {
    "wer_dev": "WER (share)",
    "cer_dev": "CER (share)",
    "cer_dev_one_second": "CER (share), one second",
    "wer_dev_short": "WER (share), at most 4 words",
    "cer_dev_short": "CER (share), at most 4 words",
    "eer_dev": "EER (share)",
    "eer_dev_rooms": "EER (share), two rooms",
    "eer_dev_one_second": "EER (share), one second",
    "eer_dev_resemblyzer": "EER (share), Resemblyzer",
    "same": "cosine, one speaker",
    "different": "cosine, two speakers",
    "mel_error": "log-mel error (nat)",
    "mel_error_griffin_lim": "log-mel error (nat), Griffin-Lim",
    "ge2e_similarity": "cosine, GE2E, copy and original",
    "ge2e_similarity_griffin_lim": "cosine, GE2E, Griffin-Lim",
    "dev_flow_loss": "flow loss (nat²)",
    "dev_mel": "spectrogram loss (no unit)",
    "failed_share": "share with failed attention",
    "dev_coarse_nats": "coarse part (nat per sample)",
    "dev_fine_nats": "fine part (nat per sample)",
    "zeros": "share of weights pruned",
}


def trained(profile: Profile, names: Sequence[str] = (*MODELS, *LATER)) -> list[str]:
    """Those of some models that a profile has weights of."""
    return [name for name in names if hub.weights_path(name, profile).is_file()]


def loss_of(log: pd.DataFrame) -> str:
    """The column of a training log that tells most. Raises ValueError where there is none."""
    for name in LOSSES:
        if name in log:
            return name
    raise ValueError(f"a training log with the columns {', '.join(log)} has none of {', '.join(LOSSES)}")


def log(profile: Profile, model: str, kind: str = "log") -> pd.DataFrame:
    """The training log of a model (kind "log": losses) or its evaluations ("dev"), with minutes of training.

    Empty where the model was never evaluated in training. Raises WeightsError where the losses are missing.
    """
    path = hub.weights_path(model, profile).with_suffix("")
    path = path.with_name(f"{path.name}.{kind}.csv")
    if not path.exists():
        if kind == "dev":
            return pd.DataFrame()
        raise hub.WeightsError(f"{path} is missing; restore it with `git checkout -- {path}`")
    table = pd.read_csv(path)
    return table.assign(minutes=table["seconds"] / 60)


def restarts(profile: Profile, model: str) -> list[float]:
    """When a training was taken up again with another budget, machine or corpus, in minutes of training.

    From the commands of its card. Raises WeightsError where card or log is missing.
    """
    taken_up = [
        int(step) for step in re.findall(r"from step (\d+):", hub.read_card(model, profile)["command"])
    ]
    table = log(profile, model)
    return np.interp(taken_up, table["step"], table["minutes"], left=0.0).tolist()


def overview(profile: Profile) -> pd.DataFrame:
    """One line per model, from its card: steps, minutes, hours of speech, megabytes, calls of `pvlib train`, machines.

    The cards themselves hold each command.
    """
    lines = []
    for model in trained(profile):
        card = hub.read_card(model, profile)
        lines.append(
            {
                "model": model,
                "steps": card["steps"],
                "minutes": round(card["seconds"] / 60),
                "hours of speech": card["hours"],
                "MB": round(card["bytes"] / 1e6, 1),
                "calls": 1 + card["command"].count("; from step "),
                "machines": ", ".join(dict.fromkeys(_machine(name) for name in card["machine"].split("; "))),
            }
        )
    return pd.DataFrame(lines)


def _machine(name: str) -> str:
    """The GPU of a card's machine ("processor, cores, GPU, torch"), or its number of cores; what is none stays."""
    parts = name.split(", ")
    return parts[2] if len(parts) > 3 else parts[1] if len(parts) > 1 else name


def lost_words(rows: pd.DataFrame) -> pd.DataFrame:
    """Every word that should have been heard: columns system, utterance, speaker, word, place, lost.

    place: 0 at the first word, 1 at the last, 0.5 for a text of one word. lost: 1 where the best alignment of text
    and transcript deletes or substitutes the word. A failed utterance loses all its words.
    """
    found = []
    for row in rows.itertuples():
        words = normalise(row.text).split()
        if not words:
            continue
        lost = np.ones(len(words), dtype=int)
        for part in jiwer.process_words(" ".join(words), normalise(row.hypothesis)).alignments[0]:
            if part.type == "equal":
                lost[part.ref_start_idx : part.ref_end_idx] = 0
        last = max(1, len(words) - 1)
        for k, word in enumerate(words):
            place = k / last if len(words) > 1 else 0.5
            found.append((row.system, row.utterance, row.speaker, word, place, int(lost[k])))
    return pd.DataFrame(found, columns=["system", "utterance", "speaker", "word", "place", "lost"])


def shares_by_place(lost: pd.DataFrame, parts: int = 5) -> pd.DataFrame:
    """Share of words lost along the text, a line per system and place: system, place, share, low, high.

    lost: of `lost_words`. place: 0 to parts - 1 for equal parts of the text, -1 for its first word alone, `parts` for
    its last. low, high: 95 % interval from resampled speakers. A place without words has no line.
    """
    part = np.minimum((lost["place"] * parts).astype(int), parts - 1)
    chosen = {-1: lost["place"] == 0, **{k: part == k for k in range(parts)}, parts: lost["place"] == 1}
    lines = []
    for system, words in lost.groupby("system", sort=False):
        for place, here in chosen.items():
            if len(own := words[here[words.index]]):
                found = cluster_bootstrap_mean(own["lost"], own["speaker"])
                lines.append((system, place, found.value, found.low, found.high))
    return pd.DataFrame(lines, columns=["system", "place", "share", "low", "high"])


def worst_words(lost: pd.DataFrame, least: int = 5, count: int = 10) -> pd.DataFrame:
    """The words of which the largest share is lost, among those that occur at least `least` times."""
    table = lost.groupby("word")["lost"].agg(["mean", "size"])
    table = table[table["size"] >= least].sort_values(["mean", "size"], ascending=False).head(count)
    return table.rename(columns={"mean": "share lost", "size": "occurrences"}).reset_index()


def trend(model: str, log: pd.DataFrame) -> str:
    """One sentence: how the loss moved over the last quarter of the steps against the quarter before it."""
    loss = loss_of(log)
    quarter = len(log) // 4
    if quarter < 2:
        return f"`{model}`: too few lines in the log to speak of a trend."
    before, last = log[loss].iloc[-2 * quarter : -quarter].mean(), log[loss].iloc[-quarter:].mean()
    change = last / before - 1
    verdict = (
        "its loss was still falling when it stopped"
        if change < -0.03
        else "more of the same would bring little"
    )
    word = "lower" if change < 0 else "higher"
    own = LOSS_LABELS.get(model, "loss").partition(" (")[0]
    told = f"the {own} of its last quarter is {abs(change):.0%} {word} than in the quarter before"
    return f"`{model}`: {told}: {verdict}."


def parts(log: pd.DataFrame) -> str:
    """One sentence: what WaveRNN learnt of each part of a sample, from its training log's last quarter.

    A part has 256 values, so who knows nothing of it pays ln 256 nats. Raises KeyError on a log without both parts.
    """
    nothing = math.log(VALUES)
    paid = log[list(PARTS)].iloc[-max(1, len(log) // 4) :].mean()
    learnt = 1 - paid / nothing
    told = ", ".join(
        f"{paid[part]:.3f} for the {part} part ({learnt[part]:.1%} below that)" for part in PARTS
    )
    few = [part for part in PARTS if learnt[part] < LITTLE]
    if few:
        verdict = (
            f"of the {' and the '.join(few)} part it **learnt almost nothing**; the log does not tell whether there "
            "is more to learn"
        )
    else:
        verdict = "of both parts it learnt something"
    return (
        f"WaveRNN draws each sample in two parts of {VALUES} values. Who knows nothing pays ln {VALUES} = "
        f"{nothing:.3f} nats for each; in the last quarter of its training it paid {told}: {verdict}."
    )


def places(lost: pd.DataFrame, system: str) -> str:
    """One sentence: the share of words a system loses at the beginning, inside and at the end of a text."""
    own = lost[lost["system"] == system]
    parts = {
        "first": own[own["place"] == 0],
        "inner": own[(own["place"] > 0) & (own["place"] < 1)],
        "last": own[own["place"] == 1],
    }
    told = ", ".join(
        f"{part['lost'].mean():.0%} of the {name} words" for name, part in parts.items() if len(part)
    )
    return f"`{system}` loses {told}."
