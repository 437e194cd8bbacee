"""What entropy guidance does: to attention, to words and to time, beside random directions.

One is as long as CEAG's in every step, which need not move the mel as far; so another is given the strength that it
takes to do so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from pvlib import ceag, laag
from pvlib.backbone import Backbone, Item
from pvlib.metrics import wer
from pvlib.study import attention, pictures, statistics
from pvlib.study.attention import Look
from pvlib.study.pairs import LEAST
from pvlib.systems.base import Request
from pvlib.voice import PersonaVoice, entropy_guidance

NONE = "none"
SCALES = (1.0, 100.0)  # of lambda(L); the paper's is 1
SHOWN = 100.0  # at which the maps are drawn
MATCHED = "matched"  # the random direction, as strong as it takes to move the mel as far as CEAG does
SETTINGS = ((NONE, 0.0), *((kind, scale) for scale in SCALES for kind in ("ceag", "random", MATCHED)))
TARGET = 0.9  # share of utterances whose entropy CEAG should lower further than a random direction does
WER_MARGIN = 0.01  # error rate that guidance may cost at most

SHARE = 16  # one utterance in so many of the study is guided
FEWEST = 2
BATCH = 4
PADDING_STEPS = 8


def size(samples: int) -> int:
    """How many short texts are guided in a study with `samples` utterances."""
    return max(FEWEST, samples // SHARE)


def items(voice: PersonaVoice, requests: Sequence[Request]) -> list[Item]:
    """What the sampler is given for the first chunk of each request, with the strength for its length."""
    given = [attention.item(voice, request) for request in requests]
    return [replace(item, ceag_lambda=laag.lambda_ceag(item.text, voice.inference)) for item in given]


def guided(
    voice: PersonaVoice, given: Sequence[Item], kind: str, scale: float
) -> tuple[list[Item], ceag.Guidance | None]:
    """Items with their strength scaled, and the guidance for them; none where the kind is "none".

    Raises ConfigError on an unknown kind.
    """
    scaled = [replace(item, ceag_lambda=item.ceag_lambda * scale) for item in given]
    if kind == NONE:
        return scaled, None
    return scaled, entropy_guidance(replace(voice.inference, use_ceag=True, ceag_variant=kind))


def looks(
    voice: PersonaVoice,
    request: Request,
    t: float,
    *,
    kinds: Sequence[str] = ("ieag", "ceag"),
    scale: float = SHOWN,
) -> dict[str, Look]:
    """The attention of one request under each kind of guidance, as `attention.watch` keeps it."""
    (given,) = items(voice, [request])
    found = {}
    for kind in kinds:
        (scaled,), guidance = guided(voice, [given], kind, scale)
        found[kind] = attention.watch(voice, request, t, given=scaled, guidance=guidance)
    return found


def shown(voice: PersonaVoice, request: Request, t: float, kind: str, scale: float) -> Figure:
    """The attention of one request read as text, under one kind of guidance at so many times its strength."""
    if kind == NONE:
        look = attention.watch(voice, request, t)
    else:
        look = looks(voice, request, t, kinds=(kind,), scale=scale)[kind]
    weights = look.maps.text_maps.mean(dim=(0, 1)).numpy()
    return pictures.attention_text(
        weights, list(look.maps.text), look.middles, look.entropy_share, look.boundary, look.seconds
    )


# Entropy and words


def rows(
    voice: PersonaVoice, requests: Sequence[Request], settings: Sequence[tuple[str, float]] = SETTINGS
) -> pd.DataFrame:
    """Each request under each setting (kind, scale), from the same noise: a line each.

    Columns: utterance, speaker, kind, scale, strength (lambda(L) times scale), entropy (nats, among characters, mean of
    the steps in the window), hypothesis, wer, wer_capped, change (root mean square difference of the generated mel from
    the unguided one, nats). "none" has to be among the settings: the others are compared with it. "matched" has to
    stand behind "ceag" and "random" of its scale: its strength is that of "random" times how much farther "ceag" moved
    the mel of the same request. Computed in float32: what the formula's strength does to the entropy is no larger than
    the rounding of bfloat16. Raises ValueError on a "matched" without the two.
    """
    with _in_float32(voice.backbone):
        return _rows(voice, requests, settings)


def _rows(
    voice: PersonaVoice, requests: Sequence[Request], settings: Sequence[tuple[str, float]]
) -> pd.DataFrame:
    own = voice.inference
    options = {"layers": own.ceag_layers, "steps": own.steps, "sway_coef": own.sway_coef}
    lines = []
    for start in range(0, len(requests), BATCH):
        batch = requests[start : start + BATCH]
        given = items(voice, batch)
        plain: list[torch.Tensor] = []
        moved: dict[tuple[str, float], list[float]] = {}
        for kind, scale in sorted(settings, key=lambda setting: setting[0] != NONE):
            if kind == MATCHED:
                scaled, guidance = guided(voice, _as_far(given, moved, scale), "random", scale)
            else:
                scaled, guidance = guided(voice, given, kind, scale)
            seen = ceag.trace(voice.backbone, scaled, guidance=guidance, **options)
            inside = (seen.times >= own.ceag_t_start) & (seen.times <= own.ceag_t_end)
            made = [mel[len(item.mel) :] for mel, item in zip(seen.mels, scaled, strict=True)]
            plain = plain or made
            moved[kind, scale] = [
                float((mel - still).square().mean().sqrt()) for mel, still in zip(made, plain, strict=True)
            ]
            heard = voice.recognizer.transcribe([_wave(voice, mel) for mel in made])
            for k, request in enumerate(batch):
                error = wer.wer(request.text, heard[k])
                line = {
                    "utterance": request.utterance,
                    "speaker": request.speaker,
                    "kind": kind,
                    "scale": scale,
                }
                line |= {"strength": scaled[k].ceag_lambda, "entropy": float(seen.text[inside, k].mean())}
                line |= {"hypothesis": heard[k], "wer": error, "wer_capped": wer.capped(error)}
                lines.append({**line, "change": moved[kind, scale][k]})
    return pd.DataFrame(lines)


def _as_far(given: Sequence[Item], moved: dict[tuple[str, float], list[float]], scale: float) -> list[Item]:
    """Items with the strength at which a random direction moves the mel as far as CEAG did at this scale.

    For small pushes the mel moves in proportion. An item that the random direction did not move at all stays as it is.
    """
    if missing := {"ceag", "random"} - {kind for kind, own in moved if own == scale}:
        raise ValueError(
            f"{MATCHED} at {scale:g} needs {' and '.join(sorted(missing))} at {scale:g} before it"
        )
    pairs = zip(moved["ceag", scale], moved["random", scale], strict=True)
    times = [far / near if near else 1.0 for far, near in pairs]
    return [replace(item, ceag_lambda=item.ceag_lambda * k) for item, k in zip(given, times, strict=True)]


@contextmanager
def _in_float32(model: Backbone) -> Iterator[None]:
    precision, model.precision = model.precision, torch.float32
    try:
        yield
    finally:
        model.precision = precision


def _wave(voice: PersonaVoice, mel: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        wave = voice.vocoder.decode(mel.T[None].to(voice.device))[0].float().cpu().numpy()
    return laag.trim_lead(wave, voice.inference)


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """CEAG beside no guidance and beside a random direction of the same length, a line per scale.

    Columns: scale, strength (mean lambda), n, entropy and wer (unguided means; nats, capped), further (share of
    utterances that CEAG lowers further than random does, ties not counted) with its 95 % Wilson interval (further_low,
    further_high), and for each kind: lowered_ceag (the entropy, by so many nats), wer_ceag (mean), change_ceag (of the
    mel, mean, nats). Each of these has _low and _high, the 95 % interval over speakers of the paired difference from no
    guidance; of wer it is laid around the unguided mean. Where the rows have "matched", the same of it, with
    further_matched and its interval, and times_matched: how many times as strong it is as "random", the mean.
    """
    by = {key: own.set_index("utterance") for key, own in rows.groupby(["kind", "scale"])}
    plain = by[NONE, 0.0]
    lines = []
    for scale in sorted(scale for kind, scale in by if kind == "ceag"):
        ceag_rows, random = (by[kind, scale].loc[plain.index] for kind in ("ceag", "random"))
        wins, n = int((ceag_rows["entropy"] < random["entropy"]).sum()), len(plain)
        low, high = statistics.wilson(wins, n)
        line = {"scale": scale, "strength": ceag_rows["strength"].mean(), "n": n}
        line |= {"entropy": plain["entropy"].mean(), "wer": plain["wer_capped"].mean()}
        line |= {"further": wins / n, "further_low": low, "further_high": high}
        kinds = {"ceag": ceag_rows, "random": random}
        if (MATCHED, scale) in by:
            kinds[MATCHED] = matched = by[MATCHED, scale].loc[plain.index]
            share = int((ceag_rows["entropy"] < matched["entropy"]).sum())
            ends = dict(zip(("_low", "_high"), statistics.wilson(share, n), strict=True))
            line |= {f"further_{MATCHED}{end}": value for end, value in ({"": share / n} | ends).items()}
            line["times_matched"] = (matched["strength"] / random["strength"]).mean()
        for kind, own in kinds.items():
            moved = {
                "lowered": (0.0, plain["entropy"] - own["entropy"]),
                "wer": (line["wer"], own["wer_capped"] - plain["wer_capped"]),
                "change": (0.0, own["change"]),
            }
            for name, (level, differences) in moved.items():
                apart = statistics.cluster_bootstrap_mean(differences, plain["speaker"])
                for end in ("value", "low", "high"):
                    column = f"{name}_{kind}" + ("" if end == "value" else f"_{end}")
                    line[column] = level + getattr(apart, end)
        lines.append(line)
    return pd.DataFrame(lines)


def summary(table: pd.DataFrame) -> list[str]:
    """Sentences on `compare`: a verdict at the paper's strength, then how far strength has to go to matter."""
    own = table[table["scale"] == 1.0].iloc[0]
    sentences = [_entropy(own), _words(own)]
    if len(more := table[table["scale"] > 1.0]):
        sentences.append(_stronger(own, more))
    return sentences


def _entropy(line: pd.Series) -> str:
    met = statistics.against_target(line["further"], line["further_low"], line["further_high"], TARGET)
    return (
        f"At the strength of the formula (lambda {line['strength']:.2f} on average) CEAG lowers the entropy among "
        f"characters by {line['lowered_ceag']:.2g} nats of {line['entropy']:.2f}, a random direction of the same "
        f"length by {line['lowered_random']:.2g}. CEAG lowers it further in {line['further']:.0%} of {line['n']:.0f} "
        f"utterances (95 % interval {line['further_low']:.0%} to {line['further_high']:.0%}): the target of "
        f"{TARGET:.0%} is {met}.{_beside_matched(line)}"
    )


def _beside_matched(line: pd.Series) -> str:
    """A sentence on the random direction that moves the mel as far, where there is one."""
    if f"further_{MATCHED}" not in line:
        return ""
    moved, lowered = line[f"change_{MATCHED}"], line[f"lowered_{MATCHED}"]
    share, low, high = (line[f"further_{MATCHED}{end}"] for end in ("", "_low", "_high"))
    return (
        f" To move the mel about as far ({moved:.2g} nats, CEAG {line['change_ceag']:.2g}) the random direction has to "
        f"be {line['times_matched']:.3g} times as strong. It then lowers the entropy by {lowered:.2g} nats, and CEAG "
        f"further in {share:.0%} of utterances ({low:.0%} to {high:.0%})."
    )


def _changed(line: pd.Series, kind: str) -> str:
    """How the error rate changes under one kind of guidance, with its interval, and whether a change is shown."""
    change, low, high = (line[f"wer_{kind}{end}"] - line["wer"] for end in ("", "_low", "_high"))
    verdict = "shown" if line["n"] >= LEAST and not low <= 0 <= high else "not shown"
    return f"{change:+.3f} ({low:+.3f} to {high:+.3f}: {verdict})"


def _stronger(own: pd.Series, more: pd.DataFrame) -> str:
    reached, strong = more[more["further"] >= TARGET], more.iloc[-1]
    where = f"from {reached['scale'].iloc[0]:g} times lambda on" if len(reached) else "at no strength tried"
    first = "" if own["further"] >= TARGET else f"The share of {TARGET:.0%} is reached {where}. "
    return (
        f"{first}At {strong['scale']:g} times lambda CEAG lowers the entropy by {strong['lowered_ceag']:.2g} nats, "
        f"a random direction by {strong['lowered_random']:.2g}; the word error rate changes by "
        f"{_changed(strong, 'ceag')} with CEAG and by {_changed(strong, 'random')} with the random direction (95 % "
        f"intervals over speakers, n = {strong['n']:.0f}).{_stronger_matched(strong)}"
    )


def _stronger_matched(line: pd.Series) -> str:
    """A sentence on the random direction that moves the mel as far at the largest strength, where there is one."""
    if f"wer_{MATCHED}" not in line:
        return ""
    return (
        f" A random direction that moves the mel about as far ({line[f'change_{MATCHED}']:.2g} nats, CEAG "
        f"{line['change_ceag']:.2g}) lowers the entropy by {line[f'lowered_{MATCHED}']:.2g} nats and changes the word "
        f"error rate by {_changed(line, MATCHED)}."
    )


def _words(line: pd.Series) -> str:
    worse = line["wer_ceag"] - line["wer"]
    verdict = "within" if worse <= WER_MARGIN else "beyond"
    weaker = ", which is the weaker push" if line["change_random"] < line["change_ceag"] else ""
    effect = (
        "CEAG leaves the word error rate where it is"
        if worse == 0
        else f"With CEAG the word error rate changes by {_changed(line, 'ceag')}"
    )
    return (
        f"{effect} ({line['wer']:.3f} without, {line['wer_ceag']:.3f} with, {line['wer_random']:.3f} with a random "
        f"direction), {verdict} the margin of {WER_MARGIN}. The mel moves by {line['change_ceag']:.2g} nats with CEAG "
        f"and by {line['change_random']:.2g} with a random direction of the same length{weaker}."
    )


# Time and padding


def cost(voice: PersonaVoice, request: Request, repeats: int = 1) -> pd.DataFrame:
    """Seconds to sample one request without guidance and with each kind, the best of `repeats`, one after another.

    Columns: kind, seconds, ratio (to no guidance).
    """
    given = items(voice, [request])
    best = {NONE: np.inf, "ceag": np.inf}
    for _ in range(repeats):
        for kind in best:
            scaled, guidance = guided(voice, given, kind, 1.0)
            start = time.perf_counter()
            voice.backbone.sample(
                scaled, steps=voice.inference.steps, sway_coef=voice.inference.sway_coef, guidance=guidance
            )
            best[kind] = min(best[kind], time.perf_counter() - start)
    found = pd.DataFrame({"kind": list(best), "seconds": list(best.values())})
    return found.assign(ratio=found["seconds"] / best[NONE])


def cost_sentence(table: pd.DataFrame, steps: int) -> str:
    """One sentence on `cost`."""
    seconds = table.set_index("kind")["seconds"]
    return (
        f"At {steps} steps one utterance, timed once, took {seconds['ceag'] / seconds[NONE]:.2f} times as long with "
        f"CEAG ({seconds['ceag']:.1f} s against {seconds[NONE]:.1f} s): each step in the window needs a second pass "
        "and its gradient, whatever the strength."
    )


def padding(voice: PersonaVoice, requests: Sequence[Request]) -> pd.DataFrame:
    """The shortest of some requests, guided alone and beside the longest, with masks and without, in float32.

    Columns: kind, row, masks, finite (share of the generated mel), apart (largest difference from the row alone with
    masks, nats). Raises ValueError when there is nothing longer to pad for.
    """
    given = sorted(items(voice, requests), key=lambda item: item.frames)
    given = [given[0], given[-1]]
    if given[0].frames == given[1].frames:
        raise ValueError("all requests are of the same length; give one that is longer")
    first, lines = slice(len(given[0].mel), None), []
    with _in_float32(voice.backbone):
        for kind in ("ieag", "ceag"):
            alone = None
            for batch, masked in ((given[:1], True), (given, True), (given, False)):
                guidance = ceag.Guidance(kind, masked=masked)
                mel = voice.backbone.sample(batch, steps=PADDING_STEPS, guidance=guidance)[0][first]
                alone = mel if alone is None else alone
                row = "alone" if len(batch) == 1 else "in a padded batch"
                finite, apart = mel.isfinite().float().mean(), (mel - alone).abs().max()
                lines.append((kind, row, "yes" if masked else "no", float(finite), float(apart)))
    return pd.DataFrame(lines, columns=["kind", "row", "masks", "finite", "apart"])


def padding_sentence(table: pd.DataFrame) -> str:
    """One sentence on `padding`."""
    batch = table[table["row"] != "alone"]
    apart = batch.loc[batch["masks"] == "yes", "apart"].max()
    bare = batch[batch["masks"] == "no"]
    broken = [line.kind.upper() for line in bare.itertuples() if line.finite < 1]
    return (
        f"With masks a row in a padded batch is at most {apart:.1e} nats from the row alone. Without them the padded "
        f"row is lost to NaN under {' and '.join(broken) or 'no kind of guidance'}."
    )
